"""Faults at frames: each action over the memory transport, and real deaths of real processes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from faults.frames import (
    STALE_ATTEMPT,
    FaultPlan,
    FaultyTransport,
    FrameFault,
    faulty_transport,
    frame_kind,
    parse_fault,
)
from faults.processes import NodeProcess, faulty_node_command
from faults.provider_main import run, split_arguments
from monai_node.registry import wire
from monai_node.registry.errors import PeerLost
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import (
    MemoryNetwork,
    Stream,
    Transport,
    open_memory_transport,
)

PROVIDER, CALLER = PeerId("provider"), PeerId("caller")
ANSWER: list[wire.Message] = [
    wire.TaskAccepted(attempt="a1"),
    *(wire.TaskDelta(attempt="a1", text=text) for text in "xyz"),
    wire.TaskCompleted(attempt="a1"),
]


async def answer(stream: Stream) -> None:
    for message in ANSWER:
        await stream.send(wire.encode(message))


async def ask(*faults: str, signals: list[int] | None = None, tasks: int = 1) -> list[bytes | str]:
    """What a caller receives of `tasks` answers of a provider with these faults, one by one."""
    plan = FaultPlan([parse_fault(fault) for fault in faults])
    if signals is not None:
        plan.signal_itself = signals.append
    network, got = MemoryNetwork(), list[bytes | str]()
    async with (
        open_memory_transport(PROVIDER, network) as provider,
        open_memory_transport(CALLER, network) as caller,
    ):
        FaultyTransport(provider, plan).handle(wire.TASK_PROTOCOL, answer)
        for _ in range(tasks):
            stream = await caller.open(PROVIDER, wire.TASK_PROTOCOL, 1)
            async with asyncio.timeout(5):
                got += await receive_all(stream)
    return got


async def receive_all(stream: Stream) -> list[bytes | str]:
    got: list[bytes | str] = []
    while True:
        try:
            got.append(await stream.receive())
        except EOFError:
            return [*got, "end"]
        except PeerLost:
            return [*got, "lost"]


def kinds(got: Sequence[bytes | str]) -> list[str]:
    return [each if isinstance(each, str) else frame_kind(each) or "garbage" for each in got]


WHOLE = ["accepted", "delta", "delta", "delta", "completed", "end"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("drop:delta:2", ["accepted", "delta", "delta", "completed", "end"]),
        ("drop:delta:2+", ["accepted", "delta", "completed", "end"]),
        ("drop:completed:1", ["accepted", "delta", "delta", "delta", "end"]),
        ("garbage:delta:1", ["accepted", "garbage", "delta", "delta", "completed", "end"]),
        (
            "repeat:completed:1",
            ["accepted", "delta", "delta", "delta", "completed", "completed", "end"],
        ),
        ("drop:delta:4", WHOLE),
        ("drop:failed:1", WHOLE),
    ],
)
def test_the_frame_of_this_kind_and_number_is_struck(fault: str, expected: list[str]) -> None:
    assert kinds(asyncio.run(ask(fault))) == expected


def test_a_reset_stream_is_lost_to_its_reader() -> None:
    assert kinds(asyncio.run(ask("reset:delta:3")))[-1] == "lost"


def test_frames_are_counted_over_all_streams_of_the_node() -> None:
    got = kinds(asyncio.run(ask("drop:completed:2", tasks=3)))
    assert got == [*WHOLE, "accepted", "delta", "delta", "delta", "end", *WHOLE]


def test_a_stale_frame_is_valid_but_of_an_attempt_nobody_asked_for() -> None:
    got = asyncio.run(ask("stale:completed:1"))
    frames = [each for each in got if isinstance(each, bytes)]
    completed = wire.decode(frames[-1], wire.TaskCompleted)
    assert completed.attempt == STALE_ATTEMPT
    assert wire.decode(frames[-2], wire.TaskDelta).attempt == "a1"


def test_a_delayed_frame_comes_later_and_whole() -> None:
    began = time.monotonic()
    assert kinds(asyncio.run(ask("delay:60:completed:1"))) == WHOLE
    assert time.monotonic() - began >= 0.06


def test_kill_and_freeze_send_the_signal_before_the_frame() -> None:
    signals: list[int] = []
    asyncio.run(ask("freeze:accepted:1", "kill:delta:2", signals=signals))
    assert signals == [signal.SIGSTOP, signal.SIGKILL]


def test_garbage_is_the_same_for_the_same_seed_and_never_a_frame() -> None:
    assert FaultPlan([], seed=1).garbage(40) == FaultPlan([], seed=1).garbage(40)
    assert FaultPlan([], seed=1).garbage(40) != FaultPlan([], seed=2).garbage(40)
    assert all(frame_kind(FaultPlan([], seed=seed).garbage(40)) is None for seed in range(50))


def test_streams_that_the_node_opens_are_struck_too() -> None:
    async def scenario() -> list[bytes | str]:
        network, got = MemoryNetwork(), list[bytes | str]()

        async def listen(stream: Stream) -> None:
            got.extend(await receive_all(stream))
            done.set()

        done = asyncio.Event()
        async with (
            open_memory_transport(PROVIDER, network) as provider,
            open_memory_transport(CALLER, network) as caller,
        ):
            provider.handle(wire.PROBE_PROTOCOL, listen)
            plan = FaultPlan([parse_fault("drop:probe:1")])
            stream = await FaultyTransport(caller, plan).open(PROVIDER, wire.PROBE_PROTOCOL, 1)
            for n in range(2):
                await stream.send(wire.encode(wire.Probe(n=n)))
            await stream.close()
            await asyncio.wait_for(done.wait(), 5)
        return got

    (only, end) = asyncio.run(scenario())
    assert isinstance(only, bytes)
    assert wire.decode(only, wire.Probe).n == 1
    assert end == "end"


def test_a_fault_is_read_as_it_is_written() -> None:
    assert parse_fault("kill:delta:5") == FrameFault("kill", "delta", 5)
    assert parse_fault("reset:accepted:1+") == FrameFault("reset", "accepted", 1, is_lasting=True)
    assert parse_fault("delay:250:delta:3") == FrameFault("delay", "delta", 3, delay_ms=250)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kill", "is not <action>"),
        ("kill:delta:0", "counted from 1"),
        ("kill:token:1", "no frame 'token'"),
        ("explode:delta:1", "no action 'explode'"),
        ("delay:delta:1", "milliseconds belong to delay"),
        ("kill:20:delta:1", "milliseconds belong to delay"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_fault(text)


def test_the_node_gets_its_own_arguments_and_the_faulty_transport() -> None:
    seen: list[Sequence[str]] = []

    def node_main(
        argv: Sequence[str], *, wrap_transport: Callable[[Transport], Transport] | None = None
    ) -> int:
        assert wrap_transport is not None
        seen.append(argv)
        return 7

    assert run(["--fault", "kill:delta:5", "--", "serve", "--", "m.gguf"], node_main) == 7
    assert seen == [["serve", "--", "m.gguf"]]
    assert split_arguments(["--seed", "1"]) == (["--seed", "1"], [])
    with pytest.raises(SystemExit):
        run(["--fault", "nonsense", "--", "serve"], node_main)


def test_the_command_line_of_a_faulty_node_names_every_fault() -> None:
    command = faulty_node_command(["kill:delta:5", "drop:completed:1"], "serve", "m.gguf")
    ours, node = split_arguments(command[3:])
    assert ours == ["--fault", "kill:delta:5", "--fault", "drop:completed:1"]
    assert node == ["serve", "m.gguf"]


def test_a_wrapped_transport_is_still_the_same_node() -> None:
    async def scenario() -> None:
        network = MemoryNetwork()
        async with (
            open_memory_transport(PROVIDER, network) as inner,
            open_memory_transport(CALLER, network) as caller,
        ):
            wrapped = faulty_transport([])(inner)
            news: list[tuple[PeerId, bool]] = []
            wrapped.listen_connections(lambda peer, is_up: news.append((peer, is_up)))
            assert (wrapped.peer_id, wrapped.addrs) == (inner.peer_id, inner.addrs)
            assert await wrapped.connect(caller.addrs[0], 1) == CALLER
            assert wrapped.is_connected(CALLER)
            await wrapped.disconnect(CALLER)
            assert news == [(CALLER, True), (CALLER, False)]

    asyncio.run(scenario())


PROVIDER_PROGRAM = """
import asyncio, sys
from faults.provider_main import run
from faults.test_kit_frames import ANSWER, CALLER, PROVIDER
from monai_node.registry import wire
from monai_node.registry.transport import MemoryNetwork, open_memory_transport

