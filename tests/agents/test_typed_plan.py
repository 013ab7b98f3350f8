from __future__ import annotations

from typing import Any

import pytest
from typed_mesh import SKILLS, scored

from monai_node.agents.plan import Draft, Plan, begin
from monai_node.agents.planner import by_rules
from monai_node.agents.request import RunRequest
from monai_node.agents.skill_phrases import word
from monai_node.agents.typed_plan import COMPARED_MAX, MODES_MAX, comparable, over_skills
from monai_node.agents.typed_steps import typed_steps
from monai_node.registry.advert import Skill
from monai_node.registry.ids import PeerId, RunId
from monai_node.registry.wire import ChatMessage
from monai_node.router.offer import Offer
from monai_node.router.policy import PeerLabel, Policy, listed


def plans_of(text: str) -> tuple[Plan, Plan]:
    """In words, and over the skills."""
    draft = begin(RunRequest(RunId("r"), (ChatMessage(role="user", content=text),)))
    assert isinstance(draft, Draft)
    wording = word(text)
    plan = by_rules(draft)
    return plan, over_skills(draft, plan, typed_steps(wording, scored(wording), SKILLS) or ())


def test_each_step_is_a_task_of_its_skill() -> None:
    _, found = plans_of("Export the table of report.pdf, plot it and annotate the chart.")
    assert found.planner == "types"
    assert [(task.skill, task.depends_on) for task in found.graph.check().tasks] == [
        ("export-table", []),
        ("plot", ["t1"]),
        ("annotate", ["t2"]),
    ]
    assert "report.pdf" in found.graph.tasks[0].text
    assert found.shown == ("t3",)
    assert found.origins[2].why == {"t2": "takes what that task makes"}


def test_a_conversion_that_nobody_said_is_called_by_the_id_of_its_skill() -> None:
    text = "Plot the rainfall in report.pdf."
    _, found = plans_of(text)
    made, said = found.graph.tasks
    assert (made.text, made.skill) == ("export-table", "export-table")
    assert said.depends_on == ["t1"]
    assert [origin.spans for origin in found.origins] == [(), ((0, len(text) - 1),)]


@pytest.mark.parametrize(
    "text",
    [
        "Name a tree. Write a poem about rivers.",  # nothing of it is for these skills
        "Plot rain.csv and annotate the chart. Also write a limerick about my cat.",  # part of it is
        "Plot rain.csv.",  # one task, whichever way
        "Plot this and annotate the chart:\n\n```\na,b\n1,2\n```",  # a document
    ],
)
def test_a_plan_in_words_that_says_more_is_kept(text: str) -> None:
    words, found = plans_of(text)
    assert found is words


# --- which skills are looked at --------------------------------------------------------------------------
def offer(peer: str, name: str, label: PeerLabel = "trusted", **fields: Any) -> Offer:
    return Offer(PeerId(peer), peer, label, Skill(id=name, name=name, description="", **fields))


def test_skills_of_peers_that_may_not_see_the_request_are_no_part_of_its_plan() -> None:
    offers = [offer("me", "plot", "self"), offer("friend", "crop"), offer("stranger", "dub", "open")]
    assert [list(comparable(offers, Policy(label))) for label in ("local", "trusted", "open")] == [
        ["plot"],
        ["plot", "crop"],
        ["plot", "crop", "dub"],
    ]
    assert list(comparable(offers, Policy("open", denied=listed(["peer:friend"])))) == ["plot", "dub"]


def test_a_peer_cannot_say_anew_what_a_skill_of_this_node_takes() -> None:
    offers = [offer("me", "plot", "self"), offer("liar", "plot", input_modes=["image/*"])]
    assert comparable(offers, Policy("trusted"))["plot"].input_modes == ["text/plain"]


def test_a_peer_with_very_many_skills_leaves_room_for_those_of_others() -> None:
    offers = [offer("flood", f"s{number}") for number in range(2 * COMPARED_MAX)]
    found = comparable([*offers, offer("quiet", "plot")], Policy("trusted"))
    assert len(found) == COMPARED_MAX
    assert "plot" in found


def test_general_skills_and_those_of_very_many_types_are_left_out() -> None:
    modes = [f"image/{number}" for number in range(MODES_MAX + 1)]
    offers = [
        offer("a", "chat", is_general=True),
        offer("a", "takes", input_modes=modes),
        offer("a", "makes", output_modes=modes),
    ]
    assert comparable(offers, Policy("open")) == {}
