"""Cut a request into segments: clauses, list items, and payloads whose inside is never cut.

Code only cuts; what each segment is, a labeller says. It cuts more often than tasks do (at sentence
ends, commas, connectives, list marks), because a labeller can join segments and never cut them.
Any text is accepted, in any language; the segments always tile it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from monai_node.agents.document import ITEM_START, Span, find_documents
from monai_node.agents.lexicon import LEAD, SURE_VERBS, vocabulary
from monai_node.agents.masking import MASK, mask

# What stands before a segment. From "start" to "semicolon" a reader takes a breath; the others are weak.
# A "soft" one is only a place where a task may start ("/", a verb in a text without commas, another
# language's "and"): labellers that have learnt to read look there, the rules do not.
Boundary = Literal["start", "line", "sentence", "semicolon", "colon", "comma", "word", "soft"]
Kind = Literal["clause", "item", "payload"]

STRONG: frozenset[Boundary] = frozenset({"start", "line", "sentence", "semicolon"})

# A request longer than this is somebody's document with an instruction at one of its ends: only the
# ends are read, so that a megabyte costs no more than a page.
WINDOW_CHARS = 16_384
_HEAD_CHARS = 8_192
_TAIL_CHARS = 2_048


@dataclass(frozen=True, slots=True)
class Segment:
    """`text` is exactly `request[start:end]`; in `masked` quotes, code and addresses are blanked out,
    character by character, so that rules do not mistake them for the user's own words."""

    start: int
    end: int
    text: str
    masked: str
    kind: Kind
    boundary: Boundary

    @property
    def is_strong(self) -> bool:
        return self.kind == "item" or self.boundary in STRONG


_FENCE = re.compile(
    r"^[ \t]{0,3}(?P<mark>```|~~~)[^\n]*\n.*?(?:^[ \t]{0,3}(?P=mark)[^\n]*(?:\n|\Z)|\Z)", re.M | re.S
)
_BLOCK_QUOTE = re.compile(r"(?:^[ \t]{0,3}>[^\n]*(?:\n|\Z))+", re.M)
_INLINE_NUMBER = re.compile(
    r"(?:(?<=\s)|^)(?:(?:step|task|part|question)\ )?\(?(\d)\s?[.):](?=[ \t]+\S)", re.I | re.X
)
_CONNECTIVES = (
    "and also|and then|and finally|and lastly|and|then|also|plus|but|after that|afterwards|finally"
    "|lastly|next|meanwhile|in the meantime|separately|followed by|as well as|while|once|before|after"
)
_CUT = re.compile(
    rf"""(?<!\s)(?P<line>\s*\n\s*)
       | (?<=[.!?…])(?P<sentence>["'”’»)\]*_]{{0,4}}\s+)
       | (?<=[。！？])(?P<cjk>\s*)
       | (?<=;)(?P<semicolon>\s+)
       | (?<=:)(?P<colon>\s+)
       | (?<=,)(?P<comma>\s+)
       | (?<=\s)(?P<dash>[–—-]\s+)
       | (?<!\s)(?<!\bthe)(?<!\ba)(?<!\bmy)(?<!\bi)(?<!\bwe)(?<!\bcan)(?P<word>\s+)(?=(?:{_CONNECTIVES})\b)
    """,
    re.I | re.X,
)
_OTHER_CONNECTIVES = (
    "und|dann|danach|anschließend|außerdem|et|puis|ensuite|y|luego|después|además|e|poi|inoltre|depois|então"
    "|och|sedan|og|så|deretter|derefter|en|daarna|vervolgens|oraz|potem|następnie|ja|sitten|és|majd|și|apoi"
    "|и|а также|затем|потом|та|потім|και|μετά|ve|sonra|ayrıca|dan|lalu|kemudian|और|फिर|ثم|وبعدها"
)
_SOFT = re.compile(
    rf"""(?<=[.!?…])["'”’»)\]*_]{{0,4}}\s+
       | (?<=[؟۔।؛،])\s*
       | (?<=[，、；：])
       | (?<=\s)(?:[/+&|>→⇒]|[-=]{{1,2}}>)\s+(?!\d)
       | (?<=[^\s,;:.!?])\s+(?=(?:{_OTHER_CONNECTIVES}|so)\b)
       | (?<={MASK})\s+
    """,
    re.I | re.X,
)
_QUOTE_ENDS = "\"'”’»」"
# In a long stretch without a comma a task may start at a verb or a question word…
_STRETCH_WORDS_MIN = 6
_CLAUSE_WORDS_MIN = 3
_STARTERS = SURE_VERBS | vocabulary("""
    what what's whats how how's hows who who's whos when where which why is are does do can could please i
    check plan fix turn put pick draft find name work figure set book answer also
    """)
# …unless one of these stands before it.
_GOVERNORS = vocabulary("""
    to not don't never can could will would should must may might i you we they he she it that which who and
    or but the a an my your our his her their this these those of in on for with about please me us help
    what how when where why if whether is are was were be been does did let
    """)
