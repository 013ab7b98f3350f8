from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from monai_node.registry.errors import (
    ContextLengthExceeded,
    ContractBroken,
    DeadlineExceeded,
    InvalidRequest,
    NoProvider,
    PeerBusy,
    PeerLost,
    PeerUnreachable,
    ProtocolViolation,
    TaskFailed,
)
from monai_node.registry.ids import AttemptId, PeerId
from monai_node.registry.transport import MemoryNetwork, MemoryTransport, Stream, open_memory_transport
from monai_node.registry.wire import (
    TASK_PROTOCOL,
    TASKS_PER_PEER_MAX,
    TEXT_CHARS_MAX,
    ChatMessage,
    Message,
    Parameters,
    TaskAccepted,
    TaskCompleted,
    TaskDelta,
    TaskInput,
    TaskRequest,
    Timings,
    Usage,
    decode,
    encode,
)
from monai_node.registry.wire import (
    TaskFailed as FailedFrame,
)
from monai_node.router.dispatch import (
    Accepted,
    Dispatched,
    Dispatcher,
    DispatchEvent,
    Done,
    Lost,
    Text,
)
from monai_node.router.health import FAILURES_BEFORE_EJECTION, Health
from monai_node.router.outcome import Ending
from monai_node.router.places import OPENINGS_PER_PEER_MAX
from monai_node.router.rank import Candidate
from monai_node.router.task_stream import Patience
from monai_node.router.verdict import Check, Verdict

Serve = Callable[[TaskRequest, Stream], Awaitable[None]]

ME = PeerId("me")
QUICK = Patience(open_seconds=0.2, send_seconds=0.2, accept_seconds=0.1, idle_seconds=0.2, poll_seconds=0.02)


def candidate(
    peer: str, skill: str = "chat", model: str = "tiny", *, is_idempotent: bool = True
) -> Candidate:
    return Candidate(
        PeerId(peer), peer, skill, model, is_general=True, score=1.0, reasons=(), is_idempotent=is_idempotent
    )


def request(text: str = "hello") -> TaskRequest:
    return TaskRequest(
        run="run-1", task="t1", attempt="-", skill="-", input=TaskInput(text=text), remaining_ms=1
    )


@dataclass
class Provider:
    """Answers task streams with a script, and keeps what it was asked and whether streams were cut."""

    serve: Serve
    asked: list[TaskRequest] = field(default_factory=list[TaskRequest])
    is_cut: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    async def handle(self, stream: Stream) -> None:
        asked = decode(await stream.receive(), TaskRequest)
        self.asked.append(asked)
        self.idle.clear()
        try:
            await self.serve(asked, stream)
            await stream.receive()
        except EOFError:
            pass
        except PeerLost:
            self.is_cut = True
        finally:
            self.idle.set()


Frame = Callable[[str], Message]


def accepted(attempt: str) -> Message:
    return TaskAccepted(attempt=attempt)


def completed(attempt: str) -> Message:
    return TaskCompleted(attempt=attempt)


def failed(attempt: str) -> Message:
    return FailedFrame(attempt=attempt, code="task_failed", message="no")


def delta(text: str) -> Frame:
    return lambda attempt: TaskDelta(attempt=attempt, text=text)


def stale(frame: Frame) -> Frame:
    return lambda _: frame("another")


def not_an_answer(attempt: str) -> Message:
    return request()


def says(*texts: str, ends: bool = True) -> Serve:
    """Accepts, sends the texts and completes, or ends the stream without a word."""

    async def serve(asked: TaskRequest, stream: Stream) -> None:
        await stream.send(encode(TaskAccepted(attempt=asked.attempt)))
        for text in texts:
            await stream.send(encode(TaskDelta(attempt=asked.attempt, text=text)))
        if ends:
            await stream.send(encode(TaskCompleted(attempt=asked.attempt, model="tiny")))
        else:
            await stream.close()

    return serve


def refuses(code: str, *, accepts: bool = False) -> Serve:
    async def serve(asked: TaskRequest, stream: Stream) -> None:
        if accepts:
            await stream.send(encode(TaskAccepted(attempt=asked.attempt)))
        await stream.send(encode(FailedFrame(attempt=asked.attempt, code=code, message="no")))

    return serve


def sends(*frames: Frame) -> Serve:
    async def serve(asked: TaskRequest, stream: Stream) -> None:
        for frame in frames:
            await stream.send(encode(frame(asked.attempt)))

    return serve


async def freezes(asked: TaskRequest, stream: Stream) -> None:
    """Reads the request and never says a word."""


@asynccontextmanager
async def open_peers(providers: dict[str, Provider]) -> AsyncGenerator[MemoryTransport]:
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        for name, provider in providers.items():
            transport = await stack.enter_async_context(open_memory_transport(PeerId(name), network))
            transport.handle(TASK_PROTOCOL, provider.handle)
        yield await stack.enter_async_context(open_memory_transport(ME, network))


@dataclass
class Notes:
    """A ledger that writes down what it is told."""

    decisions: list[tuple[AttemptId, list[str]]] = field(default_factory=list[tuple[AttemptId, list[str]]])
    endings: dict[AttemptId, tuple[str, Ending]] = field(default_factory=dict[AttemptId, tuple[str, Ending]])

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        assert (run, task) == ("run-1", "t1")
        self.decisions.append((attempt, [candidate.peer for candidate in candidates]))

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        assert attempt not in self.endings
        assert attempt in [decided for decided, _ in self.decisions]
        self.endings[attempt] = (candidate.peer, ending)

    @property
    def ended_as(self) -> list[tuple[str, float | None, str | None, str]]:
        """Peer, value, source and code of every attempt, in order."""
        return [(peer, end.value, end.source, end.code) for peer, end in self.endings.values()]


