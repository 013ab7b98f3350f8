"""Which tasks are to be done once for each item of an earlier result: "…, and write a line about each"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai_node.agents.lexicon import words
from monai_node.agents.link import Link, Step

# "each" and "each of them" by themselves mean what was made before; "each chapter" only if that was.
_EACH = re.compile(
    r"\b(?:each|every) (?:one|of (?:them|these|those))\b"
    r"|\b(?:about|for|from|into|of|on|to|under|with) each(?=\s*(?:[.,;:!?)]|\Z))",
    re.I,
)
_EACH_NOUN = re.compile(r"\b(?:each|every)(?: single)? ([a-z]{3,})\b", re.I)


def each_of(steps: Sequence[Step], links: Sequence[Link]) -> list[int | None]:
    """For each step the one that makes its list; None for a step that is done once.

    Only a step that depends on exactly one other may be spread out, and only if its words ask for it:
    "each" of nothing else, or of a thing that the other step speaks of ("name three rivers", "each
    river"). What a result holds is not known yet; one that is no list gives a single item.
    """
    return [_maker(step, found, steps) for step, found in zip(steps, links, strict=True)]


def _maker(step: Step, found: Link, steps: Sequence[Step]) -> int | None:
    if len(found.depends_on) != 1:
        return None
    (other,) = found.depends_on
    if _EACH.search(step.text):
        return other
    made = {_singular(word) for word in words(steps[other].text)}
    named = {_singular(noun.lower()) for noun in _EACH_NOUN.findall(step.text)}
    return other if named & made else None


def _singular(noun: str) -> str:
    for ending, instead in (
        ("ies", "y"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("xes", "x"),
        ("ss", "ss"),
        ("s", ""),
    ):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + instead
    return noun
