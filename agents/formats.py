"""Results in a form that a machine reads: JSON, with or without a schema, and cron expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from monai_node.agents.clauses import OPEN, PASSED, SEARCHED_CHARS_MAX, failed
from monai_node.router.verdict import Verdict

_FENCED = re.compile(r"^[ \t]*```[a-z0-9]*[ \t]*\n(.*?)^[ \t]*```", re.M | re.S | re.I)
_NO_JSON = "JSON was asked for, the result is none"
_WRONG_SHAPE = "the JSON of the result does not have the shape that was asked for"
# Of a JSON value and its schema together; more is taken as right.
_STEPS_MAX = 5_000
_DEPTH_MAX = 64

_CRON_NAMES = re.compile(r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly|reboot)\b")
_CRON_PART = re.compile(
    r"(\*|\?|h|lw?(?:-\d{1,2})?|(?P<first>[0-9a-z]{1,3})(?:-(?P<last>[0-9a-z]{1,3}))?)(?:/(?P<step>\d{1,2}))?"
)
# What a scheduler or another puts after a day, the nth, the last, the nearest weekday: "MON#1", "5L", "15W".
_CRON_AFTER = re.compile(r"(?<=[0-9a-z])(?:#[1-5]|(?<=\d)[lw])\Z")
# Marks around an expression, and its own stars when they are escaped, in bold or in a table.
_CRON_MARKS = str.maketrans(dict.fromkeys("`\"'()|[]", " ") | {"\\": ""})
_BOLD = re.compile(r"\*\*(?=[^\s*])|(?<=[^\s*])\*\*")
_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_WORDS = {
    name: number
    for names in ("jan feb mar apr may jun jul aug sep oct nov dec", "mon tue wed thu fri sat sun")
    for number, name in enumerate(names.split(), 1)
}


@dataclass(frozen=True, slots=True)
class IsJson:
    """JSON, of one kind where that was said. `is_strict`: nothing stands around it, and it has the shape
    of `schema`; else it may stand in a sentence or a code fence."""

    kind: type[dict[str, Any]] | type[list[Any]] | None = None
    is_strict: bool = False
    schema: dict[str, Any] | None = field(default=None, hash=False)
    held_chars: int | None = None

    def early(self, beginning: str) -> Verdict:
        return OPEN

    def whole(self, text: str) -> Verdict:
        if len(text) >= SEARCHED_CHARS_MAX:
            return OPEN
        found = False
        for part in [text] if self.is_strict else _json_parts(text):
            try:
                value: object = json.loads(part)
            except (ValueError, RecursionError):
                continue
            found = True
            if self.kind is None or type(value) is self.kind:
                return PASSED if self.schema is None or fits(value, self.schema) else failed(_WRONG_SHAPE)
        return failed(_WRONG_SHAPE if found else _NO_JSON)


@dataclass(frozen=True, slots=True)
class IsCron:
    """A cron expression of five fields stands in it, or one of its names for them."""

    held_chars: int | None = None

    def early(self, beginning: str) -> Verdict:
        return PASSED if has_cron(beginning) else OPEN

    def whole(self, text: str) -> Verdict:
        if _CRON_NAMES.search(text) or has_cron(text):
            return PASSED
        return failed("a cron expression was asked for, the result has none with five fields in range")


def _json_parts(text: str) -> list[str]:
    """The places where the JSON of a result may stand: all of it, a fence, from first to last bracket."""
    parts = [text, *_FENCED.findall(text)[:8]]
    for first, last in ("{}", "[]"):
        start, end = text.find(first), text.rfind(last)
        if 0 <= start < end:
            parts.append(text[start : end + 1])
    return parts


def has_cron(text: str) -> bool:
    """Whether five words of a line, one after the other, are the fields of a cron expression."""
    for line in text.split("\n"):
        words = _BOLD.sub(" ", line.casefold().translate(_CRON_MARKS)).split()
        for at in range(len(words) - 4):
            fields = words[at : at + 5]
            fields[4] = fields[4].rstrip(".,;:")
            if all(map(_is_cron_field, fields, _CRON_RANGES)):
                return True
    return False


def _is_cron_field(text: str, limits: tuple[int, int]) -> bool:
    return len(text) <= 100 and all(_is_cron_part(part, *limits) for part in text.split(","))


def _is_cron_part(text: str, low: int, high: int) -> bool:
    found = _CRON_PART.fullmatch(_CRON_AFTER.sub("", text))
    if found is None:
        return False
    ends = [found[name] for name in ("first", "last") if found[name] is not None]
    numbers = [int(end) if end.isdecimal() else _CRON_WORDS.get(end, -1) for end in ends]
    if len(ends) > 1 and ends[0] == "sun":
        numbers[0] = 0
    return all(low <= number <= high for number in numbers) and numbers == sorted(numbers)


# --- the part of JSON Schema that callers use ---------------------------------------------------------
_TYPES: dict[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}


def fits(value: object, schema: object) -> bool:
    """Whether a JSON value has the shape that a schema says, as far as `type`, `enum`, `const`,
    `properties`, `required`, `additionalProperties: false`, `items`, `anyOf`, `oneOf` and `allOf` say it.
    What else it says, and what is too large to be looked at, is taken as fulfilled."""
    return _Shape().fits(value, schema, 0)


class _Shape:
    def __init__(self) -> None:
        self._steps = 0

    def fits(self, value: object, schema: object, depth: int) -> bool:
        self._steps += 1
        if not isinstance(schema, dict) or self._steps > _STEPS_MAX or depth > _DEPTH_MAX:
            return schema is not False
        said = cast("dict[str, object]", schema)
        if not _is_of_type(value, said.get("type")):
            return False
        if "const" in said and value != said["const"]:
            return False
        choices = _listed(said.get("enum"))
        self._steps += len(choices)
        if choices and value not in choices:
            return False
        return self._fits_inside(value, said, depth) and self._fits_several(value, said, depth)

    def _fits_inside(self, value: object, said: dict[str, object], depth: int) -> bool:
        if isinstance(value, list):
            items = said.get("items", True)
            return all(self.fits(each, items, depth + 1) for each in cast("list[object]", value))
        if not isinstance(value, dict):
            return True
        members = cast("dict[str, object]", value)
        properties = cast("dict[str, object]", _if_dict(said.get("properties")))
        names = [name for name in _listed(said.get("required")) if isinstance(name, str)]
        self._steps += len(names) + len(properties)
        if not all(name in members for name in names):
            return False
        if said.get("additionalProperties") is False and not members.keys() <= properties.keys():
            return False
        return all(
            self.fits(members[name], inner, depth + 1)
            for name, inner in properties.items()
            if name in members
        )

    def _fits_several(self, value: object, said: dict[str, object], depth: int) -> bool:
        rules: Sequence[tuple[str, Callable[[list[bool]], bool]]] = (
            ("anyOf", any),
            ("oneOf", any),
            ("allOf", all),
        )
        for name, rule in rules:
            schemas = said.get(name)
            if isinstance(schemas, list) and schemas:
                listed = cast("list[object]", schemas)
                if not rule([self.fits(value, each, depth + 1) for each in listed]):
                    return False
        return True


def _is_of_type(value: object, kind: object) -> bool:
    kinds = cast("list[object]", kind) if isinstance(kind, list) else [kind]
    tests = [_TYPES[each] for each in kinds if isinstance(each, str) and each in _TYPES]
    return not tests or any(test(value) for test in tests)


def _listed(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _if_dict(value: object) -> dict[Any, Any]:
    return cast("dict[Any, Any]", value) if isinstance(value, dict) else {}
