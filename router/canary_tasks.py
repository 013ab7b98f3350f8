"""Canaries: small tasks whose answers are known, worded as people word such requests. Pure, seeded.

A narrow skill gets only the kind of task that its announced examples ask for, or none; a general one
gets any kind. They hold no word of a user.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import cast

from monai_node.registry.advert import Skill
from monai_node.router.verdict import Verdict

# Of a result; the answers have a few words, and whoever recites a table has not answered.
_JUDGED_CHARS_MAX = 4000
# Numbers in a result that are neither in the task nor the answer: steps of a calculation.
_OTHER_NUMBERS_MAX = 6
# Units are written rounded.
_RELATIVE_ERROR_MAX = 0.006

_PASSED = Verdict("passed")
_FAILED = Verdict("failed", "the answer to a task with a known answer is another")
_OPEN = Verdict("open")


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """The check of a canary. `is_right` is asked about a whole result's first 4,000 characters."""

    is_right: Callable[[str], bool]

    @property
    def held_chars(self) -> int | None:
        return None

    def early(self, beginning: str) -> Verdict:
        return _OPEN

    def whole(self, text: str) -> Verdict:
        return _PASSED if self.is_right(text[:_JUDGED_CHARS_MAX]) else _FAILED


@dataclass(frozen=True, slots=True)
class Canary:
    """A task to send as it is, and the check of its result."""

    text: str
    check: KnownAnswer


def canary_of(skill: Skill, random: Random) -> Canary | None:
    """A new canary for a skill; None when nothing that it does can be checked exactly."""
    kinds = _kinds_of(skill)
    if not kinds:
        return None
    asked, is_right = random.choice(kinds)(random)
    text = _as_people_write(asked, random)
    return Canary(text, KnownAnswer(lambda result: is_right(_without(text, result))))


def has_canary(skill: Skill) -> bool:
    return bool(_kinds_of(skill))


Made = tuple[str, Callable[[str], bool]]


def _kinds_of(skill: Skill) -> list[Callable[[Random], Made]]:
    if skill.is_general:
        return list(_KINDS)
    examples = [example.lower() for example in skill.examples]
    return [kind for kind, form in _KINDS.items() if any(map(form.search, examples))]


def _without(text: str, result: str) -> str:
    """What a result says beyond the task's own words: an echo says nothing."""
    return re.sub(re.escape(text), " ", result, flags=re.IGNORECASE)


def _as_people_write(text: str, random: Random) -> str:
    """A request begins in one of a few ways, with a capital or without."""
    lead = random.choice(("", "", "", "hey, ", "ok, "))
    first = text[0].lower() if lead or random.random() < 0.4 else text[0].upper()
    text = lead + first + text[1:]
    return text.rstrip("?") if random.random() < 0.3 else text


