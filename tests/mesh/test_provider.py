"""A provider over the memory transport, with engines that do what a script says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from monai_node.mesh.engine.base import Engine, EngineCard
from monai_node.mesh.engine.scripted import Breaks, ScriptedEngine
from monai_node.mesh.identity import Identity
from monai_node.mesh.provider import TASKS_PER_ENGINE_MAX, Provider
from monai_node.registry.advert import Skill
from monai_node.registry.errors import ContextLengthExceeded, MonaiError, PeerLost, SetupError
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import MemoryNetwork, MemoryTransport, Stream, open_memory_transport
from monai_node.registry.wire import (
    DELTA_SECONDS,
    LOGPROBS_PER_DELTA_MAX,
    STREAM_BUFFER_FRAMES,
    TASK_PROTOCOL,
    TASKS_PER_PEER_MAX,
    Label,
    Parameters,
    TaskAccepted,
    TaskCompleted,
    TaskDelta,
    TaskEvent,
    TaskFailed,
    TaskInput,
    TaskRequest,
    Usage,
    decode,
    encode,
)

SECONDS = 5.0  # for anything that takes milliseconds


class Gate:
    """Hand it to an engine as `pause`: the engine waits at it until `open` is called."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.waiting = 0

    async def __call__(self) -> None:
        self.waiting += 1
        try:
            await self._event.wait()
        finally:
            self.waiting -= 1

    def open(self) -> None:
        self._event.set()

    def shut(self) -> None:
        self._event.clear()


class AnyEngine:
    """An engine whose events are any asynchronous generator."""

    def __init__(self, submit: Callable[[TaskRequest], AsyncGenerator[TaskDelta | TaskCompleted]]) -> None:
        skill = Skill(id="chat", name="chat", description="", model="scripted")
        self._card = EngineCard(skills=(skill,))
        self._submit = submit

    @property
    def card(self) -> EngineCard:
        return self._card

    def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        return self._submit(request)


@dataclass
class Service:
    """A provider, a caller of it, and the load that was announced."""

    provider: Provider
    peer: PeerId
    caller: MemoryTransport
    network: MemoryNetwork
    loads: list[tuple[int, int]]

    async def ask(self, request: TaskRequest, caller: MemoryTransport | None = None) -> Stream:
        stream = await (caller or self.caller).open(self.peer, TASK_PROTOCOL, SECONDS)
        await stream.send(encode(request))
        return stream


@asynccontextmanager
async def serving(
    *engines: Engine, may_serve: Callable[[PeerId, Label], bool] = lambda peer, label: True
) -> AsyncGenerator[Service]:
    network, loads = MemoryNetwork(), list[tuple[int, int]]()

    def changed() -> None:
        loads.append((provider.running, provider.queued))

    provider = Provider(engines, may_serve, changed)
    async with (
        open_memory_transport(Identity.generate().peer_id, network) as server,
        open_memory_transport(Identity.generate().peer_id, network) as caller,
    ):
        server.handle(TASK_PROTOCOL, provider.serve)
        yield Service(provider, server.peer_id, caller, network, loads)


def request(attempt: str = "a1", **fields: Any) -> TaskRequest:
    return TaskRequest.model_validate(
        {
            "run": "r1",
            "task": "t1",
            "attempt": attempt,
            "skill": "chat",
            "model": "scripted",
            "input": TaskInput(text="Say something."),
            "remaining_ms": 60_000,
            **fields,
        }
    )


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def next_event(stream: Stream) -> TaskEvent:
    async with asyncio.timeout(SECONDS):
        frame = await stream.receive()
    return decode(frame, TaskAccepted, TaskDelta, TaskCompleted, TaskFailed)


async def events_of(stream: Stream) -> list[TaskEvent]:
    """Every event up to the well-formed end of the stream."""
    events: list[TaskEvent] = []
    try:
        while True:
            events.append(await next_event(stream))
    except EOFError:
        return events


async def failure_of(stream: Stream) -> TaskFailed:
    """The last event, which says that the task failed."""
    *_, last = await events_of(stream)
    assert isinstance(last, TaskFailed)
    return last


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():
            await asyncio.sleep(0.002)


def text_of(events: Sequence[TaskEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TaskDelta))


