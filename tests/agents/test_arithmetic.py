from __future__ import annotations

import time
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monai_node.agents import Abstain
from monai_node.agents.examples import values
from monai_node.agents.examples.arithmetic import agent
from monai_node.agents.examples.number_words import SCALES, SMALL, read_number
from monai_node.agents.examples.units import find_unit
from monai_node.agents.examples.values import Refusal, Value
from monai_node.agents.testing import ask, context, turns

_NOTHING_BEFORE = context("2026-11-20T14:05")


def _answer(text: str, *earlier: str, artifacts: tuple[str, ...] = ()) -> str:
    return ask(agent, text, context=context("2026-11-20T14:05", turns=turns(*earlier), artifacts=artifacts))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        # figures and signs
        ("What is 37 * 49?", "1813"),
        ("Calculate 3 + 4 * (2 - 1)", "7"),
        ("What is 7 × 8 ÷ 2?", "28"),
        ("5 + 3 = ?", "8"),
        ("1,234.5 + 1", "1235.5"),
        ("0.1 + 0.2", "0.3"),
        ("10 / 4", "2.5"),
        ("1/3", "≈ 0.333333333333"),
        ("-2^2", "-4"),
        ("(-2)^2", "4"),
        ("2^3^2", "512"),
        ("2^-1", "0.5"),
        ("2(3+4)", "14"),
        ("3x4", "12"),
        ("½ + ¼", "0.75"),
        ("2½ * 2", "5"),
        ("5k + 3k", "8000"),
        ("2^64", "18446744073709551616"),
        ("100!", "≈ 9.33262154439 × 10^157"),
        ("1e20 / 3", "≈ 3.33333333333 × 10^19"),
        ("What is 2+2!", "4"),
        ("what is 5!", "120"),
        ("10 mod 3", "1"),
        # words
        ("seven times eight plus two", "58"),
        ("two hundred and five thousand divided by five", "41000"),
        ("twenty-two times six", "132"),
        ("three point one four times two", "6.28"),
        ("2.5 million / 5", "500000"),
        ("half of 90", "45"),
        ("two thirds of 90", "60"),
        ("three quarters of a million", "750000"),
        ("2 to the power of 10", "1024"),
        ("what is 12 cubed", "1728"),
        ("the square root of 144", "12"),
        ("the square root of 2", "≈ 1.41421356237"),
        ("cube root of -27 plus sqrt(16)", "1"),
        ("8^(1/3)", "2"),
        ("2 pi", "≈ 6.28318530718"),
        ("log 1000", "3"),
        ("ln(2)", "≈ 0.69314718056"),
        ("subtract 3 from 10", "7"),
        ("divide 100 by 8", "12.5"),
        ("What's the sum of 12, 15 and 3?", "30"),
        ("the product of six and seven", "42"),
        ("difference between 3 and 10", "7"),
        ("average of 3, 4 and 8", "5"),
        ("what do you get if you multiply 12 by 12", "144"),
        # percentages and money
        ("how much is 15% of 80", "12"),
        ("80 + 15%", "92"),
        ("increase 80 by 15%", "92"),
        ("20% off 50", "40"),
        ("what percent of 80 is 20", "25%"),
        ("20 is what percent of 80", "25%"),
        ("20% tip on $45.50", "$9.10"),
        ("$10 / 3", "≈ $3.33"),
        ("$5 per hour * 8 hours", "$40"),
        ("$5 per hour * 3", "15 dollars per hour"),
        # units
        ("5 miles in kilometres", "5 miles = 8.04672 kilometres"),
        ("convert 72 F to C", "72 °F ≈ 22.2222222222 °C"),
        ("-40 F to C", "-40 °F = -40 °C"),
        ("300 K to C", "300 K = 26.85 °C"),
        ("10 kg in pounds", "10 kilograms ≈ 22.0462262185 pounds"),
        ("3 hours 20 minutes in seconds", "3 hours 20 minutes = 12000 seconds"),
        ("26.2 miles + 5 km", "≈ 29.3068559612 miles"),
        ("26.2 miles + 5 km in km", "26.2 miles + 5 km = 47.1648128 kilometres"),
        ("add 26.2 miles and 5 km", "≈ 29.3068559612 miles"),
        ("60 km / 2 hours", "30 kilometres per hour"),
        ("100 km / 50 km/h", "2 hours"),
        ("5 m * 3 m", "15 square metres"),
        ("how many feet are in a mile", "1 mile = 5280 feet"),
        ("how many seconds in 3 hours 20 minutes", "3 hours 20 minutes = 12000 seconds"),
        ("6'2\" in cm", "6 feet 2 inches = 187.96 centimetres"),
        ("5 foot 11 in cm", "5 foot 11 = 180.34 centimetres"),
        ("10 in to cm", "10 inches = 25.4 centimetres"),
        ("180 cm in feet and inches", "180 centimetres ≈ 5 feet 10.8661417323 inches"),
        ("200 minutes in hours and minutes", "200 minutes = 3 hours 20 minutes"),
        ("half a mile in metres", "half a mile = 804.672 metres"),
        ("1.5 GB in MB", "1.5 gigabytes = 1500 megabytes"),
        ("1 GiB in bytes", "1 gibibyte = 1073741824 bytes"),
        ("100 Mbps in MB per second", "100 megabits per second = 12.5 megabytes per second"),
        ("60 mph in km/h", "60 miles per hour = 96.56064 kilometres per hour"),
        ("5 acres in m²", "5 acres = 20234.282112 square metres"),
        ("3 gallons in litres", "3 US gallons = 11.356235352 litres"),
        ("30 psi in bar", "30 pounds per square inch ≈ 2.06842718795 bars"),
        ("2000 kcal in kJ", "2000 kilocalories = 8368 kilojoules"),
        ("how many months in 3 years", "3 years = 36 months"),
        ("how many seconds in a year", "1 year = 31536000 seconds (counting 365 days to a year)"),
        # understood, and without a result
        ("5/0", "Division by zero has no result."),
        ("9**9**9", "That number has more than 1000 digits, which is where I stop."),
        ("1" * 1001 + " + 1", "That number has more than 1000 digits, which is where I stop."),
        ("5 km in kg", "5 kilometres is a length, which cannot be given as a mass in kilograms."),
        ("5 km + 3", "3 has no unit and cannot be added to 5 kilometres."),
        ("20 C + 5 C", "Temperatures are points on a scale: I convert them but do not add them."),
        ("sqrt(-1)", "The square root of a negative number is not a real number."),
        ("1813 in kilometres", "1813 has no unit: which unit is it in?"),
        ("3 months in days", "A month has 28 to 31 days, so that depends on which month it is."),
        # several
        ("What is 2+2? And what is 10/4?", "2+2 = 4\n10/4 = 2.5"),
        ("add 5 and 7 then multiply by 2", "add 5 and 7 = 12\nmultiply by 2 = 24"),
        ("5 miles in km and in metres", "5 miles = 8.04672 kilometres\n5 miles = 8046.72 metres"),
    ],
)
def test_a_calculation_has_its_result(text: str, result: str) -> None:
    assert _answer(text) == result


