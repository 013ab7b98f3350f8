import asyncio
import logging
from collections.abc import Sequence

import pytest

from monai_node.agents.label import Reading
from monai_node.agents.plan import Draft, Plan
from monai_node.agents.planner import PLANNING_SHARE_MAX, SOURCE_SHARE_MAX, Planner, Refine, Source, labelling
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.agents.segment import Segment
from monai_node.registry.errors import TaskFailed
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage, Label
from monai_node.router.policy import Policy, listed

TWO = "Name a tree. Then write a poem about rivers."


def planned(
    *sources: Source, text: str = TWO, options: MeshOptions | None = None, label: Label = "trusted"
) -> Plan:
    request = RunRequest(
        run=RunId("run-1"),
        messages=(ChatMessage(role="user", content=text),),
        options=options or MeshOptions(),
    )
    return asyncio.run(Planner(sources).plan(request, label))


async def one_task(segments: Sequence[Segment]) -> Reading:
    return Reading(("task", *["continue" for _ in segments[1:]]))


async def second_needs_first(segments: Sequence[Segment]) -> Reading:
    return Reading(("task",) * len(segments), ((), *[(at,) for at in range(len(segments) - 1)]))


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("Write a poem about rivers", None, ["Write a poem about rivers"]),
        (TWO, None, []),
        ("Write a poem about rivers", MeshOptions(plan="never"), []),
    ],
)
def test_the_text_of_the_only_task_is_told_before_anybody_reads(
    text: str, options: MeshOptions | None, told: list[str]
) -> None:
    steps: list[str] = []

    async def reads(draft: Draft, _: Policy) -> None:
        steps.append("read")

    request = RunRequest(
        run=RunId("run-1"),
        messages=(ChatMessage(role="user", content=text),),
        options=options or MeshOptions(),
    )
    source = Source("small", 1, reads, takes_whole=True)
    found = asyncio.run(Planner([source]).plan(request, "trusted", steps.append))
    assert [step for step in steps if step != "read"] == told
    assert not told or steps == [*told, "read"]
    assert not told or [task.text for task in found.graph.tasks] == told


def test_without_a_source_the_rules_plan() -> None:
    found = planned()
    assert found.planner == "rules"
    assert [task.text for task in found.graph.tasks] == ["Name a tree", "write a poem about rivers"]


def test_the_first_source_that_has_a_plan_decides() -> None:
    found = planned(labelling("small", 1, one_task), labelling("lora", 1, second_needs_first))
    assert found.planner == "small"
    assert len(found.graph.tasks) == 1


def test_what_a_labeller_says_is_needed_becomes_a_link_with_a_reason() -> None:
    found = planned(labelling("small", 1, second_needs_first))
    assert found.graph.tasks[1].depends_on == ["t1"]
    assert found.origins[1].why == {"t1": "the planner reads it so"}


def test_a_source_that_fails_or_has_no_plan_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Sequence[Segment]) -> Reading:
        raise TaskFailed("the model is not there")

    async def has_none(*_: object) -> None:
        return None

    with caplog.at_level(logging.WARNING):
        found = planned(
            labelling("small", 1, fails), Source("model", 1, has_none), labelling("lora", 1, one_task)
        )
    assert found.planner == "lora"
    assert "the model is not there" in caplog.text


def test_a_late_source_is_cancelled_and_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[str] = []

    async def hangs(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("here")
            raise

    with caplog.at_level(logging.WARNING):
        found = planned(Source("model", 0.01, hangs))
        short = planned(Source("model", 60, hangs), options=MeshOptions(deadline_seconds=0.04))
    assert found.planner == short.planner == "rules"
    assert cancelled == ["here", "here"]
    assert f"longer than {0.04 * SOURCE_SHARE_MAX:.1f} s" in caplog.text


def test_however_many_are_late_half_of_the_time_is_left_for_the_work() -> None:
    asked: list[float] = []

    async def hangs(*_: object) -> Plan:
        asked.append(asyncio.get_running_loop().time())
        await asyncio.Event().wait()
        raise AssertionError

    request = RunRequest(
        run=RunId("run-1"),
        messages=(ChatMessage(role="user", content=TWO),),
        options=MeshOptions(deadline_seconds=0.4),
    )
    asyncio.run(Planner([Source("model", 60, hangs)] * 9, hangs).plan(request, "trusted"))
    assert len(asked) <= 1 + PLANNING_SHARE_MAX / SOURCE_SHARE_MAX


def test_what_a_peer_says_that_failed_to_plan_stays_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def quotes(draft: Draft, _: Policy) -> Plan:
        raise TaskFailed(f"cannot plan {draft.text!r}")

    with caplog.at_level(logging.WARNING):
        planned(Source("model", 1, quotes))
    assert "the planner model failed" in caplog.text
    assert "rivers" not in caplog.text


def test_a_defect_of_a_source_is_not_hidden() -> None:
    async def raises_timeout(*_: object) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        planned(Source("model", 5, raises_timeout))


@pytest.mark.parametrize(
    ("text", "options"),
    [("Hello!", MeshOptions()), ("```\nls\n```", MeshOptions()), (TWO, MeshOptions(plan="never"))],
)
def test_nobody_is_asked_when_there_is_nothing_to_read(text: str, options: MeshOptions) -> None:
    async def must_not(*_: object) -> None:
        raise AssertionError

    found = planned(Source("model", 5, must_not), text=text, options=options)
    assert len(found.graph.tasks) == 1
    assert found.planner is None


def test_a_source_that_takes_whole_requests_is_asked_about_one_that_needs_no_reading() -> None:
    asked: list[str] = []

    async def plan(draft: Draft, _: Policy) -> None:
        asked.append(draft.text)

    found = planned(Source("recipe", 1, plan, takes_whole=True), text="Hello!")
    assert asked == ["Hello!"]
    assert (found.reason, found.planner) == ("single", None)


def test_a_source_is_told_under_which_policy_it_may_show_the_request() -> None:
    told: list[tuple[str, Policy]] = []

    async def plan(draft: Draft, policy: Policy) -> None:
        told.append((draft.text, policy))

    options = MeshOptions(allow=["model:large"], deny=["peer:mallory"], budget=2.0)
    planned(Source("model", 1, plan), label="local", options=options)
    assert told == [(TWO, Policy("local", listed(["model:large"]), listed(["peer:mallory"]), 2.0))]


async def by_types(draft: Draft, plan: Plan, policy: Policy) -> Plan:
    assert policy == Policy("trusted")
    return plan.model_copy(update={"planner": "types"})


def refined(*sources: Source, refine: Refine = by_types, text: str = TWO) -> Plan:
    request = RunRequest(run=RunId("run-1"), messages=(ChatMessage(role="user", content=text),))
    return asyncio.run(Planner(sources, refine).plan(request, "trusted"))


def test_a_plan_in_words_is_held_against_the_types_of_skills() -> None:
    assert refined(labelling("small", 1, one_task)).planner == "types"
    assert refined().planner == "types"
    assert refined(text="Hello!").planner == "types"


def test_a_plan_by_somebody_who_knew_more_is_not_refined() -> None:
    assert refined(labelling("recipe", 1, one_task)).planner == "recipe"
    assert refined(labelling("model", 1, one_task)).planner == "model"


def test_without_what_refines_it_a_plan_stays_as_it_is() -> None:
    async def fails(*_: object) -> Plan:
        raise TaskFailed("the embedder is not there")

    assert refined(refine=fails) == planned()
