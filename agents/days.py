"""Days in results: whether a weekday or a date is named, and whether it is the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from monai_node.agents.clauses import OPEN, PASSED, SHORT_CHARS, failed, whole_words, words_of
from monai_node.agents.lexicon import vocabulary
from monai_node.router.verdict import Verdict

_ISO_DATE = re.compile(r"(?<!\d)(\d{4})-(\d\d)-(\d\d)(?!\d)")
_WEEKDAYS = (
    "monday montag lundi lunes lunedì segunda maandag mon mo",
    "tuesday dienstag mardi martes martedì terça dinsdag tue tues",
    "wednesday mittwoch mercredi miércoles miercoles mercoledì quarta woensdag wed",
    "thursday donnerstag jeudi jueves giovedì quinta donderdag thu thur thurs",
    "friday freitag vendredi viernes venerdì sexta vrijdag fri",
    "saturday samstag sonnabend samedi sábado sabado sabato zaterdag sat",
    "sunday sonntag dimanche domingo domenica zondag sun",
)
_WEEKDAY_OF = {
    name + plural: number
    for number, names in enumerate(_WEEKDAYS)
    for name in names.split()
    for plural in ("", "s")
}
_SOME_DAY = vocabulary("weekend weekends weekday weekdays midweek any every each daily")
_MONTHS = (
    "january januar janvier enero jan",
    "february februar février fevrier febrero feb",
    "march märz maerz mars marzo mar",
    "april avril abril apr",
    "may mai mayo",
    "june juni juin junio jun",
    "july juli juillet julio jul",
    "august août aout agosto aug",
    "september septembre septiembre sept sep",
    "october oktober octobre octubre oct okt",
    "november novembre noviembre nov",
    "december dezember décembre decembre diciembre dec dez",
)


@dataclass(frozen=True, slots=True)
class OnWeekday:
    """Names a weekday: this one (0 is Monday), when it is known which is right."""

    number: int | None = None
    held_chars: int | None = SHORT_CHARS

    def early(self, beginning: str) -> Verdict:
        return PASSED if self.whole(whole_words(beginning)).kind == "passed" else OPEN

    def whole(self, text: str) -> Verdict:
        words = words_of(text)
        named = {_WEEKDAY_OF[word] for word in words if word in _WEEKDAY_OF}
        if self.number is not None and named:
            return PASSED if self.number in named else failed("the weekday is not the one of that date")
        if named:
            return PASSED
        if any(word in _SOME_DAY for word in words) or not text.isascii():
            return OPEN
        return failed("a weekday was asked for, the result names none")


@dataclass(frozen=True, slots=True)
class OnDate:
    """Names a date: in figures as year-month-day where that form was asked for, else in whatever form."""

    day: date | None = None
    is_iso: bool = False
    held_chars: int | None = SHORT_CHARS

    def early(self, beginning: str) -> Verdict:
        return PASSED if self.whole(whole_words(beginning)).kind == "passed" else OPEN

    def whole(self, text: str) -> Verdict:
        dates = [found for match in _ISO_DATE.finditer(text) if (found := _date(match)) is not None]
        if self.is_iso and not dates:
            return failed("a date as year-month-day was asked for, the result has none")
        if self.day is None:
            return PASSED if dates else OPEN
        if self.day in dates or (not self.is_iso and _names_day(self.day, text)):
            return PASSED
        if not dates and not any(letter.isdigit() for letter in text):
            return OPEN  # in words
        return failed("the date is not the one that was asked for")


def _date(found: re.Match[str]) -> date | None:
    try:
        return date(*map(int, found.groups()))
    except ValueError:
        return None


def _names_day(day: date, text: str) -> bool:
    """Whether its day and month stand in a text, the month by name or in figures."""
    numbers = {int(number) for number in re.findall(r"(?<!\d)\d{1,4}(?!\d)", text)}
    has_month = day.month in numbers or not _MONTH_NAMES[day.month - 1].isdisjoint(words_of(text))
    return day.day in numbers and has_month


_MONTH_NAMES: Sequence[frozenset[str]] = [frozenset(names.split()) for names in _MONTHS]
