"""One task done for each item of a list: what came of each item, and the list it makes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_node.agents.graph import FAN_OUT_MAX, Task
from monai_node.agents.items import left_out_note, list_item
from monai_node.agents.report import item_failed, item_made, made, made_for_each
from monai_node.registry.errors import MonaiError
from monai_node.registry.events import MadeItem, Provenance
from monai_node.registry.wire import TEXT_CHARS_MAX
from monai_node.router.dispatch import Accepted, Dispatched, Done, Lost, Text
from monai_node.router.rank import Candidate


class FanOut:
    """Takes what becomes of each item, in whatever order, and gives the text in the order of the list.

    An item that failed is named in its place, once any other has been done; if none is, the task has
    failed. Items share what one result may hold: a longer one is cut, and ends in "…". The reader is
    told of every peer that works on the task once, and of nothing that an item shows before it is whole.
    """

    def __init__(self, task: Task, found: Sequence[str]) -> None:
        self.items = tuple(found[:FAN_OUT_MAX])
        self._task = task
        self._left_out = len(found) - len(self.items)
        self._made: dict[int, MadeItem] = {}
        self._texts: dict[int, str] = {}
        self._parts: list[Provenance] = []
        self._errors: list[MonaiError] = []
        self._calls: list[dict[str, Any]] = []
        self._taken: list[str] = []
        self._asked: dict[int, Candidate] = {}  # who has, or had, each item
        self._told: dict[str, str] = {}  # peer → the attempt that the reader knows of

    def done(self, at: int, done: Done) -> None:
        part = made(self._task, done)
        self._parts.append(part)
        self._made[at] = item_made(self.items[at], part)
        self._texts[at] = _cut(done.text, TEXT_CHARS_MAX // len(self.items))
        self._calls += done.completed.tool_calls

    def failed(self, at: int, error: MonaiError) -> None:
        self._errors.append(error)
        self._made[at] = item_failed(self.items[at], error, self._asked.get(at))
        self._texts[at] = f"[{self._made[at].item}: this could not be done: {error.message}]"

    def take(self) -> str:
        """The text that has become ready since the last call: entries of the list, none before its turn."""
        before = len(self._taken)
        while self._parts and (at := len(self._taken)) in self._texts:
            entry = list_item(at + 1, self._texts[at])
            if at + 1 == len(self.items) and self._left_out:
                entry += f"\n\n{left_out_note(self._left_out)}"
            self._taken.append(entry)
        gap = "\n" if 0 < before < len(self._taken) else ""
        return gap + "\n".join(self._taken[before:])

    def note(self, at: int, event: Dispatched | Accepted | Text | Lost) -> bool:
        """Take what happens to one item; whether the reader hears of it."""
        match event:
            case Dispatched(attempt=attempt, candidate=candidate):
                self._asked[at] = candidate
                return self._told.setdefault(candidate.peer, attempt) == attempt
            case Accepted(attempt=attempt):
                return attempt in self._told.values()
            case Text() | Lost():
                return False

    @property
    def error(self) -> MonaiError | None:
        """Why the task has failed; None when at least one item is done."""
        return None if self._parts else self._errors[0]

    @property
    def result(self) -> str:
        """The whole list, as `take` has given it."""
        return "\n".join(self._taken)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return list(self._calls)

    def provenance(self, seconds: float) -> Provenance:
        """Who made what, when every item has ended and one at least is done."""
        entries = [self._made[at] for at in range(len(self.items))]
        return made_for_each(self._task, entries, self._parts, seconds)


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