@dataclass
class Outcome:
    events: list[DispatchEvent] = field(default_factory=list[DispatchEvent])
    error: BaseException | None = None
    health: Health = field(default_factory=Health)
    heard: list[PeerId] = field(default_factory=list[PeerId])
    ledger: Notes = field(default_factory=lambda: Notes())
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))

    @property
    def asked(self) -> list[str]:
        return [event.candidate.peer for event in self.events if isinstance(event, Dispatched)]

    @property
    def done(self) -> Done:
        last = self.events[-1]
        assert isinstance(last, Done), self.error
        return last

    @property
    def lost(self) -> list[Lost]:
        return [event for event in self.events if isinstance(event, Lost)]


def dispatch(
    providers: dict[str, Provider],
    candidates: Sequence[Candidate],
    *,
    seconds: float = 5.0,
    asked: TaskRequest | None = None,
    is_alive: Callable[[PeerId], bool] = lambda _: True,
    patience: Patience = QUICK,
    health: Health | None = None,
    check: Check | None = None,
) -> Outcome:
    outcome = Outcome(health=Health() if health is None else health)

    async def run() -> None:
        async with open_peers(providers) as transport:
            dispatcher = Dispatcher(
                transport,
                time.monotonic,
                outcome.health,
                outcome.heard.append,
                is_alive,
                patience,
                outcome.ledger,
            )
            started = time.monotonic()
            try:
                async with aclosing(
                    dispatcher.send(asked or request(), candidates, started + seconds, check)
                ) as events:
                    async for event in events:
                        outcome.events.append(event)
            except Exception as error:
                outcome.error = error
            outcome.seconds = time.monotonic() - started
            async with asyncio.timeout(2):  # every stream was ended, one way or the other
                for provider in providers.values():
                    await provider.idle.wait()

    asyncio.run(run())
    return outcome


def test_a_task_is_accepted_answered_and_done() -> None:
    peer = Provider(says("Hel", "lo"))
    outcome = dispatch({"a": peer}, [candidate("a")])
    kinds = [type(event) for event in outcome.events]
    assert kinds == [Dispatched, Accepted, Text, Text, Done]
    assert (outcome.done.text, outcome.done.attempts, outcome.done.completed.model) == ("Hello", 1, "tiny")
    assert {getattr(event, "attempt", None) for event in outcome.events} == {peer.asked[0].attempt}
    assert outcome.heard == ["a"] * 4
    assert outcome.health.standing(PeerId("a"), "chat").seconds is not None
    assert not peer.is_cut


def test_the_provider_is_told_skill_model_and_the_time_that_is_left() -> None:
    peer = Provider(says("x"))
    dispatch({"a": peer}, [candidate("a", "poems", "big")], seconds=2.0)
    asked = peer.asked[0]
    assert (asked.skill, asked.model, asked.prefix) == ("poems", "big", "")
    assert 1000 < asked.remaining_ms <= 2000


def test_a_busy_peer_passes_the_task_on() -> None:
    outcome = dispatch(
        {"a": Provider(refuses("peer_busy")), "b": Provider(says("hi"))}, [candidate("a"), candidate("b")]
    )
    assert outcome.asked == ["a", "b"]
    assert isinstance(outcome.lost[0].error, PeerBusy)
    assert not outcome.lost[0].is_continuing
    assert (outcome.done.text, outcome.done.attempts) == ("hi", 2)


def test_a_replica_goes_on_after_the_words_that_were_shown() -> None:
    second = Provider(says("the end"))
    outcome = dispatch(
        {"a": Provider(says("once upon ", ends=False)), "b": second}, [candidate("a"), candidate("b")]
    )
    assert second.asked[0].prefix == "once upon "
    assert outcome.text == outcome.done.text == "once upon the end"
    assert outcome.lost[0].is_continuing
    assert isinstance(outcome.lost[0].error, PeerLost)
    assert outcome.health.cooling_seconds(PeerId("a"), "chat", time.monotonic()) > 20


def test_the_same_model_continues_before_another_of_the_same_skill() -> None:
    providers = {
        "a": Provider(says("x", ends=False)),
        "b": Provider(says("b")),
        "c": Provider(says("c")),
    }
    candidates = [candidate("a"), candidate("b", model="other"), candidate("c", "talk")]
    assert dispatch(providers, candidates).asked == ["a", "c"]


def test_nobody_continues_what_another_skill_began() -> None:
    other = Provider(says("unfit"))
    outcome = dispatch(
        {"a": Provider(refuses("task_failed", accepts=True)), "b": other},
        [candidate("a", "sums", ""), candidate("b", "chat")],
    )
    assert outcome.done.text == "unfit"  # nothing was shown: it starts afresh
    began = sends(accepted, delta("4"), failed)
    outcome = dispatch(
        {"a": Provider(began), "b": other}, [candidate("a", "sums", ""), candidate("b", "chat")]
    )
    assert isinstance(outcome.error, TaskFailed)
    assert (outcome.text, outcome.asked, outcome.lost) == ("4", ["a"], [])


