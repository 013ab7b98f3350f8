"""Cut a request into segments: clauses, list items, and payloads whose inside is never cut.

Code only cuts; what each segment is, a labeller says. It cuts more often than tasks do (at sentence
ends, commas, connectives, list marks), because a labeller can join segments and never cut them.
Any text is accepted, in any language; the segments always tile it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

from monai_node.agents.lexicon import (
    DOCUMENT_NOUNS,
    LEAD,
    MODIFIER_VERBS,
    SURE_VERBS,
    TEXT_VERBS,
    VERBS,
    core,
    is_question,
    vocabulary,
    words,
)

# What stands before a segment. From "start" to "semicolon" a reader takes a breath; the others are weak.
Boundary = Literal["start", "line", "sentence", "semicolon", "colon", "comma", "word"]
Kind = Literal["clause", "item", "payload"]

STRONG: frozenset[Boundary] = frozenset({"start", "line", "sentence", "semicolon"})

# A request longer than this is somebody's document with an instruction at one of its ends: only the
# ends are read, so that a megabyte costs no more than a page.
WINDOW_CHARS = 16_384
_HEAD_CHARS = 8_192
_TAIL_CHARS = 2_048
_LONG_PARAGRAPH_CHARS = 280
_COLONS_MAX = 40
_TRAILING_INSTRUCTION_CHARS = 240

# Stands for every masked character: private use, so neither word, space nor punctuation.
MASK = "\ue000"


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
_MASKED = re.compile(
    r"""```.{1,4000}?```
      | `[^`\n]{1,400}`
      | "[^"\n]{1,600}" | “[^”\n]{1,600}” | «[^»\n]{1,600}» | „[^“”\n]{1,600}[“”] | 「[^」\n]{1,600}」
      | (?<![\w'])'(?=\S)(?:[^'\n]{1,300}'(?=\w)){0,8}[^'\n]{1,300}'(?!\w)
      | ‘(?:[^’\n]{1,300}’(?=\w)){0,8}[^’\n]{1,300}’(?!\w)
      | \b(?:https?|ftp|file)://\S{1,2000} | \bwww\.\S{1,400} | [\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}
      | (?<!\w)/[\w.-]{1,64}(?:/[\w.-]{1,64}){1,16}
      | \((?!(?:\d{1,2}|[a-z])\))[^()\n]{1,300}\)
      | \b(?:e\.g\.|i\.e\.|etc\.(?=\s+[a-z,])|vs\.|cf\.|[ap]\.m\.(?!\s+[A-Z]))
      | \b(?:Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|No|Fig|Nr|approx|ca|Inc|Ltd|Co|Dept|Gen|Rev|Hon|Sgt)\.(?=\s)
      | \b(?:[A-Z]\.[ ]?){1,4}(?=[ ]?[A-Z][a-z])
    """,
    re.X | re.S,
)
_ITEM = r"(?:[-*•–—·]|\(?\d{1,2}[.)]|\(?[a-hA-H]\)|(?:step|task|part|question)\ \d{1,2}\s?[.:)])(?=\s)"
_ITEM_START = re.compile(rf"\s*{_ITEM}\s*", re.I | re.X)
_INLINE_NUMBER = re.compile(
    r"(?:(?<=\s)|^)(?:(?:step|task|part|question)\ )?\(?(\d)\s?[.):](?=\s+\S)", re.I | re.X
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
# Fragments that are no clause by themselves and belong to what follows them.
_ONLY_LEAD = re.compile(r"(?:first|firstly|second|third|lastly|\d{1,2})[\s.,:)]*\Z", re.I)
_CLAUSE_END = re.compile(r"[.:;,!?]\s+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_REFERS_TO_DOCUMENT = re.compile(
    r"\b(?:the following|following|below|above|attached|pasted|here(?: is|'s)|this|these)\b", re.I
)
_REFERS_BACK = re.compile(r"\b(?:it|this|that|them|both|these|those|above|results?|(?:the|your) \w+)\b", re.I)
_TRAILING = re.compile(
    r"(?<=[.!?])\s+(?=(?:and then|then|after that|afterwards|finally|next|also|lastly)\b)", re.I
)


def mask(text: str) -> str:
    """The text, equally long, with quotes, code, addresses and abbreviations blanked out."""
    return _MASKED.sub(lambda found: MASK * len(found[0]), text)


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
def _payloads(text: str, masked: str) -> list[tuple[int, int]]:
    spans = [found.span() for found in _FENCE.finditer(text)]
    spans += [found.span() for found in _BLOCK_QUOTE.finditer(text)]
    if len(text) > WINDOW_CHARS:
        spans.append((_HEAD_CHARS, len(text) - _TAIL_CHARS))
    document = _document(masked, _union(spans))
    return _union([*spans, document] if document else spans)


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _document(masked: str, taken: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Where a pasted document stands: after a colon, after a blank line, or before the instruction."""
    limit = taken[0][0] if taken else len(masked)
    span = (
        _after_colon(masked, limit) or _after_blank_line(masked, limit) or _before_instruction(masked, limit)
    )
    if span is None or not masked[slice(*span)].strip():
        return None
    return span


def _after_colon(masked: str, limit: int) -> tuple[int, int] | None:
    for found in islice(re.finditer(r":(?=\s)", masked[:limit]), _COLONS_MAX):
        if limit < len(masked) and not masked[found.end() : limit].strip():
            return None  # what it announces is a payload already
        before = max(masked.rfind(mark, 0, found.start()) for mark in ("\n", ". ", "? ", "! "))
        intro, rest = masked[before + 1 : found.start()], masked[found.end() :]
        if _introduces(intro, rest):
            start = found.end() + len(rest) - len(rest.lstrip())
            return start, _end_of_document(masked, start)
    return None


def _introduces(intro: str, rest: str) -> bool:
    said = words(core(intro)[:400])
    if not said or not rest.strip() or re.fullmatch(r"\W*(?:step|task|part|note|ps)\W*\d*\W*", intro, re.I):
        return False
    takes_text = said[0] in TEXT_VERBS or any(
        verb in TEXT_VERBS for verb, after in pairwise(said) if after in _POINTERS
    )
    names_text = said[-1] in DOCUMENT_NOUNS or any(
        noun in DOCUMENT_NOUNS and pointer in _POINTERS
        for pointer, noun in [*pairwise(said), *zip(said, said[2:], strict=False)]
    )
    points = bool(_REFERS_TO_DOCUMENT.search(intro))
    if re.search(r"\b(?:things|tasks|steps|questions|requests)\W*\Z", intro, re.I):
        return False
    if said[-1] in {"it", "this", "these", "following", "below"} and said[0] in VERBS:
        return not _starts_instruction(rest) or takes_text
    if _starts_instruction(rest):
        is_set_off = re.match(r"[ \t]*\n[ \t]*\n", rest) is not None
        return (takes_text and (names_text or points or len(said) == 1)) or (
            names_text and points and is_set_off
        )
    return takes_text or (names_text and (points or said[0] in VERBS or is_question(core(intro))))


_POINTERS = vocabulary(
    "this these the that following my our attached below each every any both his her their your"
)


def _after_blank_line(masked: str, limit: int) -> tuple[int, int] | None:
    first = _PARAGRAPH.search(masked, 0, limit)
    if first is None:
        return None
    intro, rest = masked[: first.start()], masked[first.end() :]
    if len(intro) > _LONG_PARAGRAPH_CHARS * 2 or not any(map(_starts_instruction, _CLAUSE_END.split(intro))):
        return None
    following = rest.split("\n\n", 1)[0]
    looks_pasted = len(following) > _LONG_PARAGRAPH_CHARS or _REFERS_TO_DOCUMENT.search(intro)
    if not looks_pasted or _starts_instruction(following) or _ITEM_START.match(following):
        return None
    return first.end(), _end_of_document(masked, first.end())


def _before_instruction(masked: str, limit: int) -> tuple[int, int] | None:
    breaks = list(_PARAGRAPH.finditer(masked, 0, limit))
    if not breaks or _starts_instruction(masked[:400]):
        return None
    last = breaks[-1]
    instruction = masked[last.end() : limit]
    if last.start() < _LONG_PARAGRAPH_CHARS or len(instruction) > _LONG_PARAGRAPH_CHARS:
        return None
    return (0, last.end()) if _starts_instruction(instruction) else None


def _end_of_document(masked: str, start: int) -> int:
    """The end of the text, or of the document when short instructions follow it.

    An instruction inside a document is part of the document. It counts as the user's own only at the
    very end, in a short paragraph or sentence of its own that points back ("Then translate it").
    """
    end = len(masked)
    cuts = [*_PARAGRAPH.finditer(masked, start), *_TRAILING.finditer(masked, start)]
    for found in sorted(cuts, key=lambda cut: cut.end(), reverse=True):
        tail = masked[found.end() : end]
        if len(tail) > _TRAILING_INSTRUCTION_CHARS:
            break
        has_lead = bool(re.match(r"(?:and|then|now|after|also|finally|next|last|please)", tail, re.I))
        if not _starts_instruction(tail) or not (has_lead or _REFERS_BACK.search(tail)):
            break
        end = found.end()
    return end


def _starts_instruction(text: str) -> bool:
    said = words(core(text[:400]))[:3]
    if not said:
        return False
    return (
        said[0] in SURE_VERBS
        or is_question(core(text[:400]))
        or (said[0] in VERBS | MODIFIER_VERBS and len(said) > 1 and not LEAD.fullmatch(text))
    )


# --- clauses -----------------------------------------------------------------------------------------
def _clauses(text: str, masked: str, start: int, end: int) -> list[Segment]:
    cuts: dict[int, Boundary] = {start: "start" if start == 0 else "line"}
    for found in _CUT.finditer(masked, start, end):
        boundary = _boundary(found, masked)
        if boundary and start < found.end() < end:
            cuts.setdefault(found.end(), boundary)
    for at in _inline_items(masked, start, end):
        cuts[at] = "line"
    ordered = _join_fragments(masked, sorted(cuts))
    return [
        _segment(
            text,
            masked,
            left,
            right,
            "item" if cuts[left] in {"start", "line"} and _ITEM_START.match(masked, left) else "clause",
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
