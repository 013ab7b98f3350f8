from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from monai_node.mesh.child import Child, ChildDied, ChildSpec, RestartPolicy, open_child
from monai_node.registry.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    SetupError,
    TaskFailed,
)
from monai_node.registry.wire import FRAME_BYTES_MAX, cbor

T = TypeVar("T")
HERE = Path(__file__).parent


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(bounded())


def spec(entry: str = "echo", **changes: Any) -> ChildSpec:
    settings: dict[str, Any] = {"load_seconds": 10.0, **changes}
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return ChildSpec(
        name="the test child",
        entry=f"child_entries.{entry}",
        environment={"PYTHONPATH": path, "COLOUR": "green"},
        **settings,
    )


async def collect(child: Child, op: str, payload: Any = None) -> list[Any]:
    async with aclosing(child.call(op, payload)) as events:
        return [event async for event in events]


async def until_gone(pid: int) -> None:
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0.02)


def test_a_child_is_not_told_the_mesh_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_JOIN", "/ip4/127.0.0.1/tcp/1/p2p/x#secret")

    async def main() -> None:
        async with open_child(spec()) as child:
            assert await collect(child, "environment", "MONAI_JOIN") == [{"value": None}]

    run(main())


def test_a_child_says_what_it_is_and_answers_calls_at_the_same_time() -> None:
    async def main() -> None:
        async with open_child(spec(config={"greeting": "hello"})) as child:
            assert child.info == {"greeting": "hello"}
            answers = await asyncio.gather(
                collect(child, "count", 3), collect(child, "count", 500), collect(child, "count", 0)
            )
            assert [len(answer) for answer in answers] == [3, 500, 0]
            assert answers[1][-1] == {"n": 499}
            assert await collect(child, "environment", "COLOUR") == [{"value": "green"}]

    run(main())


def test_a_handler_that_fails_costs_its_call_only() -> None:
    async def main() -> None:
        async with open_child(spec()) as child:
            pid = child.pid
            with pytest.raises(TaskFailed, match="RuntimeError") as failed:
                await collect(child, "raise")
            assert "secret" not in failed.value.message
            with pytest.raises(ContextLengthExceeded, match="too long"):
                await collect(child, "refuse")
            with pytest.raises(TaskFailed):
                await collect(child, "unsendable")
            with pytest.raises(InvalidRequest):
                await collect(child, "count", {"value": object()})
            with pytest.raises(InvalidRequest):
                await collect(child, "count", "x" * (FRAME_BYTES_MAX + 1))
            assert await collect(child, "count", 1) == [{"n": 0}]
            assert child.pid == pid
            assert "words for the log only" in child.stderr

    run(main())


def test_a_payload_too_deep_to_be_read_costs_its_call_only() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]

    async def main() -> None:
        async with open_child(spec()) as child:
            with pytest.raises(TaskFailed, match="CBOR"):
                await collect(child, "count", deep)
            assert await collect(child, "count", 1) == [{"n": 0}]

    run(main())


def test_closing_the_iterator_cancels_the_handler(tmp_path: Path) -> None:
    marks = [tmp_path / "closed", tmp_path / "cancelled"]

    async def main() -> None:
        async with open_child(spec()) as child:
            async with aclosing(child.call("slow", str(marks[0]))) as events:
                assert await anext(events) == {"state": "started"}
            reader = asyncio.create_task(collect(child, "slow", str(marks[1])))
            assert await collect(child, "count", 1) == [{"n": 0}]
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            while not all(mark.exists() for mark in marks):
                await asyncio.sleep(0.01)
            assert await collect(child, "count", 1) == [{"n": 0}]

    run(main())


def test_a_call_cancelled_before_the_child_began_it_does_not_count_as_stuck() -> None:
    async def main() -> None:
        async with open_child(spec(cancel_seconds=9.0)) as child:
            pid = child.pid
            for _ in range(20):
                events = child.call("slow", "/dev/null")
                opening = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                opening.cancel()
                await asyncio.wait([opening])
                await events.aclose()
            assert child._life is not None  # pyright: ignore[reportPrivateUsage]
            while child._life._calls:  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.01)  # until every one of them was ended
            assert await collect(child, "count", 1) == [{"n": 0}]
            assert child.pid == pid

    run(main())


