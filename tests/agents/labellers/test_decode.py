import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.agents.label import Label, Reading
from monai_node.agents.labellers.decode import (
    DIRECT,
    DIVIDING,
    RELUCTANCE,
    Scores,
    checked,
    divided,
    labels_of,
    openings,
    reading,
    rule_links,
)
from monai_node.agents.labellers.features import LABELS
from monai_node.agents.segment import segment

SEGMENTS = segment("Name a tree. Draw it. Sing. Translate this text: Write a poem. Dance.")


REST: tuple[Label, ...] = ("context",) * 4


def scores(*best: Label, by: float = 2.0) -> Scores:
    return np.array([[by * (label == one) for label in LABELS] for one in best], np.float32)


def test_the_best_label_wins() -> None:
    assert labels_of(SEGMENTS, scores("task", "continue", "task", "task", "context"), 0.0) == (
        *("task", "continue", "task", "task", "context"),
    )


def test_a_payload_is_context_and_nothing_is_continued_before_a_task() -> None:
    assert SEGMENTS[-1].kind == "payload"
    logits = scores("continue", "continue", "task", "continue", "task")
    logits[0] = -1, 5, -2  # continue, then task, then context
    found = labels_of(SEGMENTS, logits, 0.0)
    assert found == ("task", "continue", "task", "continue", "context")


def test_a_reluctant_reader_wants_more_for_a_second_task() -> None:
    logits = scores("task", "task", "continue", "continue", "context")
    logits[0, LABELS.index("task")] += 1
    assert openings(labels_of(SEGMENTS, logits, 0.0)) == [0, 1]
    assert openings(labels_of(SEGMENTS, logits, 3.0)) == [0]


def test_a_request_is_divided_only_when_one_further_task_is_sure() -> None:
    def logits_of(*task: float) -> Scores:
        rows = np.zeros((len(SEGMENTS), 3), np.float32)
        rows[:, LABELS.index("task")] = [*task, *[-9.0] * (len(SEGMENTS) - len(task))]
        rows[:, LABELS.index("context")] = -9.0
        return rows

    between = (DIVIDING + RELUCTANCE) / 2
    assert openings(divided(SEGMENTS, logits_of(9.0, between, between))) == [0]
    assert openings(divided(SEGMENTS, logits_of(9.0, between, DIVIDING + 0.1))) == [0, 1, 2]
    assert openings(divided(SEGMENTS, logits_of(9.0, RELUCTANCE - 0.1, DIVIDING + 0.1))) == [0, 2]


def test_needs_are_places_of_segments_and_may_point_forward() -> None:
    edges = np.array([[0, 1], [-1, 0]], np.float32)
    assert reading(("context", "task", "continue", "task"), edges) == Reading(
        ("context", "task", "continue", "task"), (None, (3,), None, ())
    )


def test_the_weakest_edge_of_a_circle_is_not_drawn() -> None:
    edges = np.array([[9, 3, -1], [-1, 9, 1], [2, -1, 9]], np.float32)
    assert reading(("task",) * 3, edges).needs == ((1,), (), (0,))


def test_what_comes_through_another_task_is_not_needed_twice() -> None:
    edges = np.full((3, 3), -1, np.float32)
    edges[1, 0] = edges[2, 1] = 2
    edges[2, 0] = DIRECT - 1
    assert reading(("task",) * 3, edges).needs == ((), (0,), (1,))
    edges[2, 0] = DIRECT + 1
    assert reading(("task",) * 3, edges).needs == ((), (0,), (0, 1))


@given(st.lists(st.floats(-9, 9, width=32), min_size=16, max_size=16))
def test_whatever_the_scores_the_needs_make_no_circle(values: list[float]) -> None:
    found = reading(("task",) * 4, np.array(values, np.float32).reshape(4, 4))
    assert checked(segment("Sing\nDance\nDraw\nWrite"), found) is found


@pytest.mark.parametrize(
    "wrong",
    [
        Reading(("task",) * 4),
        Reading(("task", "continue", "continue", "continue", "continue")),
        Reading(("task", *REST), ((0,), None, None, None, None)),
        Reading(("task", *REST), ((1,), None, None, None, None)),
        Reading(("task", *REST), ((), (0,), None, None, None)),
        Reading(("task", "task", *REST[1:]), ((1,), (0,), None, None, None)),
    ],
)
def test_what_is_no_reading_of_the_segments_is_refused(wrong: Reading) -> None:
    with pytest.raises(ValueError, match="no reading"):
        checked(SEGMENTS, wrong)


def test_the_rules_link_the_tasks_as_labelled() -> None:
    segments = segment("Name a tree. Then draw it. Sing a song about rain.")
    links = rule_links(segments, ("task", "task", "task"))
    assert [found.depends_on for found in links] == [(), (0,), ()]