def _arithmetic(random: Random) -> Made:
    a, b, c = random.randint(12, 99), random.randint(3, 49), random.randint(2, 19)
    share, whole = random.choice((5, 10, 15, 20, 25, 30, 40, 60, 75)), random.randint(2, 45) * 20
    asked, answer = random.choice(
        (
            (f"what is {a} * {b}?", a * b),
            (f"what is {a} times {b}?", a * b),
            (f"calculate {a} + {b} * {c}", a + b * c),
            (f"how much is {a * 10} minus {b}?", a * 10 - b),
            (f"what's {a} plus {b} plus {c}?", a + b + c),
            (f"divide {a * c} by {c}", a),
            (f"how much is {share}% of {whole}?", share * whole // 100),
            (f"what is {share} percent of {whole}?", share * whole // 100),
            (f"compute ({a} + {c}) * {b}", (a + c) * b),
            (f"work out {a * b} / {b}", a),
        )
    )
    return asked, _says_number(answer, asked)


def _units(random: Random) -> Made:
    name, other, factor = random.choice(_UNITS)
    count = random.randint(3, 90)
    asked = random.choice(
        (
            f"convert {count} {name} to {other}",
            f"how many {other} is {count} {name}?",
            f"what is {count} {name} in {other}?",
            f"{count} {name} in {other}",
        )
    )
    return asked, _says_number(count * factor, asked)


_UNITS = (
    ("miles", "kilometres", 1.609344),
    ("kilometres", "miles", 1 / 1.609344),
    ("feet", "metres", 0.3048),
    ("inches", "centimetres", 2.54),
    ("kg", "pounds", 1 / 0.45359237),
    ("pounds", "kg", 0.45359237),
    ("hours", "minutes", 60.0),
    ("days", "hours", 24.0),
    ("weeks", "days", 7.0),
)


def _weekday(random: Random) -> Made:
    day = date(1960, 1, 1) + timedelta(days=random.randrange(27_000))
    written = random.choice((f"{day.day} {day:%B %Y}", f"{day:%B} {day.day}, {day.year}", f"{day:%Y-%m-%d}"))
    asked = random.choice(
        (
            f"what weekday was {written}?",
            f"what day of the week was {written}?",
            f"which weekday was {written}?",
        )
    )
    if day.year > 2025:
        asked = asked.replace(" was ", " is ")
    right = day.strftime("%A").lower()
    return asked, lambda text: {each for each in _WEEKDAYS if each in text.lower()} == {right}


_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _sorting(random: Random) -> Made:
    if random.random() < 0.5:
        items = [str(number) for number in random.sample(range(2, 400), random.randint(4, 6))]
        right, order = sorted(items, key=int), "from smallest to largest"
    else:
        items = random.sample(_WORDS, random.randint(4, 6))
        right, order = sorted(items), "alphabetically"
    listed = ", ".join(items)
    asked = random.choice((f"sort {order}: {listed}", f"put these in order {order}: {listed}"))

    def is_right(text: str) -> bool:
        words = re.findall(r"[a-z0-9]+", text.lower())
        said = [(word, at) for at, word in enumerate(words) if word in right][-len(right) :]
        # One after the other, with no more between them than the numbers of a list.
        return [word for word, _ in said] == right and said[-1][1] - said[0][1] < 3 * len(right)

    return asked, is_right


_WORDS = (
    *("anchor", "basket", "bridge", "candle", "copper", "desert", "dragon", "engine", "forest", "garden"),
    *("hammer", "island", "jacket", "kettle", "ladder", "market", "needle", "orange", "pencil", "quarry"),
    *("ribbon", "saddle", "tunnel", "urchin", "valley", "window", "yellow", "zipper"),
)


def _counting(random: Random) -> Made:
    words = random.sample(_WORDS, random.randint(4, 9))
    asked = random.choice(
        (
            f"how many words are in this list: {', '.join(words)}?",
            f"count the items: {', '.join(words)}",
            f"how many things are listed here? {', '.join(words)}",
        )
    )
    says, spelled = _says_number(len(words), asked), _NUMBER_WORDS[len(words)]
    return asked, lambda text: says(text) or re.findall(_ANY_NUMBER_WORD, text.lower()) == [spelled]


_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ANY_NUMBER_WORD = rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b"


def _extraction(random: Random) -> Made:
    who, where = random.sample(_WORDS, 2)
    email = f"{who}.{random.randint(10, 99)}@{where}.example"
    asked = random.choice(
        (
            f"give me only the email address in this text: Write to {email} by noon, not by phone.",
            f"extract the email address: our shop at {where} street has moved, ask {email} for the way",
            f"which email address is named here? For returns, use {email}, not the phone.",
        )
    )
    return asked, lambda text: set(re.findall(_EMAIL, text.lower())) == {email}


_EMAIL = r"[\w.]{1,64}@[\w.]{1,64}\.\w{2,16}"


def _as_json(random: Random) -> Made:
    item, count, price = random.choice(_WORDS), random.randint(2, 60), random.randint(3, 90)
    row: dict[str, object] = {"item": item, "count": count, "price": price}
    said = f"{count} pieces of {item} at {price} euros each"
    keys = '"item", "count" and "price"'
    asked = random.choice(
        (
            f"return a JSON object with the keys {keys}: {said}",
            f"write this as JSON with {keys}, numbers as numbers: {said}",
        )
    )
    return asked, lambda text: _first_object(text) == row


def _first_object(text: str) -> dict[str, object] | None:
    start = text.find("{")
    try:
        found: object = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def _rewriting(random: Random) -> Made:
    words = random.sample(_WORDS, random.randint(3, 5))
    plain = " ".join(words)
    asked, right = random.choice(
        (
            (f"write this in upper case: {plain}", plain.upper()),
            (f"repeat these words in reverse order: {plain}", " ".join(reversed(words))),
            (f"join these words with hyphens: {plain}", "-".join(words)),
        )
    )
    return asked, lambda text: right in " ".join(text.replace(",", " ").split())


def _says_number(answer: float, asked: str) -> Callable[[str], bool]:
    """Whether a result says this number, and not a list of guesses."""
    given = _numbers(asked)

    def is_right(text: str) -> bool:
        said = _numbers(text)
        right = {each for each in said if math.isclose(each, answer, rel_tol=_RELATIVE_ERROR_MAX)}
        return bool(right) and len(said - right - given) <= _OTHER_NUMBERS_MAX

    if float(answer).is_integer():
        return lambda text: answer in _numbers(text) and is_right(text)
    return is_right


def _numbers(text: str) -> set[float]:
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return {float(each) for each in re.findall(r"\d{1,15}(?:\.\d{1,15})?", plain)}


def _forms(*forms: str) -> re.Pattern[str]:
    return re.compile("|".join(forms))


_NEVER = re.compile(r"(?!)")
# What an example of a skill looks like that is asked for this kind of task. A form that is not here is
# for general skills alone: a narrow skill of another sort would fail or abstain.
_KINDS: dict[Callable[[Random], Made], re.Pattern[str]] = {
    _arithmetic: _forms(r"\d+ ?[*×] ?\d+", r"\d+ times \d+", r"\d+ multiplied by \d+", r"\d ?% of \d"),
    _units: _forms(r"\d (?:miles?|kilometres|kilometers|km|kg|pounds|feet) (?:to|in|into) [a-z]+"),
    _weekday: _forms(r"\b(?:what|which) (?:week)?day (?:of the week )?(?:was|is|will be) .*\d"),
    _sorting: _forms(r"\bsort (?:these|the following)\b.*(?:alphabetical|smallest|largest)"),
    _counting: _NEVER,
    _extraction: _NEVER,
    _as_json: _NEVER,
    _rewriting: _NEVER,
}