@pytest.mark.parametrize(
    ("text", "earlier", "result"),
    [
        (
            "and in kilometres?",
            ("How long is a marathon?", "26.2 miles"),
            "26.2 miles = 42.1648128 kilometres",
        ),
        (
            "and in metres?",
            ("5 miles in km", "5 miles = 8.04672 kilometres"),
            "8.04672 kilometres = 8046.72 metres",
        ),
        (
            "how many feet is that",
            ("How tall is it?", "It is 330 metres tall, built in 1889."),
            "330 metres ≈ 1082.67716535 feet",
        ),
        ("and in metres?", ("It is 5 miles away", "That is far."), "5 miles = 8046.72 metres"),
        ("and in kilometres?", ("What is 37 * 49", "1813"), "1813 has no unit: which unit is it in?"),
        (
            "and in kilograms?",
            ("How tall?", "330 metres"),
            "330 metres is a length, which cannot be given as a mass in kilograms.",
        ),
        ("multiply that by three", ("What is 37 * 49", "1813"), "5439"),
        ("double it", ("What is 37 * 49", "It is 1813."), "3626"),
        ("times 4", ("2+2", "4"), "16"),
        ("that + 1", ("square root of 2", "≈ 1.41421356237"), "≈ 2.41421356237"),
        ("convert it to celsius", ("and in F?", "It is -40 °F"), "-40 °F = -40 °C"),
    ],
)
def test_a_follow_up_takes_the_last_quantity(text: str, earlier: tuple[str, ...], result: str) -> None:
    assert _answer(text, *earlier) == result


