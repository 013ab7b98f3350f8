"""Further requests made of the corpus: whole requests joined, tasks listed, writers without commas.

Nobody writes "bake a cake. Also, what is 7 * 8" as often as a labeller must read it, so requests are put
behind one another, whose plans do not touch. Nothing is invented but the words between.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from monai_node.agents.training.corpus import Gold, GoldTask

CHARS_MAX = 900
_JOINED_CHARS_MAX = 320

_BREAKS = (" ", " ", "\n", "\n\n", " Also, ", " Then ", " And ", " Next, ", " Oh and ", " One more thing: ")
_WEAK = (", ", " and ", ", and ", ", then ", " and then ", "; ", " - ", " also ", ", plus ", " & ", " + ")
_LEADS = (
    *(
        "Hi, ",
        "hey ",
        "Hello! ",
        "ok so ",
        "Good morning. ",
        "please ",
        "Quick one: ",
        "Two things. ",
        "Right. ",
    ),
    *("can you help? ", "Could you please ", "I need your help. ", "urgent!! ", "A few things:\n", "Today: "),
)
_TAILS = (" Thanks!", " thx", " Thank you.", " Cheers", " please", " Much appreciated!", " ta")
_MARKS = (
    ("- ",) * 20,
    ("* ",) * 20,
    tuple(f"{n}. " for n in range(1, 21)),
    tuple(f"{n}) " for n in range(1, 21)),
)
_LISTS = ("", "", "Tasks:\n", "Please do the following:\n", "To do:\n", "I need these:\n", "My list\n")


class Composer:
    """An endless supply of requests; the same seed and corpus give the same ones."""

    def __init__(self, golds: Sequence[Gold], seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311  (data, no secret)
        self._short = [gold for gold in golds if len(gold.text) <= _JOINED_CHARS_MAX]
        self._whole = [gold for gold in self._short if not _has_document(gold)]
        self._items = [gold for gold in self._whole if _is_plain(gold)]

    def vary(self, gold: Gold) -> Gold:
        """The same request, sometimes in other clothes."""
        chance = self._draw.random()
        if chance < 0.75:
            return gold
        if chance < 0.83:
            return self._polite(gold)
        if chance < 0.91:
            return _rewritten(gold, str.lower)
        return _rewritten(gold, lambda text: text.lower() if "\n" in text else _unpunctuated(text))

    def compose(self) -> Gold:
        """A new request of two or more."""
        chance = self._draw.random()
        if chance < 0.25:
            return self._listed()
        many = self._draw.choice((2, 2, 2, 3, 3, 4))
        picked = self._draw.sample(self._items if chance < 0.6 else self._whole, many - 1)
        picked.append(self._draw.choice(self._short if chance > 0.8 else self._items))
        joined = picked[0]
        for other in picked[1:]:
            joined = self._join(joined, other)
            if len(joined.text) > CHARS_MAX:
                break
        if self._draw.random() < 0.15:
            joined = self._polite(joined)
        return _rewritten(joined, str.lower) if self._draw.random() < 0.15 else joined

    def _join(self, left: Gold, right: Gold) -> Gold:
        is_weak = _is_plain(left, of_many=True) and _is_plain(right) and self._draw.random() < 0.6
        if is_weak:
            text = left.text.rstrip(" .,;!\n") if left.text.rstrip()[-1:] != "?" else left.text.rstrip()
            glue = self._draw.choice(_WEAK)
            return _behind(replace(left, text=text), glue, _lower_first(right))
        glue = self._draw.choice(_BREAKS)
        text = left.text.rstrip()
        if text[-1:].isalnum() and "\n" not in glue:
            text += self._draw.choice((".", ".", ".", ";", "..."))
        return _behind(
            replace(left, text=text), glue, right if glue[-2:-1] in ".\n: " else _lower_first(right)
        )

    def _listed(self) -> Gold:
        picked = self._draw.sample(self._items, self._draw.choice((2, 3, 3, 4, 5)))
        marks = self._draw.choice(_MARKS)
        head = self._draw.choice(_LISTS)
        listed = Gold("", head.rstrip("\n"), (), frozenset(), "composed")
        for number, gold in enumerate(picked):
            glue = ("\n" if number or head else "") + marks[number]
            listed = _behind(listed, glue, gold)
        return listed

    def _polite(self, gold: Gold) -> Gold:
        if self._draw.random() < 0.5:
            lead = self._draw.choice(_LEADS)
            return _behind(Gold("", "", (), frozenset(), ""), lead, gold)
        return replace(gold, text=gold.text + self._draw.choice(_TAILS))


def _has_document(gold: Gold) -> bool:
    return ":" in gold.text or "\n" in gold.text or "```" in gold.text


def _is_plain(gold: Gold, *, of_many: bool = False) -> bool:
    """Whether the request is nothing but its one task (or ends with the last of several)."""
    if not gold.tasks or (len(gold.tasks) > 1 and not of_many):
        return False
    said = gold.tasks[len(gold.tasks) - 1].spans[-1]
    rest = gold.text.rstrip(" .?!\n")
    is_all = of_many or gold.text.startswith(said)
    return rest.endswith(said) and is_all and len(gold.text) < _JOINED_CHARS_MAX and ":" not in gold.text


def _behind(left: Gold, glue: str, right: Gold) -> Gold:
    count = len(left.tasks)
    shifted = tuple(
        GoldTask(task.spans, tuple(other + count for other in task.depends_on)) for task in right.tasks
    )
    return Gold("", left.text + glue + right.text, left.tasks + shifted, frozenset(), "composed")


def _lower_first(gold: Gold) -> Gold:
    """The request with a small first letter, unless its first word is a name or an abbreviation."""
    if not re.match(r"[A-Z][a-z]+\b(?! [A-Z])|A ", gold.text):
        return gold
    text = gold.text[0].lower() + gold.text[1:]
    tasks = tuple(
        replace(
            task, spans=tuple(span if span in text else span[0].lower() + span[1:] for span in task.spans)
        )
        for task in gold.tasks
    )
    return replace(gold, text=text, tasks=tasks)


def _unpunctuated(text: str) -> str:
    return re.sub(r"[,;.!?]+(?=\s|$)", "", text).lower()


def _rewritten(gold: Gold, change: Callable[[str], str]) -> Gold:
    """The request with each text changed alike; as it was where a span would be lost."""
    text = change(gold.text)
    tasks = tuple(replace(task, spans=tuple(change(span) for span in task.spans)) for task in gold.tasks)
    is_sound = all(span and span in text for task in tasks for span in task.spans)
    return replace(gold, text=text, tasks=tasks) if is_sound else gold
