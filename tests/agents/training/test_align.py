import pytest

from monai_node.agents.label import label_by_rules
from monai_node.agents.segment import segment
from monai_node.agents.training.align import align, places
from monai_node.agents.training.corpus import Gold, GoldTask


def gold(text: str, *tasks: tuple[str, tuple[int, ...]]) -> Gold:
    return Gold("made-0001", text, tuple(GoldTask((span,), needs) for span, needs in tasks), frozenset(), "")


def aligned(one: Gold) -> list[tuple[str, str, tuple[int, ...] | None]]:
    segments = segment(one.text)
    found = align(one, segments, label_by_rules(segments).labels)
    return [
        (piece.text.strip(), label, needs)
        for piece, label, needs in zip(segments, found.labels, found.needs, strict=True)
    ]


def test_each_task_starts_at_its_first_segment_and_knows_what_it_needs() -> None:
    text = "It rains. Name a tree, not an oak, then draw it."
    assert aligned(gold(text, ("Name a tree, not an oak", ()), ("draw it", (0,)))) == [
        ("It rains.", "context", None),
        ("Name a tree,", "task", ()),
        ("not an oak,", "continue", None),
        ("then draw it.", "task", (1,)),
    ]


def test_a_task_may_need_one_that_is_said_later() -> None:
    text = "Draw the tree, after naming one."
    found = aligned(gold(text, ("Draw the tree", (1,)), ("naming one", ())))
    assert [needs for _, _, needs in found] == [(1,), ()]


def test_two_tasks_in_one_segment_become_one_with_the_needs_of_both() -> None:
    text = "Name a tree, draw it sing it"
    tasks = ("Name a tree", ()), ("draw it", (0,)), ("sing it", (1,))
    found = aligned(gold(text, *tasks))
    assert [label for _, label, _ in found] == ["task", "task"]
    assert found[1][2] == (0,)


def test_what_says_how_continues_the_task_and_what_tells_a_story_does_not() -> None:
    text = "Write a poem about tea. Keep it short. I run a tea shop. Then name the shop."
    found = aligned(gold(text, ("Write a poem about tea", ()), ("name the shop", ())))
    assert [label for _, label, _ in found] == ["task", "continue", "context", "task"]


@pytest.mark.parametrize(
    ("text", "spans", "starts"),
    [
        ("sing, then sing", ("sing", "sing"), [0, 11]),
        ("summary first, sum later", ("sum",), [15]),
        ("b before a", ("b", "a"), [0, 9]),
    ],
)
def test_spans_are_found_where_they_are_meant(text: str, spans: tuple[str, ...], starts: list[int]) -> None:
    assert [found[0][0] for found in places(gold(text, *((span, ()) for span in spans)))] == starts