def test_results_of_earlier_tasks_come_before_the_conversation() -> None:
    assert _answer("double that", "What is 2+2", "4", artifacts=("10", "20")) == "40"
    assert _answer("convert that to km", artifacts=("The route is 10 miles long.",)) == (
        "10 miles = 16.09344 kilometres"
    )


@pytest.mark.parametrize(
    "text",
    """how many people live in 3 cities
Tell me a joke
Write a poem of 3 + 4 lines
What is the capital of France?
What is 5?
five
15%
5 miles
What day is it today?
how many days until 25 December
what date is 90 days from now
2024-05-01
3/7/2024
What time is it in Tokyo at 10:30?
Solve x + 3 = 7
Is version 1.2.3 newer than 1.2.4?
My flight is BA 2490, is it late?
Who won the 1998 world cup?
3 + cats
12 *
((((
1 + 1 + is what I said
5 pounds in the bank
Summarise chapter 4 in 3 sentences
and in kilometres?
multiply that by three
How far is it from Paris to Rome in km?
I have 5 apples and eat 2
a + b
What are the 7 wonders of the world?
Translate 'two plus two' to French
10 downing street
call me at 555-1234 tomorrow
100 degrees to celsius
!!!
∫ x dx""".splitlines(),
)
def test_what_is_not_wholly_arithmetic_is_left_to_others(text: str) -> None:
    with pytest.raises(Abstain):
        _answer(text)


def test_which_number_is_meant_is_not_guessed() -> None:
    with pytest.raises(Abstain, match="not clear"):
        _answer("multiply that by three", "Facts?", "It has 3 rooms, 2 doors and 14 windows.")


# --- against Python's own exact arithmetic ----------------------------------------------------------
_NUMBERS = st.one_of(st.integers(0, 10**6), st.decimals(0, 1000, places=3).map(Fraction))
_TREES = st.recursive(
    _NUMBERS.map(Fraction),
    lambda inner: st.tuples(st.sampled_from("+-*/^"), inner, inner),
    max_leaves=12,
)
_Tree = Fraction | tuple[str, "_Tree", "_Tree"]


def _shown(tree: _Tree) -> str:
    if isinstance(tree, Fraction):
        return str(tree.numerator) if tree.denominator == 1 else f"{float(tree):.3f}"
    sign, left, right = tree
    return f"({_shown(left)} {sign} {'2' if sign == '^' else _shown(right)})"


def _worth(tree: _Tree) -> Fraction:
    if isinstance(tree, Fraction):
        return tree
    sign, left, right = tree
    a = _worth(left)
    if sign == "^":
        return a**2
    b = _worth(right)
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[sign]()


@settings(max_examples=150, deadline=None)
@given(_TREES)
def test_expressions_agree_with_fractions(tree: _Tree) -> None:
    assume(not isinstance(tree, Fraction))
    try:
        expected = _worth(tree)
    except ZeroDivisionError:
        assert _answer(_shown(tree)) == "Division by zero has no result."
        return
    assert _read_back(_answer(_shown(tree)), expected)


def _read_back(result: str, expected: Fraction) -> bool:
    digits, _, exponent = result.removeprefix("≈ ").partition(" × 10^")
    number = Fraction(digits) * Fraction(10) ** int(exponent or 0)
    if result.startswith("≈"):
        return abs(number - expected) <= abs(expected) / 10**11
    return number == expected


@given(st.integers(0, 10**15 - 1))
def test_number_words_read_back(number: int) -> None:
    words = _in_words(number)
    assert read_number(words) == (number, len(words))


