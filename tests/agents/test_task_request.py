"""What a task is given, and what it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from monai_node.agents.graph import Task
from monai_node.agents.plan import plan
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.agents.task_request import build_task_request, share_of
from monai_node.registry.ids import AttemptId, RunId
from monai_node.registry.wire import FRAME_BYTES_MAX, ChatMessage, Parameters, TaskRequest, encode

NOW = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
TALK = (
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="Who wrote Faust?"),
    ChatMessage(role="assistant", content="Goethe."),
    ChatMessage(role="user", content="When was he born? Translate that to French."),
)


def build(
    options: MeshOptions,
    task: str = "t1",
    results: dict[str, str] | None = None,
    messages: tuple[ChatMessage, ...] = TALK,
    remaining_seconds: float = 12.3456,
) -> TaskRequest:
    request = RunRequest(RunId("run-1"), messages, options=options, traceparent="00-1-2-01")
    made = plan(request)
    return build_task_request(
        request,
        made,
        made.graph.task(task),
        results or {},
        skill="chat",
        attempt=AttemptId("a1"),
        label="trusted",
        now=NOW,
        remaining_seconds=remaining_seconds,
    )


def two_tasks(turns: list[int]) -> MeshOptions:
    return MeshOptions(
        plan=[
            Task(id="t1", text="When was he born?", turns=turns),
            Task(id="t2", text="Say it in French.", depends_on=["t1"]),
        ]
    )


def test_a_task_is_given_its_words_the_turns_it_names_and_the_system_prompt() -> None:
    built = build(two_tasks([2]))
    assert built.input.text == "When was he born?"
    assert [turn.content for turn in built.input.turns] == ["Be brief.", "Goethe."]
    assert not built.input.is_conversation
    assert (built.run, built.task, built.attempt, built.skill) == ("run-1", "t1", "a1", "chat")
    assert (built.remaining_ms, built.traceparent) == (12345, "00-1-2-01")


def test_results_reach_a_task_as_artifacts_in_the_order_it_names_them_and_no_others() -> None:
    options = MeshOptions(
        plan=[
            Task(id="t1", text="one"),
            Task(id="t2", text="two"),
            Task(id="t3", text="three"),
            Task(id="t4", text="join", depends_on=["t3", "t1"]),
        ]
    )
    built = build(options, "t4", {"t1": "1", "t2": "2", "t3": "3"})
    assert [(each.task, each.text) for each in built.input.artifacts] == [("t3", "3"), ("t1", "1")]
    assert built.input.text == "join"


def test_a_passed_through_conversation_is_given_whole() -> None:
    built = build(MeshOptions(plan="never"))
    assert built.input.is_conversation
    assert tuple(built.input.turns) == TALK
    assert built.input.text == TALK[-1].content


def test_a_passed_through_conversation_that_ends_otherwise_has_the_last_user_message_as_text() -> None:
    talk = (*TALK, ChatMessage(role="assistant", content="In 17"))
    built = build(MeshOptions(), messages=talk)
    assert built.input.text == TALK[-1].content
    assert built.input.turns[-1].content == "In 17"


@pytest.mark.parametrize("letter", ["a", "é", "🜂"])
def test_the_largest_results_and_conversations_still_fit_a_frame(letter: str) -> None:
    long = letter * 1_000_000
    joined = build(two_tasks([]), "t2", {"t1": long})
    assert len(encode(joined)) <= FRAME_BYTES_MAX
    assert len(joined.input.artifacts[0].text) > 100_000
    passed = build(
        MeshOptions(plan="never"),
        messages=(ChatMessage(role="user", content=letter * ((1 << 20) // len(letter.encode()))),),
    )
    assert len(encode(passed)) <= FRAME_BYTES_MAX


@pytest.mark.parametrize(
    ("own", "budget", "count", "expected"),
    [(None, None, 3, None), (50, None, 3, 50), (None, 90, 3, 30), (10, 90, 3, 10), (50, 2, 3, 1)],
)
def test_a_budget_is_shared_equally_and_never_raises_the_limit(
    own: int | None, budget: int | None, count: int, expected: int | None
) -> None:
    shared = share_of(Parameters(max_tokens=own, temperature=0.5), budget, count)
    assert (shared.max_tokens, shared.temperature) == (expected, 0.5)


def test_the_time_of_the_caller_goes_before_the_time_here() -> None:
    there = MeshOptions(plan="never", now="2024-05-17T18:30:00+09:00", timezone="Asia/Tokyo", locale="ja")
    built = build(there)
    assert (built.now, built.timezone, built.locale) == ("2024-05-17T18:30:00+09:00", "Asia/Tokyo", "ja")
    assert build(MeshOptions(plan="never")).now == "2024-05-17T09:30:00+00:00"


def test_a_task_is_never_sent_with_no_time_at_all() -> None:
    assert build(MeshOptions(plan="never"), remaining_seconds=-1).remaining_ms == 1
