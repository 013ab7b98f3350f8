"""Answers that can be worked out here: calculations and dates, by the bundled agents that read every word.

They abstain from any text with a word that they do not understand, so what they answer was asked. An
answer that depends on today, or on how the asker's country writes dates, is not taken as known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from fractions import Fraction

from monai_node.agents import Abstain, Context
from monai_node.agents.days import OnDate, OnWeekday
from monai_node.agents.examples.arithmetic import arithmetic
from monai_node.agents.examples.calendar_dates import calendar
from monai_node.agents.examples.spans import MONTHS
from monai_node.agents.numbers import TheNumber

# Questions that are longer bring a text along.
_QUESTION_CHARS_MAX = 200
_DIGIT = re.compile(r"\d")
# Of different size in different countries or trades.
_AMBIGUOUS = re.compile(
    r"\b(?:gallons?|gal|pints?|quarts?|cups?|t(?:ea|able)?spoons?|tbsp|tsp|tons?|tonnes?|fl|fluid|ounces?|oz|months?"
    r"|years?|decades?|bytes?|[kmgt]i?b|(?:kilo|mega|giga|tera)(?:byte|bit)s?|cal|calories?|hp|horsepower|barrels?"
    r"|hundredweights?|billions?|trillions?)\b"
    r"|\d\s?/\s?\d+\s?(?:\"|in\b)",  # of an inch
    re.I,
)
# Names and dates as often as calculations: 24/7, 9/11, 50-50, 3-4-2026.
_A_NAME = re.compile(r"(?<![\d.])(?:\d{1,2}/\d{1,2}|\d{1,4}(?:[-–]\d{1,4}){1,2})\W*\Z")
_RESULT = re.compile(r"(?:^|[=≈] )[$€£]?(?P<number>-?\d{1,60}(?:\.\d{1,60})?)(?: ?[^\d\s=≈][^\d=≈,]*)?$")
# People also answer in two units: 5 feet 11, 3 hours 20 minutes.
_OFTEN_TWO = re.compile(r"(?:stones?|foot|feet|yards?|pounds?|weeks?|days?|hours?|minutes?)$")
# "What weekday is Christmas 2027?" is answered with a date, and asks for a weekday; "what day" for either.
_ASKS_WEEKDAY = re.compile(r"\bweekday|\bday of the week\b", re.I)
_ASKS_SOME_DAY = re.compile(r"\b(?:what|which) days?\b", re.I)
_WEEKDAYS = ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun")
_A_WEEKDAY = re.compile(rf"\b(?:is|was) a ({'|'.join(_WEEKDAYS)})day\b")
_A_DATE = re.compile(r"\b(?:is|was) [A-Z][a-z]+day, (\d{1,2}) ([A-Z][a-z]+) (\d{4})\b")

# Two moments that share neither year, month, day of the month nor weekday, and both orders of day and month.
_CIRCUMSTANCES = [
    Context(now=now, timezone=UTC, locale=locale)
    for now in (datetime(2025, 3, 4, 9, tzinfo=UTC), datetime(2031, 10, 23, 21, tzinfo=UTC))
    for locale in ("en-US", "en-GB")
]
# Other languages' ways to ask for a calculation in figures.
_ASKING = re.compile(
    r"[\s¿]*(?:was (?:ist|sind|ergibt|macht)|wie ?viel (?:ist|sind|ergibt|macht)|berechne|rechne|combien font"
    r"|combien fait|calcule[rz]?|cu[aá]nto (?:es|son)|calcula|quanto fa)\s+(?P<figures>[\d\s%+*/()×÷^x-]+"
    r"(?:\s(?:von|de|del|di)\s\d+)?)\s*[?.!=]*\s*",
    re.I,
)
_OF = re.compile(r"\s(?:von|del|de|di)\s", re.I)


def known_answer(text: str) -> TheNumber | OnDate | OnWeekday | None:
    """What a right answer to this question must hold; None when it cannot be worked out here."""
    if len(text) > _QUESTION_CHARS_MAX or not _DIGIT.search(text):
        return None
    number = None if _AMBIGUOUS.search(text) or _A_NAME.search(text) else _number(text)
    return TheNumber(number) if number is not None else _day(text)


def _number(text: str) -> Fraction | None:
    foreign = _ASKING.fullmatch(text)
    asked = "what is " + _OF.sub(" of ", foreign["figures"]) if foreign else text
    answer = _answered(arithmetic, asked, _CIRCUMSTANCES[0])
    found = _RESULT.search(answer) if "\n" not in answer else None
    if found is None:
        return None
    value = Fraction(found["number"])
    if value.denominator == 1:
        return None if "≈" in answer else value  # rounded to what looks whole: who knows its other digits
    return None if _OFTEN_TWO.search(answer) else value


def _day(text: str) -> OnDate | OnWeekday | None:
    facts = {_fact(_answered(calendar, text, each)) for each in _CIRCUMSTANCES}
    fact = facts.pop() if len(facts) == 1 else None
    if not isinstance(fact, OnDate) or fact.day is None:
        return fact
    if _ASKS_WEEKDAY.search(text):
        return OnWeekday(fact.day.weekday())
    return None if _ASKS_SOME_DAY.search(text) else fact


def _fact(answer: str) -> OnDate | OnWeekday | None:
    """The weekday or the date that an answer comes to; None for any other answer."""
    if "\n" in answer:
        return None
    weekday = _A_WEEKDAY.search(answer)
    if weekday is not None:
        # "Yes: 5 May 2026 is a Tuesday" answers another question.
        return None if ":" in answer else OnWeekday(_WEEKDAYS.index(weekday[1]))
    found = _A_DATE.search(answer)
    if found is None:
        return None
    return OnDate(date(int(found[3]), MONTHS.index(found[2]) + 1, int(found[1])))


def _answered(agent: Callable[[str, Context], str], text: str, context: Context) -> str:
    """What the agent answers; "" when it says that this is not for it."""
    try:
        return agent(text, context)
    except Abstain:
        return ""
