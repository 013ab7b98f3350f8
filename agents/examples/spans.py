"""Days and spans of days: adding by the calendar, counting between dates, and saying them."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WORKING = ("working days", "business days", "weekdays", "week days", "workdays")
UNITS = (*WORKING, "days", "day", "weeks", "months", "years", "sleeps", "nights")
OUTSIDE = "That lies outside the years 1 to 9999, which is as far as I count."
_GREGORIAN = date(1582, 10, 15)


class Impossible(Exception):
    """A date that was understood and does not exist; the text is the answer."""


def said(day: date) -> str:
    """“Friday, 20 November 2026”; before October 1582 with the name of the calendar counted in."""
    text = f"{WEEKDAYS[day.weekday()]}, {day.day} {MONTHS[day.month - 1]} {day.year}"
    return text if day >= _GREGORIAN else f"{text} (Gregorian calendar)"


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time by the calendar: months first, then days, then working days."""

    months: int = 0
    days: int = 0
    working_days: int = 0

    def __add__(self, other: Span) -> Span:
        return Span(
            self.months + other.months,
            self.days + other.days,
            self.working_days + other.working_days,
        )

    def after(self, day: date, sign: int = 1) -> date:
        """The day this long after `day` (or before it, with sign −1); Impossible past year 9999."""
        try:
            year, month = divmod(day.year * 12 + day.month - 1 + sign * self.months, 12)
            day = date(year, month + 1, min(day.day, days_in(year, month + 1)))
            day += timedelta(days=sign * self.days)
            return _working_days_after(day, sign * self.working_days)
        except (ValueError, OverflowError):
            raise Impossible(OUTSIDE) from None


def _working_days_after(day: date, count: int) -> date:
    """Weekends apart. Whole weeks at once: the count comes from outside."""
    if not count:
        return day
    step = 1 if count > 0 else -1
    while day.weekday() > 4:  # from a weekend, counting starts at the working day before it
        day -= timedelta(days=step)
    weeks, rest = divmod(abs(count), 5)
    day += timedelta(weeks=step * weeks)
    for _ in range(rest):
        day += timedelta(days=step)
        while day.weekday() > 4:
            day += timedelta(days=step)
    return day


def days_in(year: int, month: int) -> int:
    return monthrange(year, month)[1]


def easter(year: int) -> date:
    """Western Easter Sunday, by the anonymous Gregorian algorithm (Meeus, Astronomical Algorithms)."""
    a, (b, c) = year % 19, divmod(year, 100)
    (d, e), g = divmod(b, 4), (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


def counted(count: int, noun: str) -> str:
    """“1 day”, “2 days”."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def length_of(unit: str, first: date, last: date) -> str:
    """The time from `first` to a later `last` in the unit asked for ("long": in all that fit)."""
    days = (last - first).days
    if unit in WORKING:
        return (
            f"{counted(working_days(first, last), 'weekday')} (Monday to Friday, both dates "
            "counted, public holidays not left out)"
        )
    total = counted(days, "day")
    if unit == "weeks":
        weeks, rest = divmod(days, 7)
        parts = [counted(weeks, "week")] + ([counted(rest, "day")] if rest else [])
        return _joined(parts, total)
    if unit in ("months", "years") or (unit == "long" and days >= 60):
        months = months_between(first, last)
        rest = (last - Span(months=months).after(first)).days
        years = 0
        if unit != "months":
            years, months = divmod(months, 12)
        amounts = ((years, "year"), (months, "month"), (rest, "day"))
        return _joined([counted(n, noun) for n, noun in amounts if n] or [total], total)
    return total


def _joined(parts: list[str], total: str) -> str:
    if parts == [total]:
        return total
    text = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return f"{text} ({total})"


def months_between(first: date, last: date) -> int:
    """Whole calendar months from `first` to a later `last`."""
    months = (last.year - first.year) * 12 + last.month - first.month
    return months - (Span(months=months).after(first) > last)


def working_days(first: date, last: date) -> int:
    """Mondays to Fridays from `first` to `last`, both counted."""
    weeks, rest = divmod((last - first).days + 1, 7)
    start = first + timedelta(days=7 * weeks) if rest else first
    return 5 * weeks + sum((start + timedelta(days=n)).weekday() < 5 for n in range(rest))


def aligned(first: date, first_has_year: bool, second: date, second_has_year: bool) -> tuple[date, date]:
    """Two dates of one question, where one may have to borrow its year from the other."""
    if first_has_year == second_has_year:
        if not first_has_year and second < first:
            first = _in_year(first, first.year - 1)
        return first, second
    if second_has_year:
        moved = _in_year(first, second.year)
        return (moved if moved <= second else _in_year(first, second.year - 1)), second
    moved = _in_year(second, first.year)
    return first, (moved if moved >= first else _in_year(second, first.year + 1))


def _in_year(day: date, year: int) -> date:
    return Span(months=12 * (year - day.year)).after(day)