# Fragments that are no clause by themselves and belong to what follows them.
_ONLY_LEAD = re.compile(r"(?:first|firstly|second|third|lastly|\d{1,2})[\s.,:)]*\Z", re.I)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def without_soft(segments: Sequence[Segment]) -> list[Segment]:
    """The same text in fewer segments: none begins at a soft boundary."""
    kept: list[Segment] = []
    for piece in segments:
        if piece.boundary == "soft" and kept:
            before = kept[-1]
            text, masked = before.text + piece.text, before.masked + piece.masked
            kept[-1] = replace(before, end=piece.end, text=text, masked=masked)
        else:
            kept.append(piece)
    return kept


def segment(text: str) -> list[Segment]:
    """The segments of a request, in order; together they are the whole text. Empty for no text."""
    masked = _blank_middle(text)
    payloads = _payloads(text, masked)
    found: list[Segment] = []
    at = 0
    for start, end in [*payloads, (len(text), len(text))]:
        if at < start:
            found += _clauses(text, masked, at, start)
        if start < end:
            found.append(_segment(text, masked, start, end, "payload", "line"))
        at = end
    return found


def _blank_middle(text: str) -> str:
    if len(text) <= WINDOW_CHARS:
        return mask(text)
    middle = len(text) - _HEAD_CHARS - _TAIL_CHARS
    return mask(text[:_HEAD_CHARS]) + MASK * middle + mask(text[-_TAIL_CHARS:])


def _segment(text: str, masked: str, start: int, end: int, kind: Kind, boundary: Boundary) -> Segment:
    return Segment(start, end, text[start:end], masked[start:end], kind, boundary)


# --- payloads: what the request brings along -----------------------------------------------------------
def _payloads(text: str, masked: str) -> list[Span]:
    spans = [found.span() for found in _FENCE.finditer(text)]
    spans += [found.span() for found in _BLOCK_QUOTE.finditer(text)]
    if len(text) > WINDOW_CHARS:
        spans.append((_HEAD_CHARS, len(text) - _TAIL_CHARS))
    return _union([*spans, *find_documents(text, masked, _union(spans))])


def _union(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


# --- clauses -----------------------------------------------------------------------------------------
def _clauses(text: str, masked: str, start: int, end: int) -> list[Segment]:
    cuts: dict[int, Boundary] = {start: "start" if start == 0 else "line"}
    for found in _CUT.finditer(masked, start, end):
        boundary = _boundary(found, masked)
        if boundary and start < found.end() < end:
            cuts.setdefault(found.end(), boundary)
    for at in _inline_items(masked, start, end):
        cuts[at] = "line"
    for found in _SOFT.finditer(masked, start, end):
        if start < found.end() < end and _is_soft(found, text):
            cuts.setdefault(found.end(), "soft")
    for left, right in pairwise([*sorted(cuts), end]):
        for at in _starters(masked, left, right):
            cuts[at] = "soft"
    ordered = _join_fragments(masked, sorted(cuts))
    return [
        _segment(
            text,
            masked,
            left,
            right,
            "item" if cuts[left] in {"start", "line"} and ITEM_START.match(masked, left) else "clause",
            cuts[left],
        )
        for left, right in pairwise([*ordered, end])
    ]


def _boundary(found: re.Match[str], masked: str) -> Boundary | None:
    kind = found.lastgroup
    if "\n" in found[0]:
        return "line"
    if kind == "sentence":
        after = masked[found.end() : found.end() + 1]
        # ". lower" is an abbreviation nobody listed, unless the writer shuns capitals altogether.
        if masked[found.start() - 1] == "." and after.islower() and not masked.islower():
            return None
        return "sentence"
    names: dict[str, Boundary] = {
        "cjk": "sentence",
        "semicolon": "semicolon",
        "colon": "colon",
        "word": "word",
    }
    return names.get(kind or "", "comma")


def _is_soft(found: re.Match[str], text: str) -> bool:
    """After a quote only where its last sentence ended inside it and the next one begins ("Go!" Hit me)."""
    at = found.start()
    if found.string[at - 1] != MASK:
        return True
    return text[at - 2] in ".!?…" and text[at - 1] in _QUOTE_ENDS and not text[found.end()].islower()


def _starters(masked: str, start: int, end: int) -> list[int]:
    """Where a task may start inside a stretch that its writer did not punctuate."""
    said = list(_WORD.finditer(masked, start, end))
    if len(said) < _STRETCH_WORDS_MIN:
        return []
    places: list[int] = []
    last = 0
    for number in range(_CLAUSE_WORDS_MIN, len(said) - 1):
        before, word = said[number - 1][0].lower(), said[number][0].lower()
        if number - last >= _CLAUSE_WORDS_MIN and word in _STARTERS and before not in _GOVERNORS:
            places.append(said[number].start())
            last = number
    return places


def _inline_items(masked: str, start: int, end: int) -> list[int]:
    """Starts of "1) … 2) … 3) …" inside a line: at least two numbers, counting up from one."""
    places: list[int] = []
    for found in _INLINE_NUMBER.finditer(masked, start, end):
        if int(found[1]) == len(places) + 1:
            places.append(found.start())
    return places if len(places) > 1 else []


def _join_fragments(masked: str, cuts: list[int]) -> list[int]:
    """Drop the cut after a fragment that has no words of its own: "2.", "and", "First,"."""
    kept = cuts[:1]
    for left, right in pairwise(cuts):
        fragment = masked[left:right]
        lead = LEAD.match(fragment)
        if not (_ONLY_LEAD.match(fragment.strip()) or (lead and lead.end() == len(fragment))):
            kept.append(right)
    return kept