def _in_words(number: int) -> list[str]:
    if number == 0:
        return ["zero"]
    words: list[str] = []
    for name, scale in sorted(SCALES.items(), key=lambda item: -item[1]):
        group, number = divmod(number, scale)
        words += [*_below_thousand(group), name] if group else []
    return words + _below_thousand(number)


def _below_thousand(number: int) -> list[str]:
    names = {value: word for word, value in SMALL.items()}
    hundreds, rest = divmod(number, 100)
    words = [names[hundreds], "hundred"] if hundreds else []
    if words and rest:
        words.append("and")
    if rest > 20 and rest % 10:
        return [*words, names[rest - rest % 10], names[rest % 10]]
    return [*words, names[rest]] if rest else words


_UNITS = [
    [unit for name in names.split(",") if (unit := find_unit(name))]
    for names in (
        "m,km,mile,inch,nmi,light year",
        "kg,lb,oz,stone,tonne",
        "C,F,K",
        "B,Mb,GiB,kB",
        "l,gallon,imperial pint,cup",
        "mph,knots,km/h",
        "J,kWh,BTU,kcal",
        "psi,bar,atm,mmHg",
    )
]


@given(st.sampled_from(_UNITS).flatmap(st.permutations), st.fractions(-(10**6), 10**6, max_denominator=1000))
def test_conversions_lose_nothing_on_the_way_back(units: list[object], magnitude: Fraction) -> None:
    first, second = (unit for unit in units[:2])
    value = Value(magnitude, first)  # pyright: ignore[reportArgumentType]
    there = values.converted(value, second)  # pyright: ignore[reportArgumentType]
    assert values.converted(there, value.unit) == value  # pyright: ignore[reportArgumentType]


@given(st.integers(0, 10**30), st.integers(2, 7))
def test_perfect_powers_have_exact_roots(number: int, degree: int) -> None:
    power = Value(Fraction(number**degree))
    root = values.raised(power, Value(Fraction(1, degree))) if number else power
    assert root == Value(Fraction(number))


# --- hostile input ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "1+" * 100_000,
        "(" * 10_000 + "1" + ")" * 10_000,
        "(" * 1900 + "1+1" + ")" * 1900,
        "-" * 3000 + "1 + 1",
        "2" + "^2" * 1500,
        "9" * 900 + "^" + "9" * 900,
        "1 + " * 900 + "1",
        "2^0." + "1" * 900,
        "10^999 * 10^999",
        "1e999 + 1e-999",
        "1e9999 * 1e9999",
        "ln(10^900) ^ 999999.5",
        "999999999999!",
        "sum of " + "sum of " * 400 + "1 and 2",
        "sqrt " * 700 + "2",
        "1,2" * 1000,
        "and in " * 500,
        "a" * 3999,
        "½" * 2000,
        "٣ + ٤",
        "\0" * 100,
        "1 feet 1 inches " * 250,
    ],
)
def test_hostile_text_costs_little_time(text: str) -> None:
    start = time.process_time()
    try:
        result = ask(agent, text, context=_NOTHING_BEFORE)
    except Abstain:
        result = ""
    assert time.process_time() - start < 1.0
    assert len(result) < 5000


@settings(max_examples=200, deadline=1000)
@given(st.text(alphabet="0123456789.,+-*/^()%!$ eximfk½²'\n", max_size=60))
def test_any_sequence_of_signs_is_answered_or_left_to_others(text: str) -> None:
    with suppress(Abstain):
        assert _answer(text)


@pytest.mark.parametrize("turn", ["1 km and " * 100_000, "(" * 100_000, "12'6" * 50_000, "9" * 100_000])
def test_a_hostile_earlier_turn_costs_little_time(turn: str) -> None:
    start = time.process_time()
    with suppress(Abstain):
        assert _answer("and in metres?", "x", turn)
    assert time.process_time() - start < 1.0


def test_a_value_beyond_the_limit_is_refused_by_every_operation() -> None:
    huge = Value(Fraction(10**999))
    for operation in (values.multiply, values.raised):
        with pytest.raises(Refusal, match="more than 1000 digits"):
            operation(huge, huge)
