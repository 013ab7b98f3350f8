from __future__ import annotations

from graphlib import TopologicalSorter
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_mesh import SKILLS, scored

from monai_node.agents.graph import TASKS_MAX
from monai_node.agents.skill_phrases import word
from monai_node.agents.skill_steps import TypedSkill
from monai_node.agents.typed_steps import TypedStep, is_typed, typed, typed_steps
from monai_node.registry.advert import Skill


def steps_of(text: str) -> tuple[TypedStep, ...]:
    wording = word(text)
    found = typed_steps(wording, scored(wording), SKILLS)
    assert found is not None
    return found


def test_steps_stand_in_the_order_of_the_text_with_their_links() -> None:
    text = "Export the table of report.pdf, plot it and annotate the chart."
    found = steps_of(text)
    assert [step.skill for step in found] == ["export-table", "plot", "annotate"]
    assert [step.depends_on for step in found] == [(), (0,), (1,)]
    assert "report.pdf" in text[slice(*found[0].span)]
    assert "annotate the chart" in text[slice(*found[2].span)]
    assert all(step.is_said and step.why.startswith("named by") for step in found)


def test_an_unsaid_conversion_comes_before_the_step_that_needs_it() -> None:
    found = steps_of("Plot the rainfall in report.pdf.")
    assert [(step.skill, step.depends_on, step.is_said) for step in found] == [
        ("export-table", (), False),
        ("plot", (0,), True),
    ]
    assert found[0].why == "makes the csv that plot takes"


def test_two_conversions_are_a_chain() -> None:
    found = steps_of("Annotate the rainfall in report.pdf.")
    assert [(step.skill, step.depends_on, step.is_said) for step in found] == [
        ("export-table", (), False),
        ("plot", (0,), False),
        ("annotate", (1,), True),
    ]


def test_a_conversion_that_two_steps_need_is_made_once() -> None:
    skills = (*SKILLS, TypedSkill("count", ("text/csv",), ("text/plain",)))
    wording = word("Plot the rainfall in report.pdf, then count the days.")
    counts = [[1.1 if "count" in phrase.text else 0.0] for phrase in wording.phrases]
    found = typed_steps(wording, np.hstack([scored(wording), np.array(counts)]), skills)
    assert [(step.skill, step.depends_on) for step in found or ()] == [
        ("export-table", ()),
        ("plot", (0,)),
        ("count", (0,)),
    ]


def test_places_are_counted_anew_behind_a_conversion() -> None:
    found = steps_of("Plot the rainfall in report.pdf and annotate the result.")
    assert [step.skill for step in found] == ["export-table", "plot", "annotate"]
    assert found[2].depends_on == (1,)


def test_a_skill_is_used_twice_only_for_two_things() -> None:
    twice = steps_of("Annotate harbour.png, then annotate pier.png.")
    assert [step.skill for step in twice] == ["annotate", "annotate"]
    assert [step.skill for step in steps_of("Annotate harbour.png, annotate it well.")] == ["annotate"]


def test_where_all_skills_are_text_to_text_types_say_nothing() -> None:
    plain = tuple(TypedSkill(skill.id, ("text/plain",), ("text/plain",)) for skill in SKILLS)
    wording = word("Plot rain.csv and annotate the chart.")
    assert not is_typed(plain)
    assert typed_steps(wording, scored(wording), plain) is None


def test_an_announced_skill_is_text_to_text_unless_it_says_otherwise() -> None:
    plain = Skill(id="chat", name="Chat", description="Answers.")
    draws = Skill(id="draw", name="Draw", description="Draws.", output_modes=["image/png"])
    assert not is_typed([typed(plain)])
    assert is_typed([typed(plain), typed(draws)])


def test_a_request_that_names_no_skill_has_no_steps() -> None:
    assert steps_of("Good morning!") == ()


def test_a_plan_is_never_longer_than_a_graph_may_be() -> None:
    found = steps_of(" ".join(f"Annotate picture{at}.png." for at in range(60)))
    assert 2 < len(found) <= TASKS_MAX


def test_of_many_skills_the_best_matching_are_looked_at() -> None:
    wording = word("Plot rain.csv and annotate the result.")
    many = tuple(TypedSkill(f"other-{at}", ("image/*",), ("audio/*",)) for at in range(300))
    scores = np.column_stack([np.full((len(wording.phrases), len(many)), 0.1), scored(wording)])
    found = typed_steps(wording, scores, (*many, *SKILLS))
    assert [step.skill for step in found or ()] == ["plot", "annotate"]


_SAID = "plot annotate compare the it chart. a.png b.csv, and then 'some quoted words' using"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(_SAID.split()), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_whatever_matches_the_steps_can_be_run(said: list[str], random: Random) -> None:
    wording = word(" ".join(said))
    scores = np.array([[random.uniform(-0.2, 1.5) for _ in SKILLS] for _ in wording.phrases])
    found = typed_steps(wording, scores, SKILLS)
    assert found is not None
    TopologicalSorter({at: step.depends_on for at, step in enumerate(found)}).prepare()
    for step in found:
        assert all(0 <= at < len(found) for at in step.depends_on)
        assert 0 <= step.span[0] < step.span[1] <= len(wording.text)
