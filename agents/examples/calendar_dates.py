"""The calendar agent: dates, weekdays, spans between dates, calendar weeks and the time elsewhere.

Today is the asker's: the request's time and timezone. Every word of a task is understood or the agent
abstains. How dates are read (which Friday is the next, day or month first) stands in `date_reading`;
every answer spells its dates out, so that a reader sees how they were read.
"""

from __future__ import annotations

from calendar import isleap
from datetime import date
from functools import partial

from monai_node.agents import Abstain, Agent, Context
from monai_node.agents.examples.date_reading import Dates
from monai_node.agents.examples.reading import Phrases
from monai_node.agents.examples.spans import (
    MONTHS,
    UNITS,
    WEEKDAYS,
    Impossible,
    aligned,
    counted,
    days_in,
    length_of,
    said,
)
from monai_node.agents.examples.world_time import answer_time
from monai_node.agents.examples.written_dates import NotADate, dates_in, plain, read

agent = Agent("calendar", "Dates, weekdays, calendar weeks and the time around the world.")

_LEAD = Phrases(
    """please|hey|hi|hello|ok|okay|so|and|then|now|also|can you|could you|would you|tell me|
    can you tell me|could you tell me|do you know|give me|show me|calculate|compute|work out|find|
    find out|i need to know|i want to know|let me know|,|.|?|!|:|;"""
)
_TAIL = Phrases("please|thanks|thank you|exactly|for me|right now|now|?|.|!|,|;")
_WHICH_DAY = Phrases(
    """what weekday|which weekday|what day of the week|which day of the week|what day|which day|
    what date|which date|on what day|on which day|on what date|on which date|on what weekday|
    on which weekday|on what day of the week|on which day of the week|what's the date|
    what's the day|what is the date|what is the day|the date|the weekday|the day of the week|
    what is the weekday|what is the day of the week|what's the weekday|what will the date be|
    what was the date|what will be the date|what's the day of the week|what is the current date"""
)
_WHEN = Phrases("when is|when's|when was|when will|when does|when did|when are")
_IS = Phrases("is it|it is|will it be|was it|is|was|will be|will|does|did|do|are|of|on|for")
_FALL = Phrases("be on|be|fall on|fall|falls on|falls|land on|fell on|it|a")
_HOW_LONG = Phrases("how long|how much time|the time|time")
_NUMBER_OF = Phrases("how many|the number of|number of|the|what is the number of")
_THERE = Phrases(
    """are there|is it|is there|are|is|left|remain|remaining|do i have|do we have|have passed|passed|
    has it been|it has been|it is|to go|will it be|there are|have gone by|has passed|it's been|was it"""
)
_PAST = ("was", "did", "since", "ago", "born", "fell")


@agent.skill(
    name="Dates and times",
    tags=["date", "calendar", "weekday", "time", "timezone", "exact"],
    examples=[
        "What day is it today?",
        "what date is 90 days from now",
        "how many days until 25 December",
        "how many days between 3 March 2024 and 2024-05-01",
        "what weekday was 20 July 1969",
        "add 3 weeks and 2 days to 5 May 2026",
        "what time is it in Tokyo",
        "when is next Friday",
        "is 2028 a leap year",
        "what is the ISO week number of 14 June 2025",
        "what is the last day of February 2028",
        "working days between 1 June and 15 July",
        "how long ago was 1 January 2000",
        "time difference between London and New York",
        "when is Easter this year",
        "tomorrow's date",
    ],
)
def calendar(text: str, ctx: Context) -> str:
    """Answers questions about dates and times: today's date, the weekday of a date, days between or
    until dates, adding days or weeks to a date, leap years, week numbers, the time in a city."""
    try:
        return _Questions(text, ctx).answers()
    except NotADate as reason:
        raise Abstain(f"no question about a date: {reason}") from None
    except Impossible as sentence:
        return str(sentence)