def main(argv, *, wrap_transport):
    asyncio.run(talk(wrap_transport))

async def talk(wrap):
    async def answer(stream):
        for message in ANSWER:
            await stream.send(wire.encode(message))
            await asyncio.sleep(0.001)
    network = MemoryNetwork()
    async with (open_memory_transport(PROVIDER, network) as inner,
                open_memory_transport(CALLER, network) as caller):
        wrap(inner).handle(wire.TASK_PROTOCOL, answer)
        stream = await caller.open(PROVIDER, wire.TASK_PROTOCOL, 1)
        for _ in ANSWER:
            print(wire.decode(await stream.receive(), wire.Message).t, flush=True)

sys.exit(run(sys.argv[1:], main))
"""


def test_the_real_command_line_runs_under_faults(tmp_path: Path) -> None:
    with NodeProcess(faulty_node_command(["kill:delta:1"], "--version"), tmp_path) as node:
        assert "monai-node" in node.wait_line("monai-node", 20)
        assert node.wait_exit(20) == 0


def test_a_process_kills_or_freezes_itself_right_before_the_frame(tmp_path: Path) -> None:
    tests = str(Path(__file__).resolve().parent.parent)

    def provider(fault: str) -> NodeProcess:
        directory = tmp_path / fault
        directory.mkdir()
        command = [sys.executable, "-c", PROVIDER_PROGRAM, "--fault", fault, "--"]
        return NodeProcess(command, directory, env={"PYTHONPATH": tests})

    with provider("kill:delta:3") as killed, provider("freeze:delta:2") as frozen:
        assert killed.wait_exit(20) == -signal.SIGKILL
        assert killed.lines() == ["accepted", "delta", "delta"]

        frozen.wait_line("delta", 20)
        deadline = time.monotonic() + 5
        while [proc.state for proc in frozen.tree()] != ["T"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert frozen.lines() == ["accepted", "delta"]
        frozen.thaw()
        assert frozen.wait_exit(20) == 0
        assert frozen.lines() == ["accepted", "delta", "delta", "delta", "completed"]
