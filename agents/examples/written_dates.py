"""Reading dates that are written out: "3 March 2024", "March 3rd", 2024-03-03, 3/7/2024, "Easter"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Literal

from monai_node.agents import Context
from monai_node.agents.examples.reading import TEXT_CHARS_MAX, Cursor, Token, tokens_of
from monai_node.agents.examples.spans import MONTHS, WEEKDAYS, Impossible, days_in, easter

MONTH_OF = {name.lower(): n for n, name in enumerate(MONTHS, 1)} | {
    name.lower()[:3]: n for n, name in enumerate(MONTHS, 1)
}
MONTH_OF["sept"] = 9
WEEKDAY_OF = {name.lower(): n for n, name in enumerate(WEEKDAYS)} | {
    short: n
    for n, shorts in enumerate(("mon", "tue tues", "wed", "thu thur thurs", "fri", "sat", "sun"))
    for short in shorts.split()
}
_FIXED_DAYS = {
    "christmas eve": (12, 24),
    "christmas day": (12, 25),
    "christmas": (12, 25),
    "new year's eve": (12, 31),
    "new year's day": (1, 1),
    "new years day": (1, 1),
    "new year": (1, 1),
    "new year's": (1, 1),
    "valentine's day": (2, 14),
    "valentines day": (2, 14),
    "halloween": (10, 31),
}
_TOKEN = re.compile(
    r"(?P<iso>\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2})(?![\w-])"
    r"|(?P<numeric>\d{1,2}([/.-])\d{1,2}\3\d{4})(?![\w-])"
    r"|(?P<clock>\d{1,2}:\d{2}(?:\s?[aApP]\.?[mM]\b\.?)?|\d{1,2}\s?[aApP]\.?[mM]\b\.?)"
    r"|(?P<ordinal>\d{1,2}(?:st|nd|rd|th))\b"
    r"|(?P<number>\d+)(?![\w])"
    r"|(?P<joint>(?<=[^\W\d_])-(?=[^\W\d_])|[\"“”`])"
    r"|(?P<word>[^\W\d_]+(?:['’][a-z]+)?)"
    r"|(?P<sign>[-+])"
    r"|(?P<stop>[.?!,;:()\n])"
)


How = Literal["written", "holiday", "computed"]


class NotADate(Exception):
    """Something in the text is not about dates, so none of it is answered."""


def plain(text: str) -> str:
    """The text with plain apostrophes and dashes, character by character."""
    return text.translate({0x2019: "'", 0x2013: "-"})


def read(text: str) -> list[Token]:
    """The tokens of a question; NotADate when it cannot be one about dates."""
    tokens = None
    if len(text) <= TEXT_CHARS_MAX:
        tokens = tokens_of(plain(text), _TOKEN)
    if not tokens:
        raise NotADate("it holds signs that belong to no date")
    return tokens


class WrittenDates(Cursor):
    """Reads written dates from where the cursor stands, or leaves the cursor where it was.

    `is_past` makes a date without a year the latest one. `notes` collects how ambiguous dates were
    read. `how` tells how the date last read was given, and `has_year` whether with its year.
    """

    def __init__(self, tokens: Sequence[Token], ctx: Context) -> None:
        super().__init__(tokens)
        self.ctx = ctx
        self.today = ctx.now.date()
        self.is_past = False
        self.how: How = "computed"
        self.has_year = True
        self.notes: list[str] = []

    def written(self) -> date | None:
        """A date that is written out with figures or the name of its month."""
        start = self.index
        for reader in (self._written, self._numeric):
            try:
                found = reader()
            except Impossible:
                found = None
            if found is not None:
                return found
            self.index = start
        return None

    def year(self) -> int | None:
        token = self.peek()
        if token.kind == "number" and len(token.text) == 4 and int(token.text) > 0:
            self.index += 1
            return int(token.text)
        return None

    def _written(self) -> date | None:
        """As in "3 March 2024", "March 3rd, 2024", "the 3rd of March", "Friday, 3 March"."""
        self.take("the")
        if self.peek().lower in WEEKDAY_OF and self.peek(1).kind != "end":
            self.index += 1
            self.take(", the", ",", "the")
        day = self._day()
        if day is not None:
            self.take("day of", "of")
        month = MONTH_OF.get(self.peek().lower)
        if month is None:
            return None
        self.index += 1
        if self.peek().text == "." and self.peek(1).kind in ("number", "ordinal"):
            self.index += 1
        if day is None:
            self.take("the")
            day = self._day()
        if day is None:
            return None
        start = self.index
        self.take(",", "in", "of")
        year = self.year()
        if year is None:
            self.index, self.has_year = start, False
            return self._nearest(month, day)
        return _valid(year, month, day)

    def _day(self) -> int | None:
        token = self.peek()
        digits = token.text.rstrip("stndrh") if token.kind == "ordinal" else token.text
        if token.kind not in ("number", "ordinal") or len(digits) > 2:
            return None
        self.index += 1
        return int(digits)

    def _nearest(self, month: int, day: int) -> date | None:
        """The coming (or latest) such day; 29 February may be years away."""
        step = -1 if self.is_past else 1
        for year in range(self.today.year, self.today.year + 9 * step, step):
            if 1 <= year <= 9999 and day <= days_in(year, month):
                found = date(year, month, day)
                if (found - self.today).days * step >= 0:
                    return found
        return _valid(self.today.year, month, day)

    def _numeric(self) -> date | None:
        token = self.take_kind("iso")
        if token is not None:
            year, month, day = (int(part) for part in re.split(r"\D", token.text))
            return _valid(year, month, day)
        token = self.take_kind("numeric")
        if token is None:
            return None
        first, second, year = (int(part) for part in re.split(r"\D", token.text))
        is_us = self.ctx.locale.replace("_", "-").lower() in ("en-us", "us") and "." not in token.text
        month_first = second > 12 or (is_us and first <= 12)
        month, day = (first, second) if month_first else (second, first)
        if first != second and max(first, second) <= 12:
            order = "month" if month_first else "day"
            self.notes.append(f"{token.text} read with the {order} first")
        return _valid(year, month, day)

    def _holiday(self) -> date | None:
        name = self.take(*_FIXED_DAYS, "easter sunday", "easter")
        if name is None:
            return None
        year = self._which_year()
        self.has_year = year is not None
        if year is not None:
            return self.holiday(name, year)
        if not name.startswith("easter"):
            return self._nearest(*_FIXED_DAYS[name])
        year = self.today.year
        if (easter(year) >= self.today) == self.is_past:
            year += -1 if self.is_past else 1
        return self.holiday(name, year)

    def holiday(self, name: str, year: int) -> date | None:
        """The day of a yearly holiday; None when it is not known (Easter before 1583)."""
        if name.startswith("easter"):
            return easter(year) if 1583 <= year <= 9999 else None
        month_and_day = _FIXED_DAYS.get(name)
        return date(year, *month_and_day) if month_and_day else None

    def _which_year(self) -> int | None:
        """As in "in 2027", "this year": which of the yearly days is meant."""
        for words, step in (("this year", 0), ("next year", 1), ("last year", -1)):
            if self.take(words, f"of {words}"):
                return self.today.year + step
        start = self.index
        self.take("in", "of", ",")
        year = self.year()
        if year is None:
            self.index = start
        return year


def dates_in(text: str, ctx: Context) -> list[date]:
    """Every date written out in any text; only its last TEXT_CHARS_MAX characters are read."""
    tokens = [
        Token(match.lastgroup or "", match[0], match.start(), match.end())
        for match in _TOKEN.finditer(text[-TEXT_CHARS_MAX:])
        if match.lastgroup != "joint"
    ]
    reader = WrittenDates(tokens, ctx)
    found: list[date] = []
    while not reader.is_at_end:
        day = reader.written()
        if day is None:
            reader.index += 1
        else:
            found.append(day)
    return found


def _valid(year: int, month: int, day: int) -> date | None:
    """The date; None for what is no date at all, Impossible for 30 February."""
    if not (1 <= month <= 12 and 1 <= day <= 31 and year >= 1):
        return None
    if day > days_in(year, month):
        raise Impossible(f"There is no {day} {MONTHS[month - 1]} {year}.")
    return date(year, month, day)
