from __future__ import annotations

import pytest
from typed_mesh import SKILLS, scored

from monai_node.agents.plan import Draft, Plan, begin
from monai_node.agents.planner import by_rules
from monai_node.agents.request import RunRequest
from monai_node.agents.skill_phrases import word
from monai_node.agents.typed_plan import over_skills
from monai_node.agents.typed_steps import typed_steps
from monai_node.registry.advert import Skill
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage

ANNOUNCED = {
    kind.id: Skill(
        id=kind.id,
        name=kind.id.replace("-", " "),
        description="",
        input_modes=list(kind.takes),
        output_modes=list(kind.makes),
    )
    for kind in SKILLS
}


def plans_of(text: str) -> tuple[Plan, Plan]:
    """In words, and over the skills."""
    draft = begin(RunRequest(RunId("r"), (ChatMessage(role="user", content=text),)))
    assert isinstance(draft, Draft)
    wording = word(text)
    plan = by_rules(draft)
    return plan, over_skills(draft, plan, typed_steps(wording, scored(wording), SKILLS) or (), ANNOUNCED)


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


def test_a_conversion_that_nobody_said_is_called_by_its_skill() -> None:
    text = "Plot the rainfall in report.pdf."
    _, found = plans_of(text)
    made, said = found.graph.tasks
    assert (made.text, made.skill) == ("export table", "export-table")
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
