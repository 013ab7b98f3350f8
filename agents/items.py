"""The items of a list that a task returned, and the entries of a list of what came of them. Pure.

A result is data: it is cut by its form alone, and what an item says is never read as a task.
"""

from __future__ import annotations

import json
import re
from textwrap import indent
from typing import cast

from monai_node.agents.graph import FAN_OUT_MAX

_FENCED = re.compile(r"\s*```[a-z]*\n(.*?)\n?```\s*", re.S | re.I)
_as_json = json.JSONEncoder(ensure_ascii=False).encode
_MARKED = re.compile(r"([ \t]{0,3})(?:\d{1,4}[.)]|[-*+•–])[ \t]+(.*)")


def split_items(text: str) -> list[str]:
    """The items of a JSON array; else of the numbered or bulleted lines; else the lines that are not
    empty. All of them, however many; none of them empty.

    An item of a marked list goes on in the lines up to the next mark. What stands before the first mark
    introduces the list, and what follows it after an empty line without an indent ends it.
    """
    fenced = _FENCED.fullmatch(text)
    body = fenced[1] if fenced else text
    array = _json_array(body)
    items = array if array is not None else _marked(body) or _lines(body)
    return [item.strip() for item in items if item.strip()]


def list_item(number: int, result: str) -> str:
    """One entry of a numbered list, its further lines indented under the first: entries on lines of their
    own are a text that `split_items` takes apart again."""
    mark = f"{number}. "
    return mark + indent(result.strip(), " " * len(mark)).lstrip()


def left_out_note(count: int) -> str:
    """A sentence for the end of a list, an empty line before it, about the items that were too many."""
    items = "item was" if count == 1 else "items were"
    return f"[{count} more {items} left out: {FAN_OUT_MAX} are done at most.]"


def _json_array(text: str) -> list[str] | None:
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        found: object = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    entries = cast("list[object]", found)
    return [_whole(each if isinstance(each, str) else _as_json(each)) for each in entries]


def _whole(text: str) -> str:
    """JSON may smuggle in half a surrogate pair, which neither a frame nor an event can hold."""
    return text.encode(errors="replace").decode()


def _marked(text: str) -> list[str]:
    """The items of a list of marked lines; none when there is no such line."""
    items: list[list[str]] = []
    loose: list[str] = []  # after an empty line, without indent: the item's if another one follows
    depth, is_apart = 0, False
    for line in _lines(text):
        found = _MARKED.fullmatch(line)
        if found and (not items or len(found[1]) <= depth):
            if items:
                items[-1] += loose
            depth, is_apart, loose = len(found[1]), False, []
            items.append([found[2]])
        elif not items:
            continue
        elif not line.strip():
            is_apart = True
        elif is_apart and not line[0].isspace():
            loose.append(line.strip())
        else:
            items[-1] += [*loose, line.strip()]
            loose = []
    return ["\n".join(item) for item in items]


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.split("\n")]