def test_a_stream_that_is_cut_before_accepted_counts_as_unreachable() -> None:
    async def cuts(asked: TaskRequest, stream: Stream) -> None:
        stream.reset()

    outcome = dispatch({"a": Provider(cuts), "b": Provider(says("hi"))}, [candidate("a"), candidate("b")])
    assert isinstance(outcome.lost[0].error, PeerUnreachable)
    assert outcome.done.text == "hi"


def test_a_peer_that_is_not_there_passes_the_task_on() -> None:
    outcome = dispatch({"b": Provider(says("hi"))}, [candidate("a"), candidate("b")])
    assert isinstance(outcome.lost[0].error, PeerUnreachable)
    assert outcome.done.text == "hi"


def test_a_peer_that_never_accepts_costs_the_time_to_accept() -> None:
    outcome = dispatch({"a": Provider(freezes), "b": Provider(says("hi"))}, [candidate("a"), candidate("b")])
    assert isinstance(outcome.lost[0].error, PeerUnreachable)
    assert outcome.done.text == "hi"
    assert 0.1 <= outcome.seconds < 1.0


def test_a_peer_known_to_be_silent_is_asked_after_the_others() -> None:
    outcome = dispatch(
        {"a": Provider(freezes), "b": Provider(says("hi"))},
        [candidate("a"), candidate("b")],
        is_alive=lambda peer: peer != "a",
    )
    assert outcome.asked == ["b"]


def test_a_peer_that_freezes_before_it_accepts_is_given_up_at_once() -> None:
    async def freezing(asked: TaskRequest, stream: Stream) -> None:
        alive.discard("a")

    alive = {"a", "b"}
    outcome = dispatch(
        {"a": Provider(freezing), "b": Provider(says("hi"))},
        [candidate("a"), candidate("b")],
        is_alive=alive.__contains__,
        patience=Patience(poll_seconds=0.02),
    )
    assert isinstance(outcome.lost[0].error, PeerUnreachable)
    assert outcome.done.text == "hi"
    assert outcome.seconds < 1.0


def test_a_peer_that_freezes_in_the_middle_is_continued_by_another() -> None:
    async def begins(asked: TaskRequest, stream: Stream) -> None:
        await stream.send(encode(TaskAccepted(attempt=asked.attempt)))
        await stream.send(encode(TaskDelta(attempt=asked.attempt, text="one ")))
        alive.discard("a")

    alive = {"a", "b"}
    outcome = dispatch(
        {"a": Provider(begins), "b": Provider(says("two"))},
        [candidate("a"), candidate("b")],
        is_alive=alive.__contains__,
        patience=Patience(poll_seconds=0.02),
    )
    assert outcome.done.text == "one two"
    assert isinstance(outcome.lost[0].error, PeerLost)
    assert outcome.seconds < 1.0


def test_a_silent_engine_of_a_live_peer_is_lost_after_the_idle_time() -> None:
    accepts = sends(accepted)
    outcome = dispatch({"a": Provider(accepts), "b": Provider(says("hi"))}, [candidate("a"), candidate("b")])
    assert isinstance(outcome.lost[0].error, PeerLost)
    assert 0.2 <= outcome.seconds < 1.0


def test_the_words_of_a_failed_peer_are_one_printable_line() -> None:
    async def fails(asked: TaskRequest, stream: Stream) -> None:
        said = "broken\r\nforged \x1b]0;title\x07"
        await stream.send(encode(FailedFrame(attempt=asked.attempt, code="task_failed", message=said)))

    outcome = dispatch({"a": Provider(fails)}, [candidate("a")])
    assert isinstance(outcome.error, TaskFailed)
    assert outcome.error.message.isprintable()


@pytest.mark.parametrize("ends", [True, False])
def test_deltas_that_have_come_together_are_given_together_and_none_is_lost(ends: bool) -> None:
    async def at_once(asked: TaskRequest, stream: Stream) -> None:
        frames: list[Message] = [TaskAccepted(attempt=asked.attempt)]
        frames += [TaskDelta(attempt=asked.attempt, text=text) for text in ("one ", "", "two ", "three")]
        frames.append(completed(asked.attempt) if ends else failed(asked.attempt))
        async with asyncio.TaskGroup() as group:  # all are sent before the other side has its turn
            for frame in frames:
                group.create_task(stream.send(encode(frame)))

    outcome = dispatch({"a": Provider(at_once)}, [candidate("a")])
    assert [event.text for event in outcome.events if isinstance(event, Text)] == ["one two three"]
    assert isinstance(outcome.error, TaskFailed) != ends
    assert not ends or outcome.done.text == "one two three"


def test_frames_without_text_do_not_pass_for_progress() -> None:
    async def stalls(asked: TaskRequest, stream: Stream) -> None:
        await stream.send(encode(TaskAccepted(attempt=asked.attempt)))
        while True:
            await stream.send(encode(TaskDelta(attempt=asked.attempt, text="")))
            await asyncio.sleep(0.01)

    outcome = dispatch(
        {"a": Provider(stalls), "b": Provider(says("hi"))}, [candidate("a"), candidate("b")], seconds=2.0
    )
    assert outcome.done.text == "hi"
    assert outcome.health.standing(PeerId("a"), "chat").ejections == 1


def test_a_queued_task_is_given_idle_time_for_those_before_it() -> None:
    async def slow(asked: TaskRequest, stream: Stream) -> None:
        await stream.send(encode(TaskAccepted(attempt=asked.attempt, position=9)))
        await asyncio.sleep(0.4)  # twice the idle time of one task
        await stream.send(encode(TaskCompleted(attempt=asked.attempt)))

    assert dispatch({"a": Provider(slow)}, [candidate("a")]).done.attempts == 1


