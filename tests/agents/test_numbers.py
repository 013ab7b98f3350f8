from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.numbers import SomeNumber, TheNumber, has_number, readings


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is 1,234.5 m", {"1234.5"}),
        ("Es sind 1.234,5 m", {"1234.5"}),
        ("1.234", {"1234", "1.234"}),
        ("1 234 567", {"1234567"}),
        ("12\u00a0500 €", {"12500"}),
        ("3,4", {"3.4", "3", "4"}),
        ("2 or 3", {"2", "3"}),
        ("6.02e23", {"602000000000000000000000"}),
        ("3/4", {"3", "4", "0.75"}),
        ("v2 and x86", set[str]()),
        ("-7", {"7"}),
    ],
)
def test_figures_are_read_in_every_way_in_which_people_write_them(text: str, found: set[str]) -> None:
    assert {value for value, _ in readings(text)} == {Fraction(value) for value in found}


@settings(max_examples=100, deadline=None)
@given(number=st.integers(0, 10**15), decimals=st.integers(0, 6))
def test_a_number_is_found_however_it_is_grouped_and_rounded(number: int, decimals: int) -> None:
    value = Fraction(number, 10**decimals)
    clause = TheNumber(value)
    plain = f"{number // 10**decimals:,}" + (f".{number % 10**decimals:0{decimals}d}" if decimals else "")
    german = plain.translate(str.maketrans(",.", ".,"))
    french = plain.translate(str.maketrans(",.", " ,"))
    for written in (plain, german, french, plain.replace(",", "")):
        assert clause.whole(f"That makes {written} in all.").kind == "passed", written
    assert TheNumber(value + 1 + number).whole(f"That makes {plain} in all.").kind == "failed"


@pytest.mark.parametrize(
    "text", ["Seven.", "none of them", "hunderttausend", "veintiuno", "soixante-dix", "семь", "7", "½ of it"]
)
def test_a_number_may_be_said_in_words(text: str) -> None:
    assert has_number(text)
    assert SomeNumber().whole(text).kind == "passed"


def test_a_number_in_words_is_not_held_against_the_one_that_is_known() -> None:
    assert TheNumber(Fraction(12)).whole("It is twelve.").kind == "open"
    assert TheNumber(Fraction(12)).whole("It is lovely.").kind == "failed"
    assert TheNumber(Fraction(2_500_000)).whole("It is 2.5 million.").kind == "open"
