"""Reading dates that depend on today or on each other: "next Friday", "90 days from now".

ISO dates and named months are read as they stand. 3/7/2024 is read by the locale (en-US: month first)
and otherwise day first, unless one of the two cannot be a month. "Next Friday" is the first Friday
after today, "this Friday" may be today, "last Friday" is the latest before today. A date without a
year is the coming one, or the latest for who asks about the past. Months are added by the calendar:
31 January and one month is the last day of February.
"""

from __future__ import annotations

from datetime import date, timedelta

from monai_node.agents.examples.number_words import read_number
from monai_node.agents.examples.spans import OUTSIDE, Impossible, Span, days_in
from monai_node.agents.examples.written_dates import (
    MONTH_OF,
    WEEKDAY_OF,
    WrittenDates,
    dates_in,
)

_DEPTH_MAX = 20  # "a day after a week before …"
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_DAYS_OF_UNIT = {"day": 1, "week": 7, "fortnight": 14}
_MONTHS_OF_UNIT = {"month": 1, "year": 12, "decade": 120, "century": 1200, "centurie": 1200}
_NEAR = (
    (("the day after tomorrow", "day after tomorrow", "overmorrow"), 2),
    (("the day before yesterday", "day before yesterday"), -2),
    (("tomorrow's date", "tomorrow"), 1),
    (("yesterday's date", "yesterday"), -1),
    (("today's date", "the current date", "today", "now"), 0),
    (("a week tomorrow",), 8),
)