@pytest.mark.parametrize(
    "frames",
    [
        [stale(accepted)],
        [delta("too early")],
        [completed],
        [accepted, accepted],
        [accepted, stale(delta("words of another task"))],
        [accepted, stale(completed)],
        [accepted, not_an_answer],
        [accepted, delta("x" * TEXT_CHARS_MAX), delta("x")],
    ],
    ids=[
        "stale-accepted",
        "early-delta",
        "early-completed",
        "accepted-twice",
        "stale-delta",
        "stale-completed",
        "not-an-answer",
        "too-long",
    ],
)
def test_a_peer_that_breaks_the_protocol_is_cut_off(frames: list[Frame]) -> None:
    peer = Provider(sends(*frames))
    outcome = dispatch({"a": peer}, [candidate("a")])
    assert isinstance(outcome.error, ProtocolViolation)
    assert outcome.asked == ["a"]
    assert peer.is_cut


def test_a_callers_error_is_believed_when_two_peers_say_it() -> None:
    third = Provider(says("hi"))
    outcome = dispatch(
        {
            "a": Provider(refuses("context_length_exceeded")),
            "b": Provider(refuses("invalid_request")),
            "c": third,
        },
        [candidate("a"), candidate("a", "other"), candidate("b"), candidate("c")],
    )
    assert isinstance(outcome.error, InvalidRequest)
    assert outcome.asked == ["a", "b"]
    assert outcome.health.standing(PeerId("a"), "chat").failures == 0


def test_the_only_peers_word_that_the_request_is_at_fault_is_taken() -> None:
    peer = Provider(refuses("context_length_exceeded"))
    outcome = dispatch({"a": peer}, [candidate("a"), candidate("a", "other")])
    assert isinstance(outcome.error, ContextLengthExceeded)
    assert outcome.asked == ["a"]


def test_a_peer_that_calls_good_requests_malformed_ends_no_run_and_loses_its_standing() -> None:
    liar, health = Provider(refuses("invalid_request", accepts=True)), Health()
    for _ in range(FAILURES_BEFORE_EJECTION):
        outcome = dispatch(
            {"liar": liar, "b": Provider(says("hi"))}, [candidate("liar"), candidate("b")], health=health
        )
        assert outcome.done.text == "hi"
    assert health.cooling_seconds(PeerId("liar"), "chat", time.monotonic()) > 0
    assert health.cooling_seconds(PeerId("b"), "chat", time.monotonic()) == 0


def test_a_peer_that_speaks_of_a_long_queue_and_sends_nothing_loses_its_standing() -> None:
    def queued(attempt: str) -> Message:
        return TaskAccepted(attempt=attempt, position=2**40)

    outcome = dispatch({"a": Provider(sends(queued))}, [candidate("a")], seconds=2 * QUICK.idle_seconds)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.health.standing(PeerId("a"), "chat").failures == 1


def test_text_that_cannot_be_sent_is_the_callers_error() -> None:
    broken = ChatMessage.model_construct(role="user", content="\ud800", extra={})
    asked = request().model_copy(update={"input": TaskInput.model_construct(text="x", turns=[broken])})
    outcome = dispatch({"a": Provider(says("hi"))}, [candidate("a")], asked=asked)
    assert isinstance(outcome.error, InvalidRequest)


def test_an_agent_that_abstains_is_no_failure_and_its_node_may_be_asked_for_chat() -> None:
    async def serve(asked: TaskRequest, stream: Stream) -> None:
        await (refuses("abstained", accepts=True) if asked.skill == "sums" else says("hi"))(asked, stream)

    outcome = dispatch(
        {"a": Provider(serve), "b": Provider(says("b"))},
        [candidate("a", "sums", ""), candidate("a"), candidate("b")],
    )
    assert outcome.asked == ["a", "a"]
    assert outcome.done.text == "hi"
    assert outcome.health.standing(PeerId("a"), "sums").failures == 0


def test_a_peer_that_failed_is_passed_over_while_others_are_left() -> None:
    broken = Provider(refuses("task_failed"))
    outcome = dispatch(
        {"a": broken, "b": Provider(says("hi"))}, [candidate("a"), candidate("a", "talk"), candidate("b")]
    )
    assert outcome.asked == ["a", "b"]


def test_the_only_peer_is_asked_again_when_it_was_busy() -> None:
    answers = iter([refuses("peer_busy"), says("hi")])

    async def serve(asked: TaskRequest, stream: Stream) -> None:
        await next(answers)(asked, stream)

    outcome = dispatch({"a": Provider(serve)}, [candidate("a")])
    assert (outcome.asked, outcome.done.text) == (["a", "a"], "hi")


def test_a_failed_engine_is_not_given_the_same_task_again() -> None:
    outcome = dispatch({"a": Provider(refuses("task_failed"))}, [candidate("a")])
    assert isinstance(outcome.error, TaskFailed)
    assert outcome.asked == ["a"]


def test_at_most_four_attempts_are_made() -> None:
    names = list("abcdef")
    outcome = dispatch(
        {name: Provider(refuses("task_failed")) for name in names}, [candidate(name) for name in names]
    )
    assert isinstance(outcome.error, TaskFailed)
    assert outcome.asked == ["a", "b", "c", "d"]
    assert len(outcome.lost) == 3


