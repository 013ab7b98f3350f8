from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.exam import (
    MARGIN,
    PLANNING_MEDIAN_SECONDS_MAX,
    Exam,
    Question,
    draft_of,
    edition,
    is_better,
    points,
    questions,
)
from monai_node.agents.label import label_by_rules
from monai_node.agents.plan import Plan, finish, single
from monai_node.agents.written import plan_of

DEV = Path(__file__).parent / "data" / "plans-dev.jsonl"
CORPUS = Path(__file__).parents[2] / "agents" / "training" / "corpus"
LOCAL = [finish(draft_of(each.text), label_by_rules(draft_of(each.text).segments)) for each in questions()]


def gold(question: Question) -> Plan:
    """The right plan, as a model would write it."""
    tasks = [
        {"text": " ".join(task.spans), "needs": [need + 1 for need in task.needs]} for task in question.tasks
    ]
    found = plan_of(draft_of(question.text), json.dumps({"tasks": tasks}))
    assert found is not None, question.text
    return found


RIGHT = [gold(question) for question in questions()]


def test_the_exam_fits_its_requests() -> None:
    assert len(questions()) == 16
    assert len(edition()) == 16
    for question in questions():
        for task in question.tasks:
            assert all(span in question.text for span in task.spans)
            assert all(need < len(question.tasks) for need in task.needs)
    counts = [len(question.tasks) for question in questions()]
    assert 4 <= counts.count(1) <= 8, "a model that always divides must lose as much as one that never does"


def test_no_request_of_the_exam_was_used_to_make_a_planner() -> None:
    known = {
        json.loads(line).get("request") or json.loads(line).get("text")
        for file in [DEV, *CORPUS.glob("*.jsonl")]
        for line in file.read_text(encoding="utf-8").split("\n")
        if line.strip()
    }
    assert known
    assert not known & {question.text for question in questions()}


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.text[:24])
def test_the_right_plan_is_accepted_and_has_all_points(question: Question) -> None:
    assert points(question, gold(question)).score == 1.0


def test_a_plan_of_one_task_is_worth_less_where_several_were_asked_for() -> None:
    several = next(question for question in questions() if len(question.tasks) == 4)
    whole = points(several, single(draft_of(several.text), "single"))
    assert whole.tasks.found == 0
    assert whole.score < 0.2


def taken(plans: list[Plan | None], seconds: float = 1.0) -> Exam:
    exam = Exam(LOCAL)
    for plan in plans:
        exam.answered(plan, seconds)
    return exam


def test_a_perfect_model_that_is_quick_wins() -> None:
    exam = taken([*RIGHT])
    assert exam.score == 1.0
    assert exam.next_question is None
    assert not exam.is_hopeless
    assert is_better(exam.score, exam.median_seconds, exam.local_score)


def test_a_model_without_a_plan_is_worth_what_the_user_gets_instead() -> None:
    exam = taken([None for _ in questions()])
    assert exam.score == exam.local_score
    assert exam.is_hopeless


def test_a_model_that_is_too_slow_is_found_out_half_way() -> None:
    slow = PLANNING_MEDIAN_SECONDS_MAX + 1
    assert not taken([*RIGHT[:7]], slow).is_hopeless
    assert taken([*RIGHT[:9]], slow).is_hopeless


def test_the_exam_ends_as_soon_as_it_cannot_be_won() -> None:
    exam = Exam(LOCAL)
    while (question := exam.next_question) is not None and not exam.is_hopeless:
        exam.answered(single(draft_of(question.text), "single"), 0.1)
    assert exam.is_hopeless
    assert 3 < len(exam.seconds) < len(questions())


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 16), wrong=st.integers(0, 15))
def test_who_is_hopeless_cannot_win_any_more(cut: int, wrong: int) -> None:
    """Even when all that follows is right."""
    plans = [None if at % 16 < wrong else plan for at, plan in enumerate(RIGHT)]
    begun = taken(plans[:cut])
    ended = taken([*plans[:cut], *RIGHT[cut:]])
    if begun.is_hopeless:
        assert not is_better(ended.score, ended.median_seconds, ended.local_score)


@pytest.mark.parametrize(
    ("score", "seconds", "expected"),
    [
        (0.8 + MARGIN + 0.01, 1.0, True),
        (0.8 + MARGIN, 1.0, False),
        (1.0, PLANNING_MEDIAN_SECONDS_MAX, True),
        (1.0, PLANNING_MEDIAN_SECONDS_MAX + 0.1, False),
        (0.7, 0.0, False),
    ],
)
def test_a_model_plans_only_when_it_is_better_and_in_time(
    score: float, seconds: float, expected: bool
) -> None:
    assert is_better(score, seconds, local_score=0.8) is expected
