"""Show a request to a model without its documents, code and quotes, and put them back exactly.

A model that is shown a long text copies from it, and obeys it. So each such text is shown as a mark,
⟦document 1⟧, with no more than the beginning of its first line beside it; whoever writes with the mark
gets the text itself, character by character.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from monai_node.agents.masking import MASK
from monai_node.agents.plan import Draft
from monai_node.agents.segment import Segment

_Kind = Literal["document", "code", "quote", "link"]

# Of the first line of what a mark stands for: enough to know what it is.
_SHOWN_CHARS = 60
# How often one task may repeat a short text; a document stands in a task once. A model that writes one
# mark a thousand times must not make a text of a gigabyte.
_TIMES_MAX = 4
_QUOTES = "\"“«„「'‘"
_LINK = re.compile(r"(?:https?|ftp|file)://|www\.")
_MASKED_RUN = re.compile(f"{MASK}+")
_NAME = r"(?P<kind>document|code|quote|link)[ _#-]{0,2}(?P<number>\d{1,4})"
# Models forget what brackets they were shown, or write the beginning of the text into them.
_MARK = re.compile(rf"[⟦\[{{<(]{{1,3}}\s*{_NAME}(?:\s*:[^⟧\]\n]{{0,100}})?\s*[⟧\]}}>)]{{0,3}}", re.I)
_BARE_MARK = re.compile(rf"(?:\bthe )?\b{_NAME}\b", re.I)
_BRACKETS = str.maketrans("⟦⟧", "[]")


@dataclass(frozen=True, slots=True)
class StandIn:
    """`name` stands for `text`, which is request[start:end]."""

    name: str
    start: int
    end: int
    text: str
    is_payload: bool  # a whole segment, worked on; otherwise part of a sentence


@dataclass(frozen=True, slots=True)
class Shown:
    """A request as a model is shown it: `text` with marks, and what they stand for, in order."""

    text: str
    stand_ins: tuple[StandIn, ...]

    @property
    def spoken(self) -> str:
        """The user's own words alone."""
        text = self.text
        for each in self.stand_ins:
            text = text.replace(f"⟦{each.name}⟧", " ")
        return text

    def legend(self) -> str:
        """A line for each mark; empty when there is none."""
        return "\n".join(f"⟦{each.name}⟧ begins: {_beginning(each.text)}" for each in self.stand_ins)

    def named_in(self, written: str) -> frozenset[str]:
        """The names of the stand-ins whose mark a text holds."""
        return frozenset(name for _, name in self._marks(written) if name)

    def without_marks(self, written: str) -> str:
        return self._replaced(written, {})

    def marked(self, written: str) -> str:
        """The text with marks for what it copies exactly, of what is part of a sentence."""
        known = self.named_in(written)
        for each in self.stand_ins:
            if not each.is_payload and each.name not in known:
                written = written.replace(each.text, f"⟦{each.name}⟧", _TIMES_MAX)
        return written

    def restored(self, written: str) -> str:
        """The text with every mark replaced by what it stands for, and unknown marks by nothing. A
        single document stands at the end, where it does not cut the sentence in two."""
        texts = {each.name: each for each in self.stand_ins}
        payloads = [texts[name] for name in self.named_in(written) if texts[name].is_payload]
        if len(payloads) != 1:
            return self._replaced(written, texts)
        del texts[payloads[0].name]
        return f"{self._replaced(written, texts)}\n\n{payloads[0].text}".strip()

    def _replaced(self, written: str, texts: dict[str, StandIn]) -> str:
        times: Counter[str] = Counter()
        pieces: list[str] = []
        at = 0
        for found, name in self._marks(written):
            pieces.append(written[at : found.start()])
            at = found.end()
            stand_in = texts.get(name)
            times[name] += 1
            if stand_in is None or times[name] > (1 if stand_in.is_payload else _TIMES_MAX):
                is_spaced = not written[: found.start()].rstrip(" ") or written[found.start() - 1] == " "
                at += is_spaced and written[at : at + 1] == " "
            elif stand_in.is_payload:
                pieces.append(f"\n\n{stand_in.text}\n\n")
            else:
                pieces.append(stand_in.text)
        return "".join([*pieces, written[at:]]).strip()

    def _marks(self, written: str) -> Iterator[tuple[re.Match[str], str]]:
        """Each mark in a text, with the name it stands for; "" for a name that nothing has. What stands
        in the user's own words, such as "quote 1", is no mark."""
        known = {each.name for each in self.stand_ins}
        spoken = self.spoken.lower()
        for found in re.finditer(f"{_MARK.pattern}|{_as_second(_BARE_MARK.pattern)}", written, re.I):
            kind = found["kind"] or found["bare_kind"]
            name = f"{kind.lower()} {int(found['number'] or found['bare_number'])}"
            if found[0].lower() in spoken or (found["kind"] is None and name not in known):
                continue
            yield found, name if name in known else ""


def show(draft: Draft) -> Shown:
    """The request of a draft with marks for its payloads, quotes, code and addresses."""
    counts: Counter[str] = Counter()
    stand_ins: list[StandIn] = []
    pieces: list[str] = []
    at = 0
    for kind, start, end, is_payload in _hidden(draft):
        counts[kind] += 1
        name = f"{kind} {counts[kind]}"
        stand_ins.append(StandIn(name, start, end, draft.text[start:end], is_payload))
        pieces += [draft.text[at:start].translate(_BRACKETS), f"⟦{name}⟧"]
        at = end
    pieces.append(draft.text[at:].translate(_BRACKETS))
    return Shown("".join(pieces).strip(), tuple(stand_ins))


def _hidden(draft: Draft) -> Iterator[tuple[_Kind, int, int, bool]]:
    for piece in draft.segments:
        if piece.kind == "payload":
            start = piece.start + len(piece.text) - len(piece.text.lstrip())
            end = piece.start + len(piece.text.rstrip())
            if start < end:
                is_code = draft.text.startswith(("```", "~~~"), start)
                yield ("code" if is_code else "document"), start, end, True
        else:
            yield from _hidden_inside(piece)


def _hidden_inside(piece: Segment) -> Iterator[tuple[_Kind, int, int, bool]]:
    """Of what was masked in a clause, abbreviations, parentheses and file names stay readable."""
    for run in _MASKED_RUN.finditer(piece.masked):
        text = piece.text[run.start() : run.end()]
        start, end = piece.start + run.start(), piece.start + run.end()
        if text[0] in _QUOTES:
            yield "quote", start, end, False
        elif text[0] in "`<":
            yield "code", start, end, False
        elif _LINK.match(text):
            yield "link", start, start + len(text.rstrip(".,;:!?)")), False


def _as_second(pattern: str) -> str:
    """The pattern with other names for its groups: a name may be given once in an expression."""
    return pattern.replace("?P<", "?P<bare_")


def _beginning(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    printable = "".join(c if c.isprintable() else " " for c in line[:_SHOWN_CHARS])
    return printable.translate(_BRACKETS) + ("…" if len(text) > len(printable) else "")
