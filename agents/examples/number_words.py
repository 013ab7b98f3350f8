"""Numbers written in English words, up to 999 trillion, and the words for fractions of one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen")
_LATE_TEENS = ("seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL = {word: n for n, word in enumerate((*_DIGITS, *_TEENS, *_LATE_TEENS))} | {
    word: 10 * n for n, word in enumerate(_TENS, 2)
}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
GROUPS = {"dozen": 12, "hundred": 100} | SCALES

_ORDINALS = ["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
PARTS = (
    {"half": Fraction(1, 2), "halves": Fraction(1, 2)}
    | {name + end: Fraction(1, 4) for name in ("quarter",) for end in ("", "s")}
    | {name + end: Fraction(1, n) for n, name in enumerate(_ORDINALS, 3) for end in ("", "s")}
    | {"hundredth": Fraction(1, 100), "hundredths": Fraction(1, 100)}
)


def read_number(words: Sequence[str], start: int = 0) -> tuple[int, int] | None:
    """The number that begins at `words[start]` and the index after it; None when none begins there.

    "two hundred and five thousand" is 205000; "twenty twenty" is 20 and then another number.
    """
    total, index, ceiling, found = 0, start, 10**15, False
    while index < len(words):
        at = index
        if found and words[at] == "and":
            at += 1
        group = _below_thousand(words, at)
        if group is None:
            break
        value, after = group
        scale = SCALES.get(words[after], 1) if after < len(words) else 1
        if scale >= ceiling or (at != index and scale != 1):
            break
        total, index, ceiling, found = total + value * scale, after + (scale > 1), scale, True
        if scale == 1:
            break
    return (total, index) if found else None


def _below_thousand(words: Sequence[str], start: int) -> tuple[int, int] | None:
    word = words[start] if start < len(words) else ""
    following = words[start + 1] if start + 1 < len(words) else ""
    if word in ("a", "an"):
        if following == "hundred":
            return _after_hundred(1, words, start + 2)
        return (1, start + 1) if following in SCALES else None
    if word not in SMALL:
        return None
    value, index = SMALL[word], start + 1
    if value >= 20 and 1 <= SMALL.get(following, 0) <= 9:
        value, index = value + SMALL[following], index + 1
    if value and index < len(words) and words[index] == "hundred":
        return _after_hundred(value, words, index + 1)
    return value, index


def _after_hundred(hundreds: int, words: Sequence[str], start: int) -> tuple[int, int]:
    at = start + 1 if start < len(words) and words[start] == "and" else start
    rest = _below_thousand(words, at) if at < len(words) and words[at] in SMALL else None
    if rest is None or not 0 < rest[0] < 100:
        return hundreds * 100, start
    return hundreds * 100 + rest[0], rest[1]
