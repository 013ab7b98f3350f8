"""Read the tasks out of what a model wrote: JSON, with or without words around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from monai_node.agents.graph import TASKS_MAX

# An answer of ANSWER_TOKENS_MAX tokens has about 4 characters in each; a peer may send more.
_ANSWER_CHARS_MAX = 16_384
_TASK_CHARS_MAX = 4_000
_STARTS_MAX = 16
_JOINERS = "\u200c\u200d"  # part of how some scripts and emoji are written
# What a model that thinks aloud thought.
_THOUGHTS = re.compile(r"\A.*</think(?:ing)?>", re.S)


@dataclass(frozen=True, slots=True)
class Wrote:
    """A task as the model wrote it; `needs` are indices counted from 0 and may lie outside the list."""

    text: str
    needs: tuple[int, ...]


def read_answer(answer: str) -> list[Wrote]:
    """The tasks of an answer, none of them empty; no tasks when it has no list of tasks, or more than
    TASKS_MAX."""
    for value in _values(_THOUGHTS.sub("", answer[:_ANSWER_CHARS_MAX])):
        listed = _listed(value)
        if len(listed) <= TASKS_MAX and (tasks := _tasks(listed)):
            return tasks
    return []


def _values(text: str) -> Iterator[object]:
    """What JSON stands in a text, from the first bracket on."""
    decoder = json.JSONDecoder()
    for found in islice(re.finditer(r"[{\[]", text), _STARTS_MAX):
        try:
            yield decoder.raw_decode(text, found.start())[0]
        except (ValueError, RecursionError):
            continue


def _listed(value: object) -> list[Any]:
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("tasks")
    return cast("list[Any]", value) if isinstance(value, list) else []


def _tasks(listed: list[Any]) -> list[Wrote]:
    """The tasks, without the empty ones; numbers are counted from 1 unless somebody needs task 0."""
    read = [(_text(entry), _numbers(entry)) for entry in listed]
    first = 0 if any(0 in needs for _, needs in read) else 1
    kept = [at for at, (text, _) in enumerate(read) if text]
    place = {at: index for index, at in enumerate(kept)}
    return [
        Wrote(read[at][0], tuple(place[need - first] for need in read[at][1] if need - first in place))
        for at in kept
    ]


def _text(entry: object) -> str:
    if isinstance(entry, dict):
        entry = cast("dict[str, object]", entry).get("text")
    if not isinstance(entry, str) or len(entry) > _TASK_CHARS_MAX:
        return ""
    # Neither half a surrogate pair nor anything else that is not to be seen reaches a prompt.
    text = " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in entry).split())
    return text if any(map(str.isalnum, text)) else ""


def _numbers(entry: object) -> list[int]:
    needs = cast("dict[str, object]", entry).get("needs") if isinstance(entry, dict) else None
    listed = cast("list[object]", needs) if isinstance(needs, list) else []
    found = [_number(need) for need in listed[:TASKS_MAX]]
    return [number for number in found if number is not None]


def _number(need: object) -> int | None:
    """3, "3" and "t3" name the third task."""
    if isinstance(need, str) and (digits := re.fullmatch(r"\D{0,8}([0-9]{1,4})", need)):
        return int(digits[1])
    return need if isinstance(need, int) and not isinstance(need, bool) else None