def test_where_everybody_is_busy_a_task_waits() -> None:
    names = list("abcdef")
    peers = {name: Provider(refuses("peer_busy")) for name in names}
    answers = iter([refuses("peer_busy"), says("hi")])

    async def serve(asked: TaskRequest, stream: Stream) -> None:
        await next(answers)(asked, stream)

    outcome = dispatch(peers | {"a": Provider(serve)}, [candidate(name) for name in names])
    assert outcome.asked == [*names, "a"]
    assert outcome.done.text == "hi"


def test_who_is_busy_until_the_time_is_over_is_named_and_not_ejected() -> None:
    outcome = dispatch({"a": Provider(refuses("peer_busy"))}, [candidate("a")], seconds=0.4)
    assert isinstance(outcome.error, PeerBusy)
    assert outcome.asked == ["a", "a"]
    assert not outcome.health.cooling(time.monotonic())


def test_no_peer_is_given_more_tasks_than_it_takes_and_further_ones_wait() -> None:
    here = Counter[str]()
    most = Counter[str]()
    may_end = asyncio.Event()
    beyond = 4

    def serving(name: str) -> Provider:
        async def serve(asked: TaskRequest, stream: Stream) -> None:
            here[name] += 1
            most[name] = max(most[name], here[name])
            try:
                if here[name] > TASKS_PER_PEER_MAX:
                    return await refuses("peer_busy")(asked, stream)
                await stream.send(encode(TaskAccepted(attempt=asked.attempt)))
                if here.total() == 2 * TASKS_PER_PEER_MAX:
                    may_end.set()
                await may_end.wait()
                await stream.send(encode(TaskCompleted(attempt=asked.attempt)))
            finally:
                here[name] -= 1

        return Provider(serve)

    async def run() -> None:
        async with open_peers({name: serving(name) for name in "ab"}) as transport:
            dispatcher = Dispatcher(transport, time.monotonic, Health())

            async def one() -> list[str]:
                until = time.monotonic() + 10
                async with aclosing(
                    dispatcher.send(request(), [candidate("a"), candidate("b")], until)
                ) as es:
                    return [e.candidate.peer async for e in es if isinstance(e, Dispatched)]

            asked = await asyncio.gather(*(one() for _ in range(2 * TASKS_PER_PEER_MAX + beyond)))
            assert {len(peers) for peers in asked} == {1}, "nobody was asked in vain"

    asyncio.run(run())
    assert most == {"a": TASKS_PER_PEER_MAX, "b": TASKS_PER_PEER_MAX}


def test_time_before_ones_turn_to_open_a_stream_is_nothing_that_the_peer_took() -> None:
    """One after another, so that all of them together take twice the patience that there is with one."""
    patience = Patience(accept_seconds=0.4, poll_seconds=0.02)

    async def run() -> None:
        one_by_one = asyncio.Lock()

        async def slow(asked: TaskRequest, stream: Stream) -> None:
            async with one_by_one:
                await asyncio.sleep(0.04)
            await says("hi")(asked, stream)

        async with open_peers({"a": Provider(slow)}) as transport:
            dispatcher = Dispatcher(transport, time.monotonic, Health(), patience=patience)

            async def one() -> list[DispatchEvent]:
                until = time.monotonic() + 10
                async with aclosing(dispatcher.send(request(), [candidate("a")], until)) as events:
                    return [event async for event in events if isinstance(event, Dispatched | Done)]

            found = await asyncio.gather(*(one() for _ in range(5 * OPENINGS_PER_PEER_MAX)))
            assert {tuple(map(type, events)) for events in found} == {(Dispatched, Done)}

    asyncio.run(run())


def test_whose_peer_stops_answering_before_its_turn_asks_another() -> None:
    async def run() -> None:
        async with open_peers({"a": Provider(freezes), "b": Provider(says("hi"))}) as transport:
            is_frozen = asyncio.Event()
            dispatcher = Dispatcher(
                transport,
                time.monotonic,
                Health(),
                is_alive=lambda peer: peer != "a" or not is_frozen.is_set(),
                patience=Patience(accept_seconds=30, poll_seconds=0.02),
            )
            dispatched = 0

            async def one() -> str:
                nonlocal dispatched
                until = time.monotonic() + 10
                candidates = [candidate("a"), candidate("b")]
                async with aclosing(dispatcher.send(request(), candidates, until)) as events:
                    async for event in events:
                        if isinstance(event, Dispatched):
                            dispatched += 1
                            if dispatched == 2 * OPENINGS_PER_PEER_MAX:
                                is_frozen.set()
                        if isinstance(event, Done):
                            return event.candidate.peer
                return ""

            served = await asyncio.gather(*(one() for _ in range(2 * OPENINGS_PER_PEER_MAX)))
            assert set(served) == {"b"}

    asyncio.run(run())


def test_a_task_that_must_not_run_twice_is_not_sent_again_once_it_may_have_run() -> None:
    other = Provider(says("again"))
    candidates = [candidate("a", is_idempotent=False), candidate("b")]
    outcome = dispatch({"a": Provider(freezes), "b": other}, candidates)
    assert isinstance(outcome.error, PeerUnreachable)
    assert other.asked == []
    outcome = dispatch({"a": Provider(refuses("peer_busy")), "b": other}, candidates)
    assert outcome.done.text == "again"