# --- a task that goes well ------------------------------------------------------------------------
def test_what_is_told_of_tokens_comes_with_their_text_and_no_frame_tells_of_too_many() -> None:
    async def test() -> None:
        words = "so many words " * 100
        async with serving(ScriptedEngine(words, piece_chars=2)) as service:
            stream = await service.ask(request(parameters=Parameters(logprobs=0)))
            deltas = [event for event in await events_of(stream) if isinstance(event, TaskDelta)]
        for delta in deltas:
            assert "".join(told.token for told in delta.logprobs) == delta.text
            assert len(delta.logprobs) <= LOGPROBS_PER_DELTA_MAX
        assert text_of(deltas) == words

    run(test)


def test_accepted_comes_before_any_work_then_text_then_one_completed() -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("one two three", pause=gate)
        async with serving(engine) as service:
            stream = await service.ask(request())
            assert await next_event(stream) == TaskAccepted(attempt="a1", position=0)
            await until(lambda: gate.waiting == 1)
            gate.open()
            *deltas, last = await events_of(stream)
            assert {type(event) for event in deltas} == {TaskDelta}
            assert {event.attempt for event in (*deltas, last)} == {"a1"}
            assert text_of(deltas) == "one two three"
            assert isinstance(last, TaskCompleted)
            assert last.model == "scripted"
            assert last.usage == Usage(prompt_tokens=2, completion_tokens=3)
            assert engine.completed == [request()]

    run(test)


def test_text_is_batched_and_the_first_of_it_comes_at_once() -> None:
    async def test() -> None:
        engine = ScriptedEngine("x" * 1000, piece_chars=1)
        async with serving(engine) as service:
            _, *deltas, _ = await events_of(await service.ask(request()))
            assert text_of(deltas) == "x" * 1000
            assert isinstance(deltas[0], TaskDelta)
            assert deltas[0].text == "x"
            assert len(deltas) < 100, "a frame for each of a thousand pieces costs more than the pieces"

    run(test)


