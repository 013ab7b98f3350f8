"""What counts as an item of a list that a task returned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.agents.items import left_out_note, list_item, split_items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["one", "two, three", 4, {"five": 6}]', ["one", "two, three", "4", '{"five": 6}']),
        ('```json\n["a", "b"]\n```', ["a", "b"]),
        ("Here they are:\n1. one\n2) two\n\nThat is all.", ["one", "two"]),
        ("- one\n* two\n• three", ["one", "two", "three"]),
        ("1. one\n   - a part of it\n2. two", ["one\n- a part of it", "two"]),
        (
            "1. one\nand more\n\n2. two\n\nmore of two\n\n3. three",
            ["one\nand more", "two\nmore of two", "three"],
        ),
        ("one\n\n two \nthree\r\n", ["one", "two", "three"]),
        ("[not json\nat all]", ["[not json", "at all]"]),
        ('{"a": 1}', ['{"a": 1}']),
        ("[" * 10_000 + "]" * 10_000, ["[" * 10_000 + "]" * 10_000]),
        ('["", " "]', []),
        ("1. \n2. ", []),
        (r'["\ud83d", "\ud83d\ude00", {"\udc00": 1}]', ["?", "\U0001f600", '{"?": 1}']),
        ("", []),
        (" \n\t\n", []),
    ],
)
def test_items_are_those_of_an_array_else_of_a_marked_list_else_the_lines(
    text: str, items: list[str]
) -> None:
    assert split_items(text) == items


_LINE = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


@given(st.lists(st.lists(_LINE, min_size=1, max_size=3).map("\n".join), min_size=1, max_size=20))
def test_a_list_that_was_made_is_taken_apart_again(results: list[str]) -> None:
    listed = "\n".join(list_item(number, result) for number, result in enumerate(results, 1))
    assert split_items(listed) == results
    assert split_items(f"{listed}\n\n{left_out_note(3)}") == results


@given(st.text())
def test_any_text_has_items_without_space_around_them_and_none_is_empty(text: str) -> None:
    assert all(item and item == item.strip() for item in split_items(text))