def test_without_candidates_there_is_no_provider() -> None:
    assert isinstance(dispatch({}, []).error, NoProvider)


@pytest.mark.parametrize("serve", [freezes, sends(accepted)])
def test_the_deadline_ends_the_task(serve: Serve) -> None:
    peer = Provider(serve)
    outcome = dispatch({"a": peer}, [candidate("a")], seconds=0.15, patience=Patience())
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.seconds < 1.0
    assert peer.is_cut
    assert outcome.health.standing(PeerId("a"), "chat").failures == 0


def test_a_peer_cannot_end_a_run_by_claiming_its_deadline_is_over() -> None:
    outcome = dispatch(
        {"a": Provider(refuses("deadline_exceeded")), "b": Provider(says("hi"))},
        [candidate("a"), candidate("b")],
    )
    assert outcome.done.text == "hi"


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_caller_that_goes_away_resets_the_providers_stream(how: str) -> None:
    async def run() -> None:
        peer = Provider(sends(accepted, delta("Hel")))
        async with open_peers({"a": peer}) as transport:
            dispatcher = Dispatcher(transport, time.monotonic, Health())
            began = asyncio.Event()

            async def consume() -> None:
                events = dispatcher.send(request(), [candidate("a")], time.monotonic() + 60)
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, Text):
                            began.set()
                            if how == "closed":
                                return

            task = asyncio.create_task(consume())
            async with asyncio.timeout(2):
                await began.wait()
                if how == "cancelled":
                    await asyncio.sleep(0)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                else:
                    await task
                await peer.idle.wait()
            assert peer.is_cut

    asyncio.run(run())


# --- results that are checked ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Number:
    """A right result has a digit; a beginning with a question mark will never have one."""

    held_chars: int | None = None

    def early(self, beginning: str) -> Verdict:
        return Verdict("failed", "it asks back") if "?" in beginning else Verdict("open")

    def whole(self, text: str) -> Verdict:
        if not text.strip():
            return Verdict("failed", "it is empty", is_hollow=True)
        return Verdict("passed") if any(map(str.isdigit, text)) else Verdict("failed", "no number")


def longer(text: str) -> str:
    return text.ljust(40, ".")


def test_a_result_that_fails_its_check_is_never_shown_and_another_peer_is_asked() -> None:
    outcome = dispatch(
        {"liar": Provider(says("the ", "moon")), "b": Provider(says("it is ", "7"))},
        [candidate("liar"), candidate("b", model="large")],
        check=Number(),
    )
    assert (outcome.text, outcome.done.text, outcome.done.attempts) == ("it is 7", "it is 7", 2)
    assert outcome.done.verdict == Verdict("passed")
    (lost,) = outcome.lost
    assert isinstance(lost.error, ContractBroken)
    assert (lost.error.message, lost.is_continuing) == ("no number", False)
    assert outcome.ledger.ended_as == [
        ("liar", 0.0, "contract", "contract_broken"),
        ("b", 1.0, "contract", ""),
    ]
    assert outcome.ledger.decisions[0][1] == ["liar", "b"]
    assert outcome.health.standing(PeerId("liar"), "chat").failures == 0  # it is quick and alive


def test_when_no_result_is_right_the_first_choices_is_given_all_the_same_and_marked() -> None:
    names = ["a", "b", "c", "d"]
    peers = {name: Provider(says(f"words of {name}")) for name in names}
    outcome = dispatch(peers, [candidate(name, model=name) for name in names], check=Number())
    assert outcome.asked == ["a", "b", "c"]  # two results were replaced, no more
    assert (outcome.text, outcome.done.text) == ("words of a", "words of a")
    assert (outcome.done.candidate.peer, outcome.done.attempts) == ("a", 3)
    assert outcome.done.verdict == Verdict("failed", "no number")
    assert [value for _, value, _, _ in outcome.ledger.ended_as] == [0.0, 0.0, 0.0]


def test_a_result_in_which_nothing_was_done_gives_way_to_one_that_is_off() -> None:
    outcome = dispatch(
        {"a": Provider(says(" ")), "b": Provider(says("words"))},
        [candidate("a"), candidate("b", model="large")],
        check=Number(),
    )
    assert (outcome.done.text, outcome.done.candidate.peer) == ("words", "b")


@pytest.mark.parametrize("then", [refuses("task_failed"), refuses("abstained"), says("")])
def test_a_kept_result_is_given_when_those_after_it_give_nothing(then: Serve) -> None:
    outcome = dispatch(
        {"a": Provider(says("words")), "b": Provider(then)},
        [candidate("a"), candidate("b", model="large")],
        check=Number(),
    )
    assert (outcome.text, outcome.done.text, outcome.done.candidate.peer) == ("words", "words", "a")
    assert outcome.done.verdict == Verdict("failed", "no number")


def test_a_kept_result_still_comes_within_the_deadline() -> None:
    outcome = dispatch(
        {"a": Provider(says("words")), "b": Provider(sends(accepted))},
        [candidate("a"), candidate("b", model="large")],
        check=Number(),
        seconds=0.8,
        patience=Patience(),
    )
    assert (outcome.asked, outcome.done.text) == (["a", "b"], "words")
    assert outcome.seconds < 0.8
    assert outcome.ledger.ended_as[1] == ("b", None, None, "deadline_exceeded")