class _Questions(Dates):
    """The questions of one text; each reader answers its own kind or leaves the cursor alone."""

    def __init__(self, text: str, ctx: Context) -> None:
        super().__init__(read(text), ctx)
        self.text = plain(text)
        self.is_past = any(word in _PAST for word in self.words)

    def answers(self) -> str:
        found: list[str] = []
        self.skip(_LEAD)
        while not self.is_at_end:
            found.append(self._answer())
            self.skip(_TAIL)
            self.skip(_LEAD)
        if not found:
            raise NotADate("nothing is asked")
        return "\n".join(found)

    def _answer(self) -> str:
        start = self.index
        for reader in (
            partial(answer_time, self),
            self._day_of,
            self._time_between,
            self._days_in,
            self._leap,
            self._week,
            self._day_of_year,
            self._age,
            self._addition,
            self._check,
            self._year_or_month,
            self._bare,
        ):
            self.notes.clear()
            answer = reader()
            if answer is not None and self._is_over():
                notes = f" ({'; '.join(self.notes)})." if self.notes else "."
                return answer.removesuffix(".") + notes
            self.index = start
        raise NotADate(f"{self.peek().text!r} is not understood")

    def _is_over(self) -> bool:
        self.skip(_TAIL)
        return self.is_at_end or self.peek(-1).kind == "stop" or self.peek().lower == "and"

    def _slice(self, start: int) -> str:
        text = self.text[self.tokens[start].start : self.tokens[self.index - 1].end]
        return " ".join(text.split())

    # --- one day ------------------------------------------------------------------------------------
    def _day_of(self) -> str | None:
        """“what day is it today”, “when is Easter”, “what weekday was 20 July 1969”."""
        if not self.take_from(_WHICH_DAY) and not self.take_from(_WHEN):
            return None
        is_when = self.words[self.index - 1] not in ("date", "day", "weekday", "week", "be")
        self.skip(_IS)
        start = self.index
        day = self.date()
        if day is None:
            return None if is_when and start == self.index else self._today_is()
        subject, how = self._slice(start), self.how
        self.skip(_FALL)
        if how == "holiday" and self.take("in"):  # “will Christmas fall on in 2027”
            year = self.year()
            if year is None:
                return None
            day = self.holiday(subject.lower(), year)
            subject = f"{subject} {year}"
        return self._described(subject, day) if day is not None else None

    def _today_is(self) -> str:
        self.take("it")
        return f"Today is {said(self.today)}."

    def _described(self, subject: str, day: date) -> str:
        verb = "was" if day < self.today else "is"
        if self.how == "written":
            spelled = said(day).split(", ", 1)[1]
            return f"{spelled} {verb} a {WEEKDAYS[day.weekday()]}."
        if subject.lower().startswith("in "):
            verb = f"it {verb}"
        if day == self.today:
            subject = "today"
        return f"{subject[:1].upper()}{subject[1:]} {verb} {said(day)}."

    def _bare(self) -> str | None:
        """“90 days from now”: only what depends on a calculation is a question without a verb.

        “And tomorrow?” in a talk about something else is not about the calendar.
        """
        has_verb = self.take("what is", "what's", "what was", "what will be", "what date", "when")
        start = self.index
        day = self.date()
        if day is None or self.how != "computed":
            return None
        if not has_verb and (self.index - start == 1 or not self._is_about_dates()):
            return None
        return self._described(self._slice(start), day)

    def _is_about_dates(self) -> bool:
        """Whether the last turn, if there was one, spoke of a date."""
        return not self.ctx.turns or bool(dates_in(self.ctx.turns[-1].content, self.ctx))

    def _addition(self) -> str | None:
        """“add 3 weeks and 2 days to 5 May 2026”."""
        verb = self.take("add", "subtract", "take", "count", "go")
        start = self.index
        span = self.span() if verb else None
        length = self._slice(start) if span else ""
        link = self.take("to", "from", "after", "forward from", "back from", "before")
        start = self.index
        day = self.date() if span and link else None
        if span is None or day is None:
            return None
        is_back = verb in ("subtract", "take") or link in ("back from", "before")
        word = "before" if is_back else "after"
        subject = f"{length} {word} {self._slice(start)}"
        self.how = "computed"
        return self._described(subject, span.after(day, -1 if is_back else 1))

    def _check(self) -> str | None:
        """“is 5 May 2026 a Tuesday”, “is today a working day”."""
        if not self.take("is", "was", "will", "does"):
            return None
        day = self.date()
        self.take("be")
        self.take("fall", "falls")
        self.take("a", "on a", "on the", "on", "the")
        if day is None:
            return None
        weekday, is_weekend = WEEKDAYS[day.weekday()], day.weekday() > 4
        asked = self.peek().lower
        self.index += 1
        if asked in ("weekend", "weekday", "workday"):
            holds = is_weekend == (asked == "weekend")
        elif asked.capitalize() in WEEKDAYS:
            holds = asked.capitalize() == weekday
        else:
            return None
        verb = "was" if day < self.today else "is"
        return f"{'Yes' if holds else 'No'}: {said(day).split(', ', 1)[1]} {verb} a {weekday}."

    def _year_or_month(self) -> str | None:
        if self.take("what year is it", "which year is it", "what is the current year"):
            return f"It is {self.today.year}."
        if self.take("what month is it", "which month is it", "what is the current month"):
            return f"It is {MONTHS[self.today.month - 1]} {self.today.year}."
        return None

    # --- time between two days ----------------------------------------------------------------------
    def _time_between(self) -> str | None:
        """“how many days until 25 December”, “weeks between A and B”, “how long since A”."""
        self.skip(_NUMBER_OF)
        unit = self.take(*UNITS) or ("long" if self.take_from(_HOW_LONG) else None)
        if unit is None:
            return None
        self.skip(_THERE)
        if self.take("until", "till", "til", "to", "before"):
            return self._distance(unit, self.date())
        if self.take("since", "ago was", "ago is", "ago did"):
            self.is_past = True
            return self._distance(unit, self.date())
        if self.take("between"):
            return self._stretch(unit, "and")
        if self.take("from"):
            return self._stretch(unit, "to", "until", "till", "through")
        return self._left_in_period(unit)

    def _left_in_period(self, unit: str) -> str | None:
        if not self.take("in", "of"):
            return None
        has_left = "left" in self.words or "remain" in self.words or "remaining" in self.words
        period = self.period() if has_left else None
        if period is None:
            return None
        year, month = period
        return self._distance(unit, date(year, month or 12, days_in(year, month or 12)))

    def _distance(self, unit: str, day: date | None) -> str | None:
        if day is None:
            return None
        if day == self.today:
            return f"{said(day)} is today."
        first, last = sorted((day, self.today))
        length = length_of(unit, first, last)
        if day > self.today:
            return f"It is {length} until {said(day)}."
        return f"{said(day)} was {length} ago."

    def _stretch(self, unit: str, *links: str) -> str | None:
        first = self.date()
        first_has_year, first_how = self.has_year, self.how
        second = self.date() if first is not None and self.take(*links) else None
        if first is None or second is None:
            return None
        if first_how != "computed" and self.how != "computed":
            first, second = aligned(first, first_has_year, second, self.has_year)
        if first == second:
            return f"Both are {said(first)}."
        start, end = sorted((first, second))
        return f"From {said(start)} to {said(end)} is {length_of(unit, start, end)}."

    def _age(self) -> str | None:
        """“how old is someone born on 3 March 1990”."""
        if not self.take("how old is", "how old am i if i was", "how old would", "how old are you if"):
            return None
        self.skip(Phrases("someone|somebody|a person|who|be|if they were|you were|was|were|if"))
        if not self.take("born on", "born in", "born"):
            return None
        day = self.date()
        if day is None or day > self.today:
            return None
        age = self.today.year - day.year - ((self.today.month, self.today.day) < (day.month, day.day))
        return f"Someone born on {said(day)} is {counted(age, 'year')} old today."

    # --- the calendar itself ------------------------------------------------------------------------
    def _days_in(self) -> str | None:
        """“how many days are in February 2028”, “how many days does 2028 have”."""
        self.skip(_NUMBER_OF)
        if not self.take("days"):
            return None
        self.skip(Phrases("are there|are|does|do|is|will|did|there"))
        self.take("in")
        period = self.period()
        has_verb = self.take("have in", "have")
        if period is None:
            return None
        year, month = period
        if has_verb and not self.is_at_end:
            year = self.year() or year
        if month is None:
            return f"{year} has {366 if isleap(year) else 365} days."
        return f"{MONTHS[month - 1]} {year} has {days_in(year, month)} days."

    def _leap(self) -> str | None:
        if self.take("when is the next leap year", "what is the next leap year", "next leap year"):
            year = self.year() if self.take("after") else self.today.year
            if year is None:
                return None
            return f"The next leap year is {next(y for y in range(year + 1, year + 9) if isleap(y))}."
        if not self.take("is", "was", "will"):
            return None
        self.take("the year")
        year = self.today.year if self.take("this year", "it", "this") else self.year()
        self.take("be")
        if year is None or not self.take("a leap year", "leap year"):
            return None
        if isleap(year):
            return f"Yes, {year} is a leap year: its February has 29 days."
        return f"No, {year} is not a leap year: its February has 28 days."

    def _week(self) -> str | None:
        """“what ISO week is it”, “week number of 14 June 2025”."""
        self.take("what is the", "what's the", "what is", "what", "which", "in which", "in what", "the")
        if not self.take(
            "iso week number", "iso calendar week", "iso week", "calendar week", "week number", "week"
        ):
            return None
        self.take("of the year")
        start = self.index
        self.skip(Phrases("is it|is this|is|was|of|for|are we in|does|will|in|it"))
        is_asked = start != self.index or self.is_at_end or self.peek().kind == "stop"
        day = self.date() or (self.today if is_asked else None)
        self.take("fall in", "fall", "be", "in")
        if day is None:
            return None
        year, week, _ = day.isocalendar()
        verb = "was" if day < self.today else "is"
        return f"{said(day)} {verb} in ISO week {week} of {year} ({year}-W{week:02})."

    def _day_of_year(self) -> str | None:
        self.take("what is the", "what", "which", "the")
        if not self.take("day of the year", "day number", "ordinal day"):
            return None
        self.skip(Phrases("is it|is|was|of|for"))
        day = self.date() or self.today
        number = day.timetuple().tm_yday
        verb = "was" if day < self.today else "is"
        return f"{said(day)} {verb} day {number} of {day.year}."