class Dates(WrittenDates):
    """Reads any date from where the cursor stands; what does not fit leaves the cursor alone."""

    _depth = 0

    def date(self) -> date | None:
        """A date, with any span before or after it: "2 weeks after 5 May", "today plus 90 days"."""
        start = self.index
        found = self._shifted()
        if found is not None:
            self.how = "computed"
        else:
            found = self._anchor()
        while found is not None:
            after = self.index
            sign = 1 if self.take("plus", "+") else -1 if self.take("minus", "-") else 0
            span = self.span() if sign else None
            if span is None:
                self.index = after
                return found
            found, self.how = span.after(found, sign), "computed"
        self.index = start
        return None

    def _shifted(self) -> date | None:
        start = self.index
        is_ahead = self.take("in", "within") is not None
        span = self.span()
        if span is None:
            self.index = start
            return None
        if is_ahead:
            self.take("time")
            return span.after(self.today)
        if self.take("from now", "from today", "hence"):
            return span.after(self.today)
        if self.take("ago"):
            return span.after(self.today, -1)
        sign = 1 if self.take("from", "after", "past") else -1 if self.take("before") else 0
        if (not sign and self.peek().lower in WEEKDAY_OF) or self.take("on"):
            sign = 1  # "a week on Friday", "two weeks Friday"
        self._depth += 1
        anchor = self.date() if sign and self._depth < _DEPTH_MAX else None
        self._depth -= 1
        if anchor is None:
            self.index = start
            return None
        return span.after(anchor, sign)

    def span(self) -> Span | None:
        """As in "90 days", "3 weeks and 2 days", "a year", "10 working days"."""
        found: Span | None = None
        while True:
            start = self.index
            if found is not None:
                self.take(", and", "and", ",")
            part = self._span_part()
            if part is None:
                self.index = start
                return found
            found = part if found is None else found + part

    def _span_part(self) -> Span | None:
        start = self.index
        self.take("exactly")
        count = self._count()
        unit = self.peek().lower
        if count is None:
            return self._nothing(start)
        if self.take("working days", "working day", "business days", "business day", "workdays"):
            return Span(working_days=count)
        self.index += 1
        single = unit.removesuffix("s")
        if single in _DAYS_OF_UNIT:
            return Span(days=count * _DAYS_OF_UNIT[single])
        if single in _MONTHS_OF_UNIT:
            return Span(months=count * _MONTHS_OF_UNIT[single])
        return self._nothing(start)

    def _nothing(self, start: int) -> None:
        self.index = start

    def _count(self) -> int | None:
        token = self.take_kind("number")
        if token is not None:
            if len(token.text) > 9:
                raise Impossible(OUTSIDE)
            return int(token.text)
        words = read_number(self.words, self.index)
        if words is not None:
            self.index = words[1]
            return words[0]
        if self.take("a couple of", "a couple"):
            return 2
        return 1 if self.take("a", "an", "one") else None

    def _anchor(self) -> date | None:
        """A date that stands by itself."""
        self.how, self.has_year = "computed", True
        start = self.index
        for words, days in _NEAR:
            if self.take(*words):
                return Span(days=abs(days)).after(self.today, 1 if days >= 0 else -1)
        for reader in (self._edge, self._nth_weekday, self._weekday, self._reference):
            found = reader()
            if found is not None:
                return found
            self.index = start
        for reader in (self._written, self._numeric):
            found = reader()
            if found is not None:
                self.how = "written"
                return found
            self.index = start
        self.how = "holiday"
        return self._holiday()

    def _edge(self) -> date | None:
        """As in "the last day of February 2028", "the end of this month", "the first day of next year"."""
        self.take("the")
        is_last = self.take("last day of", "end of", "last day in") is not None
        if not is_last and not self.take("first day of", "start of", "beginning of", "first day in"):
            return None
        period = self.period()
        if period is None:
            return None
        year, month = period
        if is_last:
            return date(year, month or 12, days_in(year, month or 12))
        return date(year, month or 1, 1)

    def period(self) -> tuple[int, int | None] | None:
        """A month of a year, or a year (then the month is None): "February 2028", "this month"."""
        self.take("the month of", "the year")
        month = MONTH_OF.get(self.peek().lower)
        if month is not None:
            self.index += 1
            self.take("of", "in", ",")
            return self.year() or self._year_of(month), month
        shift = {"this": 0, "the": 0, "next": 1, "last": -1, "the current": 0}
        for word, step in shift.items():
            if self.take(f"{word} month"):
                day = Span(months=abs(step)).after(self.today, step or 1)
                return day.year, day.month
            if self.take(f"{word} year"):
                return self.today.year + step, None
        year = self.year()
        return None if year is None else (year, None)

    def _year_of(self, month: int) -> int:
        if self.is_past:
            return self.today.year - (month > self.today.month)
        return self.today.year + (month < self.today.month)

    def _nth_weekday(self) -> date | None:
        """As in "the first Monday of September 2026", "the last Friday of this month"."""
        self.take("the")
        nth = self._ordinal_word()
        weekday = WEEKDAY_OF.get(self.peek().lower)
        if nth is None or weekday is None:
            return None
        self.index += 1
        period = self.period() if self.take("of", "in") else None
        if period is None or period[1] is None:
            return None
        year, month = period[0], period[1]
        length = days_in(year, month)
        days = [d for d in range(1, length + 1) if date(year, month, d).weekday() == weekday]
        return date(year, month, days[nth]) if nth < len(days) else None

    def _ordinal_word(self) -> int | None:
        if self.take("last"):
            return -1
        for n, word in enumerate(_ORDINALS):
            if self.take(word, f"{n + 1}{('st', 'nd', 'rd', 'th', 'th')[n]}"):
                return n
        return None

    def _weekday(self) -> date | None:
        self.take("the")
        which = self.take("this coming", "the coming", "coming", "next", "this", "last", "past", "on")
        weekday = WEEKDAY_OF.get(self.peek().lower)
        if weekday is None:
            return None
        self.index += 1
        if which in ("last", "past") or (which is None and self.is_past):
            return self.today - timedelta(days=(self.today.weekday() - weekday - 1) % 7 + 1)
        ahead = (weekday - self.today.weekday()) % 7
        if which == "next" and ahead == 0:
            ahead = 7
        if self.take("next week"):
            ahead = weekday - self.today.weekday() + 7
        return Span(days=ahead).after(self.today)

    def _reference(self) -> date | None:
        """The last date of an earlier result, answer or question."""
        if not self.take("that date", "that day", "that", "the same day", "this date"):
            return None
        for text in self._earlier_texts():
            found = dates_in(text, self.ctx)
            if found:
                return found[-1]
        return None

    def _earlier_texts(self) -> list[str]:
        artifacts = [artifact.text for artifact in reversed(self.ctx.artifacts)]
        return artifacts + [turn.content for turn in reversed(self.ctx.turns)][:2]