def test_a_child_deaf_to_cancel_is_replaced() -> None:
    async def main() -> None:
        async with open_child(spec(cancel_seconds=0.1)) as child:
            first = child.pid
            async with aclosing(child.call("deaf", None)) as events:
                await anext(events)
            with pytest.raises(ChildDied, match="did not stop"):
                await collect(child, "count", 1)
            assert await collect(child, "count", 1) == [{"n": 0}]
            assert child.pid != first

    run(main())


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_crash_fails_every_open_call_and_the_next_call_works(name: str) -> None:
    async def main() -> None:
        async with open_child(spec()) as child:
            bystander = asyncio.create_task(collect(child, "slow", "/dev/null"))
            await collect(child, "count", 1)
            with pytest.raises(ChildDied, match=f"killed by {name}") as died:
                await collect(child, "die", name)
            with pytest.raises(ChildDied):
                await bystander
            assert died.value.stderr == ("last words",)
            assert died.value.is_retryable
            assert await collect(child, "count", 2) == [{"n": 0}, {"n": 1}]

    run(main())


def test_a_child_that_crashes_too_often_is_quarantined_until_it_is_reset() -> None:
    async def main() -> None:
        policy = RestartPolicy(first_delay_seconds=0.01, crashes_max=2)
        async with open_child(spec(), policy) as child:
            for _ in range(2):
                with pytest.raises(ChildDied):
                    await collect(child, "die", "SIGKILL")
            with pytest.raises(TaskFailed, match="crashed too often"):
                await collect(child, "count", 1)
            assert child.is_quarantined
            assert child.pid is None
            child.reset()
            assert await _eventually(child) == [{"n": 0}]
            assert not child.is_quarantined

    run(main())


async def _eventually(child: Child) -> list[Any]:
    while child.is_quarantined:
        await asyncio.sleep(0.01)
    return await collect(child, "count", 1)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", FRAME_BYTES_MAX + 1),
        struct.pack(">I", 0xFFFFFFFF) + b"x" * 100,
        struct.pack(">I", 8) + b"\xff" * 8,
        struct.pack(">I", 1) + cbor(1),
        struct.pack(">I", 2) + b"\x81\x80",
    ],
    ids=["too long", "huge", "not cbor", "not a list", "not entries"],
)
def test_a_hostile_frame_costs_that_child(data: bytes) -> None:
    async def main() -> None:
        async with open_child(spec("garbage", config={"bytes": data.hex()})) as child:
            with pytest.raises(ChildDied):
                await collect(child, "count", 1)

    run(main())


def test_a_child_that_floods_is_slowed_down_and_costs_no_memory() -> None:
    async def main() -> None:
        async with open_child(spec()) as child:
            async with aclosing(child.call("flood", None)) as events:
                await anext(events)
                await asyncio.sleep(0.3)
                call = next(iter(child._life._calls.values()))  # pyright: ignore
                assert call._held_bytes < 5 << 20  # pyright: ignore
            assert await collect(child, "count", 1) == [{"n": 0}]

    run(main())


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("refuses", "there is no such model"),
        ("exits", "exit code 3"),
        ("never_ready", "not ready within"),
        ("missing", "AttributeError"),
        ("hungry", "MemoryError"),
    ],
)
def test_a_first_start_that_fails_is_a_setup_error_in_one_sentence(entry: str, sentence: str) -> None:
    load_seconds = 0.7 if entry == "never_ready" else 10.0
    memory_bytes = 1 << 30 if entry == "hungry" else None

    async def main() -> None:
        with pytest.raises(SetupError, match=sentence):
            async with open_child(spec(entry, load_seconds=load_seconds, memory_bytes=memory_bytes)):
                pytest.fail("it must not open")

    run(main())


def test_leaving_the_context_ends_the_process_and_the_open_calls() -> None:
    async def main() -> None:
        async with open_child(spec()) as child:
            pid = child.pid
            assert pid is not None
            reader = asyncio.create_task(collect(child, "slow", "/dev/null"))
            await collect(child, "count", 1)
        with pytest.raises(TaskFailed):
            await reader
        with pytest.raises(TaskFailed, match="shut down"):
            await collect(child, "count", 1)
        await until_gone(pid)

    run(main())


def test_the_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import asyncio
from monai_node.mesh.child import ChildSpec, open_child
async def main():
    spec = ChildSpec("a child", "child_entries.outlives", {{"pid_file": {str(pid_file)!r}}})
    async with open_child(spec):
        print("ready", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""
    environment = {**os.environ, **spec().environment}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGKILL)
    child = Path(f"/proc/{pid_file.read_text()}")
    deadline = time.monotonic() + 5
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists()


def test_the_policy_doubles_its_delays_up_to_a_limit() -> None:
    policy = RestartPolicy(crashes_max=100, delay_seconds_max=1.0)
    delays = [policy.crashed(now) for now in range(5)]
    assert delays == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_the_policy_forgets_crashes_older_than_its_window() -> None:
    policy = RestartPolicy(crashes_max=3, window_seconds=60)
    assert policy.crashed(0.0) == 0.2
    assert policy.crashed(1.0) == 0.4
    assert policy.crashed(60.5) == 0.4
    assert policy.crashed(60.6) is None
    policy.reset()
    assert policy.crashed(60.7) == 0.2
