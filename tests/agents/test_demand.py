"""What the router is told of a task: how long, for whom, under which rules, of which conversation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from monai_node.agents.demand import _TAGS, conversation_of, demand_of  # pyright: ignore[reportPrivateUsage]
from monai_node.agents.graph import FAN_OUT_MAX, Task
from monai_node.agents.languages import TOLD_LANGUAGES
from monai_node.agents.plan import plan
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.registry.ids import new_run_id
from monai_node.registry.wire import ChatMessage, Parameters
from monai_node.router.demand import RESULT_CHARS, Demand
from monai_node.router.policy import listed


def said(*turns: str) -> tuple[ChatMessage, ...]:
    """Turns of user and assistant, in turn."""
    return tuple(
        ChatMessage(role="assistant" if at % 2 else "user", content=text) for at, text in enumerate(turns)
    )


def asked(*turns: str, parameters: Parameters | None = None, **options: Any) -> RunRequest:
    return RunRequest(
        new_run_id(), said(*turns), parameters=parameters or Parameters(), options=MeshOptions(**options)
    )


def demands(request: RunRequest) -> list[Demand]:
    made = plan(request)
    return [demand_of(task, made, request, "trusted") for task in made.graph.tasks]


TASKS = [Task(id="a", text="Name a tree"), Task(id="b", text="draw it", depends_on=["a"])]


def test_a_task_is_as_long_as_its_words_and_what_it_will_be_given() -> None:
    first, second = demands(asked("Name a tree and draw it", plan=TASKS))
    assert (first.prompt_chars, first.expected_chars) == (len("Name a tree"), RESULT_CHARS)
    assert second.prompt_chars == len("draw it") + RESULT_CHARS
    assert first.conversation is None


def test_a_result_is_expected_to_be_no_longer_than_the_caller_allows() -> None:
    (short,) = demands(asked("Hi", plan="never", parameters=Parameters(max_tokens=10)))
    assert short.expected_chars == 40


def test_the_rules_and_the_budget_of_a_request_reach_each_of_its_tasks() -> None:
    request = asked("x", plan=TASKS, allow=["model:tiny"], deny=["skill:code"], budget=3.0)
    for demand in demands(request):
        assert demand.policy.allowed == listed(["model:tiny"])
        assert demand.policy.denied == listed(["skill:code"])
        assert demand.policy.cost_max == 1.5


def test_a_task_that_is_done_for_each_item_may_cost_its_share_in_all() -> None:
    tasks = [TASKS[0], Task(id="b", text="draw it", depends_on=["a"], each="a")]
    first, each = demands(asked("x", plan=tasks, budget=3.2))
    assert (first.policy.cost_max, each.policy.cost_max) == (1.6, 1.6 / FAN_OUT_MAX)


def test_the_next_turn_names_the_conversation_as_it_stood_before() -> None:
    first, second = said("Hello", "Hi!", "How are you?")[:1], said("Hello", "Hi!", "How are you?")
    assert conversation_of(first).before == ""
    assert conversation_of(second).before == conversation_of(first).whole
    assert conversation_of(said("Hello", "Hi!", "Bye")).before == conversation_of(second).before
    assert conversation_of(said("Hell", "oHi!", "x")).before != conversation_of(first).whole


def test_only_a_conversation_that_is_passed_on_whole_is_named() -> None:
    (whole,) = demands(asked("Hello", "Hi!", "How are you?", plan="never"))
    assert whole.conversation == conversation_of(said("Hello", "Hi!", "How are you?"))
    assert whole.prompt_chars == len("HelloHi!How are you?")


@pytest.mark.parametrize(
    "options",
    [
        {"budget": -1.0},
        {"budget": float("nan")},
        {"budget": 1e12},
        {"allow": ["tiny"]},
        {"deny": ["peer:a"] * 65},
        {"deny": "peer:a"},
    ],
    ids=repr,
)
def test_rules_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MeshOptions(**options)


def test_the_language_of_a_task_is_told_where_it_is_plain() -> None:
    german = (
        "Bitte fasse den folgenden Text für mich zusammen, und sage mir, ob er von einer Reise handelt oder"
        " nicht, und wer mit wem reist."
    )
    (plain,), (short,) = demands(asked(german, plan="never")), demands(asked("Hallo!", plan="never"))
    assert (plain.language, short.language) == ("de", "")


def test_every_language_that_can_be_told_has_a_tag() -> None:
    assert {*_TAGS, "Cyrillic"} == TOLD_LANGUAGES