def test_text_is_not_held_back_while_the_engine_pauses() -> None:
    async def test() -> None:
        goes_on = asyncio.Event()

        async def bursts(asked: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
            for piece in ("first ", "second ", "third"):
                yield TaskDelta(attempt=asked.attempt, text=piece)
            await goes_on.wait()
            yield TaskCompleted(attempt=asked.attempt)

        async with serving(AnyEngine(bursts)) as service:
            stream = await service.ask(request())
            seen: list[TaskEvent] = []
            while text_of(seen) != "first second third":
                seen.append(await next_event(stream))
            goes_on.set()
            assert [type(event) for event in await events_of(stream)] == [TaskCompleted]

    run(test)


def test_completed_says_how_long_the_task_stood_in_the_queue() -> None:
    async def test() -> None:
        gate = Gate()
        async with serving(ScriptedEngine("x", pause=gate)) as service:
            first, second = await service.ask(request("a1")), await service.ask(request("a2"))
            assert isinstance(await next_event(second), TaskAccepted)
            waited = 3 * DELTA_SECONDS
            await asyncio.sleep(waited)
            gate.open()
            done = [(await events_of(stream))[-1] for stream in (first, second)]
            assert isinstance(done[0], TaskCompleted)
            assert isinstance(done[1], TaskCompleted)
            assert done[0].timings.queue_ms < waited * 1000 <= done[1].timings.queue_ms

    run(test)


def test_the_attempt_is_the_callers_whatever_the_engine_says() -> None:
    async def forgetful(_: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        yield TaskDelta(attempt="another", text="x")
        yield TaskCompleted(attempt="another")

    async def test() -> None:
        async with serving(AnyEngine(forgetful)) as service:
            events = await events_of(await service.ask(request("mine")))
            assert [event.attempt for event in events] == ["mine"] * 3

    run(test)


# --- admission ------------------------------------------------------------------------------------
@pytest.mark.parametrize("fields", [{"skill": "fly"}, {"model": "other"}, {"model": ""}], ids=repr)
def test_a_skill_that_is_not_offered_is_refused_without_accepting(fields: dict[str, Any]) -> None:
    async def test() -> None:
        engine = ScriptedEngine("x")
        async with serving(engine) as service:
            (failed,) = await events_of(await service.ask(request(**fields)))
            assert isinstance(failed, TaskFailed)
            assert failed.code == "peer_refused"
            assert engine.requests == []
            assert service.loads == []

    run(test)


def test_a_caller_that_may_not_be_served_is_refused_by_label() -> None:
    async def test() -> None:
        engine = ScriptedEngine("x")
        async with serving(engine, may_serve=lambda peer, label: label == "open") as service:
            (failed,) = await events_of(await service.ask(request(label="trusted")))
            assert isinstance(failed, TaskFailed)
            assert failed.code == "peer_refused"
            assert engine.requests == []
            assert isinstance((await events_of(await service.ask(request(label="open"))))[-1], TaskCompleted)

    run(test)


def test_whether_a_caller_may_be_served_is_asked_for_the_peer_that_called() -> None:
    asked: list[tuple[PeerId, Label]] = []

    def may_serve(peer: PeerId, label: Label) -> bool:
        asked.append((peer, label))
        return False

    async def test() -> None:
        async with serving(ScriptedEngine("x"), may_serve=may_serve) as service:
            await events_of(await service.ask(request(label="local")))
            assert asked == [(service.caller.peer_id, "local")]

    run(test)


def test_the_position_is_how_many_tasks_stand_before_this_one() -> None:
    async def test() -> None:
        gate = Gate()
        async with serving(ScriptedEngine("x", pause=gate, concurrency=2)) as service:
            streams = [await service.ask(request(f"a{number}")) for number in range(5)]
            accepted = [await next_event(stream) for stream in streams]
            assert [event.position for event in accepted if isinstance(event, TaskAccepted)] == [
                0,
                0,
                1,
                2,
                3,
            ]
            assert (service.provider.running, service.provider.queued) == (2, 3)
            gate.open()
            for stream in streams:
                assert isinstance((await events_of(stream))[-1], TaskCompleted)
            await until(lambda: service.loads[-1] == (0, 0))

    run(test)


def test_an_engine_of_one_slot_serves_in_the_order_of_arrival() -> None:
    async def test() -> None:
        engine = ScriptedEngine("x")
        async with serving(engine) as service:
            streams = [await service.ask(request(f"a{number}")) for number in range(8)]
            for stream in streams:
                await events_of(stream)
            assert [asked.attempt for asked in engine.completed] == [f"a{number}" for number in range(8)]

    run(test)


def test_one_caller_may_have_only_so_many_tasks_here_and_another_one_still_its_own() -> None:
    async def test() -> None:
        gate = Gate()
        async with serving(ScriptedEngine("x", pause=gate)) as service:
            held = [await service.ask(request(f"a{number}")) for number in range(TASKS_PER_PEER_MAX)]
            for stream in held:
                assert isinstance(await next_event(stream), TaskAccepted)
            (failed,) = await events_of(await service.ask(request("more")))
            assert isinstance(failed, TaskFailed)
            assert failed.code == "peer_busy"
            async with open_memory_transport(Identity.generate().peer_id, service.network) as other:
                assert isinstance(await next_event(await service.ask(request("other"), other)), TaskAccepted)
            held[-1].reset()
            await until(lambda: service.provider.queued == TASKS_PER_PEER_MAX - 2)
            assert isinstance(await next_event(await service.ask(request("after"))), TaskAccepted)

    run(test)


def test_an_engine_takes_only_so_many_tasks_in_all_and_then_says_that_it_is_busy() -> None:
    async def test() -> None:
        engine = ScriptedEngine("x", pause=Gate())
        async with serving(engine) as service, AsyncExitStack() as stack:
            while service.provider.running + service.provider.queued < TASKS_PER_ENGINE_MAX:
                assert service.provider.admission == "accepting"
                caller = await stack.enter_async_context(
                    open_memory_transport(Identity.generate().peer_id, service.network)
                )
                for number in range(TASKS_PER_PEER_MAX):
                    stream = await service.ask(request(f"a{number}"), caller)
                    assert isinstance(await next_event(stream), TaskAccepted)
            assert service.provider.admission == "busy"
            assert (await failure_of(await service.ask(request("more")))).code == "peer_busy"
            await stack.aclose()
            await until(lambda: service.loads[-1] == (0, 0))
            assert service.provider.admission == "accepting"

    run(test)


def test_two_owners_of_one_skill_are_refused_at_the_start() -> None:
    with pytest.raises(SetupError, match="two sources offer the skill 'chat' of 'scripted'"):
        Provider([ScriptedEngine("a"), ScriptedEngine("b")], lambda peer, label: True, lambda: None)
    Provider(
        [ScriptedEngine("a"), ScriptedEngine("b", alias="other")], lambda peer, label: True, lambda: None
    )


# --- cancellation and time ------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["reset", "close", "another frame"])
def test_a_caller_that_wants_no_result_any_more_frees_the_engine(how: str) -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("one two three", pause=gate)
        async with serving(engine) as service:
            stream = await service.ask(request("a1"))
            assert isinstance(await next_event(stream), TaskAccepted)
            await until(lambda: gate.waiting == 1)
            waiting = await service.ask(request("a2"))
            assert isinstance(await next_event(waiting), TaskAccepted)
            if how == "reset":
                stream.reset()
            elif how == "close":
                await stream.close()
            else:
                await stream.send(b"never mind")
            await until(lambda: [asked.attempt for asked in engine.cancelled] == ["a1"])
            gate.open()
            assert isinstance((await events_of(waiting))[-1], TaskCompleted)
            await until(lambda: service.loads[-1] == (0, 0))

    run(test)


def test_a_task_cancelled_in_the_queue_never_reaches_the_engine() -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("x", pause=gate)
        async with serving(engine) as service:
            first = await service.ask(request("a1"))
            await until(lambda: gate.waiting == 1)
            second = await service.ask(request("a2"))
            assert isinstance(await next_event(second), TaskAccepted)
            second.reset()
            await until(lambda: service.provider.queued == 0)
            gate.open()
            assert isinstance((await events_of(first))[-1], TaskCompleted)
            assert [asked.attempt for asked in engine.requests] == ["a1"]

    run(test)


def test_a_caller_whose_connection_ends_frees_the_engine() -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("x", pause=gate)
        async with serving(engine) as service:
            await service.ask(request())
            await until(lambda: gate.waiting == 1)
            await service.caller.disconnect(service.peer)
            await until(lambda: len(engine.cancelled) == 1)
            await until(lambda: service.provider.running == 0)

    run(test)


def test_a_provider_that_is_ended_frees_its_engine() -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("x", pause=gate)
        async with serving(engine) as service:
            stream = await service.ask(request())
            await until(lambda: gate.waiting == 1)
        assert len(engine.cancelled) == 1
        assert service.provider.running == 0
        with pytest.raises(PeerLost):
            await events_of(stream)

    run(test)


def test_a_task_that_takes_longer_than_it_may_fails_with_the_deadline_and_frees_the_engine() -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("x", pause=gate)
        async with serving(engine) as service:
            failed = await failure_of(await service.ask(request(remaining_ms=30)))
            assert failed.code == "deadline_exceeded"
            assert len(engine.cancelled) == 1
            gate.open()
            assert isinstance((await events_of(await service.ask(request())))[-1], TaskCompleted)

    run(test)


def test_time_in_the_queue_counts_towards_the_deadline() -> None:
    async def test() -> None:
        gate = Gate()
        engine = ScriptedEngine("x", pause=gate)
        async with serving(engine) as service:
            await service.ask(request("a1"))
            await until(lambda: gate.waiting == 1)
            failed = await failure_of(await service.ask(request("a2", remaining_ms=30)))
            assert failed.code == "deadline_exceeded"
            assert [asked.attempt for asked in engine.requests] == ["a1"]

    run(test)


def test_a_caller_that_reads_nothing_loses_its_stream_and_not_the_engine() -> None:
    async def test() -> None:
        async def endless(asked: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
            try:
                while True:
                    yield TaskDelta(attempt=asked.attempt, text="x")
                    await asyncio.sleep(0)
            finally:
                is_closed.set()

        is_closed = asyncio.Event()
        async with serving(AnyEngine(endless)) as service:
            await service.ask(request())  # and never reads
            async with asyncio.timeout(SECONDS):
                await is_closed.wait()
            await until(lambda: service.provider.running == 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_node.mesh.provider.DELTA_SECONDS", 0.0)  # a frame for every piece
        assert STREAM_BUFFER_FRAMES < 1000
        run(test)


# --- engines that fail ----------------------------------------------------------------------------
def test_an_error_of_ours_reaches_the_caller_with_its_code_and_sentence() -> None:
    async def test() -> None:
        error = ContextLengthExceeded("the prompt is longer than the model's context")
        async with serving(ScriptedEngine(Breaks(error, text="some text"))) as service:
            failed = await failure_of(await service.ask(request()))
            assert (failed.code, failed.message) == (error.code, error.message)
            assert not failed.retryable

    run(test)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x = 'a secret'"), TimeoutError("slow"), OSError("disk")]
)
def test_any_other_error_of_an_engine_is_one_sentence_that_quotes_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        engine = ScriptedEngine([Breaks(error), "fine"])
        async with serving(engine) as service:
            with caplog.at_level(logging.ERROR):
                failed = await failure_of(await service.ask(request()))
            assert failed.code == "task_failed"
            assert failed.message == "the engine failed; its log says why"
            assert failed.retryable
            assert type(error).__name__ in caplog.text
            assert isinstance((await events_of(await service.ask(request())))[-1], TaskCompleted)

    run(test)


def test_an_engine_that_ends_without_completing_has_failed() -> None:
    async def silent(asked: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        yield TaskDelta(attempt=asked.attempt, text="half of")

    async def test() -> None:
        async with serving(AnyEngine(silent)) as service:
            failed = await failure_of(await service.ask(request()))
            assert (failed.code, failed.message) == ("task_failed", "the engine ended without completing")

    run(test)


def test_what_an_engine_says_after_its_end_is_not_sent() -> None:
    async def chatty(asked: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        yield TaskCompleted(attempt=asked.attempt)
        yield TaskDelta(attempt=asked.attempt, text="and another thing")

    async def test() -> None:
        async with serving(AnyEngine(chatty)) as service:
            events = await events_of(await service.ask(request()))
            assert [type(event) for event in events] == [TaskAccepted, TaskCompleted]

    run(test)


def test_text_that_cannot_be_sent_fails_that_task_alone() -> None:
    async def test() -> None:
        async with serving(ScriptedEngine(["\ud800", "fine"])) as service:
            assert (await failure_of(await service.ask(request()))).code == "task_failed"
            assert isinstance((await events_of(await service.ask(request())))[-1], TaskCompleted)

    run(test)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff", b"not cbor", encode(TaskAccepted(attempt="a")), encode(request())[:-1]], ids=repr
)
def test_garbage_instead_of_a_request_costs_that_stream_alone(frame: bytes) -> None:
    async def test() -> None:
        engine = ScriptedEngine("x")
        async with serving(engine) as service:
            stream = await service.caller.open(service.peer, TASK_PROTOCOL, SECONDS)
            await stream.send(frame)
            with pytest.raises(MonaiError):
                await events_of(stream)
            assert service.loads == []
            assert isinstance((await events_of(await service.ask(request())))[-1], TaskCompleted)
            assert len(engine.requests) == 1

    run(test)


def test_a_caller_that_never_sends_its_request_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_node.mesh.provider.SEND_SECONDS", 0.02)

    async def test() -> None:
        async with serving(ScriptedEngine("x")) as service:
            stream = await service.caller.open(service.peer, TASK_PROTOCOL, SECONDS)
            with pytest.raises(PeerLost):
                await events_of(stream)

    run(test)


# --- before the end ---------------------------------------------------------------------------------
def test_who_is_about_to_leave_says_so_takes_nothing_new_and_ends_what_is_here() -> None:
    async def test() -> None:
        gate = Gate()
        async with serving(ScriptedEngine("one two three", pause=gate)) as service:
            stream = await service.ask(request())
            await until(lambda: gate.waiting == 1)
            told = len(service.loads)
            service.provider.leave()
            assert service.provider.admission == "leaving"
            assert len(service.loads) == told + 1, "the beacon is made anew"
            assert (await failure_of(await service.ask(request("a2")))).code == "peer_busy"
            idle = asyncio.create_task(service.provider.until_idle())
            await asyncio.sleep(0)
            assert not idle.done()
            gate.open()
            assert text_of(await events_of(stream)) == "one two three"
            async with asyncio.timeout(SECONDS):
                await idle

    run(test)