def test_nobody_else_is_asked_when_little_time_is_left() -> None:
    async def late(asked: TaskRequest, stream: Stream) -> None:
        await asyncio.sleep(0.35)
        await says("words")(asked, stream)

    second = Provider(says("7"))
    outcome = dispatch(
        {"a": Provider(late), "b": second},
        [candidate("a"), candidate("b")],
        check=Number(),
        seconds=0.4,
        patience=Patience(),
    )
    assert (outcome.done.text, second.asked) == ("words", [])


def test_where_nobody_could_replace_a_result_it_is_shown_as_it_comes() -> None:
    outcome = dispatch({"a": Provider(says("the ", "moon"))}, [candidate("a")], check=Number())
    assert [event.text for event in outcome.events if isinstance(event, Text)] == ["the ", "moon"]
    assert outcome.done.verdict == Verdict("failed", "no number")
    assert outcome.lost == []


def test_what_must_not_run_twice_is_not_sent_again_for_a_bad_result() -> None:
    second = Provider(says("7"))
    outcome = dispatch(
        {"a": Provider(says("words")), "b": second},
        [candidate("a", is_idempotent=False), candidate("b")],
        check=Number(),
    )
    assert (outcome.done.text, second.asked) == ("words", [])


def test_the_beginning_is_judged_before_the_rest_and_the_provider_stops() -> None:
    first = Provider(sends(accepted, delta(longer("which moon?"))))  # it goes on for ever
    outcome = dispatch(
        {"a": first, "b": Provider(says(longer("one"), " 7"))},
        [candidate("a"), candidate("b", model="large")],
        check=Number(held_chars=20),
    )
    assert first.is_cut
    assert outcome.text == outcome.done.text == longer("one") + " 7"
    assert [type(event) for event in outcome.events].count(Text) == 2  # shown from its beginning on
    assert outcome.lost[0].error.message == "it asks back"
    assert outcome.ledger.ended_as[0] == ("a", 0.0, "contract", "contract_broken")


def test_who_was_cut_off_early_is_asked_again_when_nobody_else_delivers() -> None:
    first = Provider(says(longer("which moon?")))
    outcome = dispatch(
        {"a": first, "b": Provider(refuses("task_failed", accepts=True))},
        [candidate("a"), candidate("b", model="large")],
        check=Number(held_chars=20),
    )
    assert outcome.asked == ["a", "b", "a"]
    assert (outcome.text, outcome.done.text) == (longer("which moon?"), longer("which moon?"))
    assert outcome.done.verdict == Verdict("failed", "no number")


def test_text_that_was_shown_stays_whatever_the_rest_is() -> None:
    second = Provider(says("7"))
    outcome = dispatch(
        {"a": Provider(says(longer("the moon"), " is far")), "b": second},
        [candidate("a"), candidate("b")],
        check=Number(held_chars=20),
    )
    assert (outcome.text, outcome.asked, second.asked) == (longer("the moon") + " is far", ["a"], [])
    assert outcome.done.verdict == Verdict("failed", "no number")
    assert outcome.ledger.ended_as == [("a", 0.0, "contract", "")]


def test_text_that_was_held_back_when_its_peer_was_lost_is_not_shown() -> None:
    second = Provider(says("it is 7"))
    outcome = dispatch(
        {"a": Provider(says("half of ", ends=False)), "b": second},
        [candidate("a"), candidate("b")],
        check=Number(),
    )
    assert second.asked[0].prefix == ""
    assert (outcome.text, outcome.done.text) == ("it is 7", "it is 7")


def test_of_a_result_that_two_peers_wrote_neither_is_judged() -> None:
    outcome = dispatch(
        {"a": Provider(says("the ", ends=False)), "b": Provider(says("moon"))},
        [candidate("a"), candidate("b")],
        check=Number(held_chars=0),
    )
    assert (outcome.text, outcome.done.verdict) == ("the moon", Verdict("failed", "no number"))
    assert [ending[1:3] for ending in outcome.ledger.ended_as] == [(None, None), (None, None)]


def test_white_space_is_not_shown_before_a_first_word() -> None:
    outcome = dispatch(
        {"a": Provider(says("\n", " ")), "b": Provider(says("\n", "7"))},
        [candidate("a"), candidate("b", model="large")],
        check=Number(held_chars=0),
    )
    assert [event.text for event in outcome.events if isinstance(event, Text)] == ["\n7"]
    assert outcome.done.text == "\n7"


def test_a_peer_that_does_nothing_again_and_again_is_ejected() -> None:
    health = Health()
    for _ in range(FAILURES_BEFORE_EJECTION):
        outcome = dispatch(
            {"idle": Provider(says()), "b": Provider(says("7"))},
            [candidate("idle"), candidate("b")],
            check=Number(),
            health=health,
        )
        assert outcome.done.text == "7"
    assert health.cooling_seconds(PeerId("idle"), "chat", time.monotonic()) > 0


def test_the_same_model_is_asked_last_after_its_result_was_no_good() -> None:
    outcome = dispatch(
        {"a": Provider(says("words")), "b": Provider(says("words")), "c": Provider(says("7"))},
        [candidate("a"), candidate("b"), candidate("c", model="large")],
        check=Number(),
    )
    assert outcome.asked == ["a", "c"]


