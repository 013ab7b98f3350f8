import pytest

from monai_node.agents.agreement import token_f1
from monai_node.agents.label import Label, Reading
from monai_node.agents.segment import segment
from monai_node.agents.training.corpus import Gold, GoldTask
from monai_node.agents.training.score import measure, outline, summarise

TEXT = "Name a tree, then draw it. Keep it small and neat, please, with a thin pen."
SEGMENTS = segment(TEXT)
GOLD = Gold(
    "made-0001",
    TEXT,
    (GoldTask(("Name a tree",), ()), GoldTask(("draw it",), (0,))),
    frozenset(),
    "",
)


def read(*tasks: int, needs: dict[int, tuple[int, ...]] | None = None) -> Reading:
    labels = tuple[Label, ...]("task" if at in tasks else "continue" for at in range(len(SEGMENTS)))
    said = tuple((needs or {}).get(at, ()) if at in tasks else None for at in range(len(SEGMENTS)))
    return Reading(labels, said if needs is not None else ())


def test_the_right_plan_is_exact_though_it_keeps_the_constraints() -> None:
    found = measure(GOLD, outline(TEXT, SEGMENTS, read(0, 1, needs={1: (0,)})))
    assert found.is_exact
    assert (found.tasks, found.edges) == ((2, 2, 2), (1, 1, 1))


def test_without_needs_the_rules_link() -> None:
    assert outline(TEXT, SEGMENTS, read(0, 1)).needs == ((), (0,))


def test_a_missing_edge_and_a_wrong_one_both_count() -> None:
    missing = measure(GOLD, outline(TEXT, SEGMENTS, read(0, 1, needs={})))
    assert (missing.edges, missing.is_exact) == ((0, 0, 1), False)
    turned = measure(GOLD, outline(TEXT, SEGMENTS, read(0, 1, needs={0: (1,)})))
    assert (turned.edges, turned.is_exact) == ((0, 1, 1), False)


def test_two_tasks_in_one_are_at_most_one_found() -> None:
    found = measure(GOLD, outline(TEXT, SEGMENTS, read(0)))
    assert found.tasks == (1, 1, 2)
    assert found.is_whole
    assert not found.is_one


def test_a_summary_adds_up_before_it_divides() -> None:
    right = measure(GOLD, outline(TEXT, SEGMENTS, read(0, 1, needs={1: (0,)})))
    wrong = measure(GOLD, outline(TEXT, SEGMENTS, read(0)))
    found = summarise([right, wrong])
    assert found.node_f1[0] == pytest.approx(6 / 7)
    assert found.edge_f1[0] == pytest.approx(2 / 3)
    assert found.exact[0] == pytest.approx(0.5)
    assert found.exact[1] <= 0.5 <= found.exact[2]


def test_token_f1_counts_each_word_once() -> None:
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("", "") == 0
