from __future__ import annotations

from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.days import OnDate, OnWeekday
from monai_node.agents.known_answers import known_answer
from monai_node.agents.numbers import TheNumber


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("What is 37 * 49?", "1813"),
        ("how much is 15% of 80", "12"),
        ("convert 5 miles to kilometres", "8.04672"),
        ("Was ist 17 % von 80?", "13.6"),
        ("Combien font 25 % de 80 ?", "20"),
        ("¿Cuánto es 3 * 4?", "12"),
        ("$12 + $5", "17"),
    ],
)
def test_calculations_are_worked_out(text: str, value: str) -> None:
    assert known_answer(text) == TheNumber(Fraction(value))


def test_days_that_depend_on_nothing_but_the_question_are_known() -> None:
    assert known_answer("what weekday was 20 July 1969") == OnWeekday(6)
    assert known_answer("add 3 weeks and 2 days to 5 May 2026") == OnDate(date(2026, 5, 28))


@pytest.mark.parametrize(
    "text",
    [
        "what weekday is it in 3 days",  # from today
        "what date is 90 days from now",
        "what weekday is 3/4/2026",  # by the country
        "1 gallon in litres",
        "180 cm in feet",  # or in feet and inches
        "23/32 in mm",  # of an inch
        "is 2026-05-05 a Tuesday",  # yes
        "What is 10 / 0?",
        "9^9^9",
        "2^300",
        "What is 37 * 49 good for?",
        "What is 37 * 49? And why?" * 20,
    ],
)
def test_what_may_be_answered_otherwise_is_not(text: str) -> None:
    assert known_answer(text) is None


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="0123456789+-*/^()%!., eE√½²\u0660whatisof inkm", max_size=60))
def test_any_text_is_answered_or_not(text: str) -> None:
    answer = known_answer(text)
    assert answer is None or answer == known_answer(text)