def test_a_result_that_was_cut_at_the_length_asked_for_breaks_nothing_by_what_it_lacks() -> None:
    def cut(attempt: str) -> Message:
        return TaskCompleted(attempt=attempt, finish_reason="length")

    peers = {"a": Provider(sends(accepted, delta("the"), cut)), "b": Provider(says("7"))}

    def result(tokens_max: int, text: str = "the") -> tuple[str, Verdict | None]:
        asked = request().model_copy(update={"parameters": Parameters(max_tokens=tokens_max)})
        peers["a"] = Provider(sends(accepted, delta(text), cut))
        done = dispatch(peers, [candidate("a"), candidate("b")], check=Number(), asked=asked).done
        return done.text, done.verdict

    assert result(3) == ("the", Verdict("open"))
    assert result(300) == ("7", Verdict("passed"))  # it says that it was cut, and is too short for that
    assert result(1, " ") == (" ", Verdict("open"))  # one token may be white space: nobody is ejected for it


def test_a_result_that_is_given_up_when_there_is_hardly_time_left_is_made_again() -> None:
    """The time in which it may be replaced ends between giving it up and asking who is next."""
    now = [time.monotonic()]

    class Slow(Notes):
        def ended(
            self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending
        ) -> None:
            super().ended(run, task, attempt, candidate, ending)
            now[0] += 8.0

    async def run() -> list[DispatchEvent]:
        peers = {"a": Provider(says(longer("which moon?"))), "b": Provider(says("7"))}
        async with open_peers(peers) as transport:
            dispatcher = Dispatcher(transport, lambda: now[0], Health(), ledger=Slow())
            candidates = [candidate("a"), candidate("b", model="large")]
            sending = dispatcher.send(request(), candidates, now[0] + 10.0, Number(held_chars=20))
            async with asyncio.timeout(2), aclosing(sending) as events:
                return [event async for event in events]

    last = asyncio.run(run())[-1]
    assert isinstance(last, Done)
    assert last.text == "7"


def test_a_call_of_a_tool_is_no_empty_result() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}

    def calls(attempt: str) -> Message:
        return TaskCompleted(attempt=attempt, finish_reason="tool_calls", tool_calls=[call])

    def with_tools(names: list[str]) -> TaskRequest:
        tools = [{"type": "function", "function": {"name": name}} for name in names]
        return request().model_copy(update={"parameters": Parameters(tools=tools)})

    peers = {"a": Provider(sends(accepted, calls)), "b": Provider(says("7"))}
    candidates = [candidate("a"), candidate("b")]
    assert dispatch(peers, candidates, check=Number(), asked=with_tools(["look"])).done.attempts == 1
    assert dispatch(peers, candidates, check=Number(), asked=with_tools([])).done.text == "7"


def test_the_ledger_is_told_what_each_attempt_took_and_of_no_text() -> None:
    def measured(attempt: str) -> Message:
        return TaskCompleted(
            attempt=attempt,
            model_digest="d1",
            usage=Usage(prompt_tokens=3, completion_tokens=2),
            timings=Timings(queue_ms=1, prefill_ms=2, generate_ms=3),
        )

    outcome = dispatch(
        {"a": Provider(refuses("task_failed")), "b": Provider(sends(accepted, delta("Hello"), measured))},
        [candidate("a"), candidate("b")],
    )
    (_, failure), (_, ending) = outcome.ledger.endings.values()
    assert (failure.value, failure.source, failure.code, failure.attempts) == (0.0, "error", "task_failed", 1)
    assert (failure.first_text_seconds, failure.chars) == (None, 0)
    assert (ending.value, ending.source, ending.code, ending.verdict) == (None, None, "", None)
    assert (ending.digest, ending.chars, ending.attempts) == ("d1", 5, 2)
    assert (ending.usage.completion_tokens, ending.timings.generate_ms) == (2, 3)
    assert ending.first_text_seconds is not None
    assert 0 <= ending.first_text_seconds <= ending.seconds
    assert "Hello" not in repr(outcome.ledger)


def test_who_is_cancelled_is_told_to_the_ledger_once() -> None:
    notes = Notes()

    async def run() -> None:
        async with open_peers({"a": Provider(sends(accepted, delta("Hel")))}) as transport:
            dispatcher = Dispatcher(transport, time.monotonic, Health(), ledger=notes)
            events = dispatcher.send(request(), [candidate("a")], time.monotonic() + 60)
            async with asyncio.timeout(2), aclosing(events):
                async for event in events:
                    if isinstance(event, Text):
                        break

    asyncio.run(run())
    assert notes.ended_as == [("a", None, None, "cancelled")]


def test_who_goes_away_while_a_result_is_held_back_resets_its_stream_and_judges_nobody() -> None:
    notes = Notes()

    async def run() -> None:
        sent = asyncio.Event()

        async def serve(asked: TaskRequest, stream: Stream) -> None:
            await sends(accepted, delta("words"))(asked, stream)
            sent.set()

        peers = {"a": Provider(serve), "b": Provider(says("7"))}
        async with open_peers(peers) as transport:
            dispatcher = Dispatcher(transport, time.monotonic, Health(), ledger=notes)
            candidates = [candidate("a"), candidate("b", model="large")]
            sending = dispatcher.send(request(), candidates, time.monotonic() + 60, Number())

            async def consume() -> None:
                async with aclosing(sending) as events:
                    async for event in events:
                        assert not isinstance(event, Text)

            task = asyncio.create_task(consume())
            async with asyncio.timeout(2):
                await sent.wait()
                await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await peers["a"].idle.wait()
            assert peers["a"].is_cut
            assert peers["b"].asked == []

    asyncio.run(run())
    assert notes.ended_as == [("a", None, None, "cancelled")]
