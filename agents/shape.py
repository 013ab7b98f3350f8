"""The shape of a request: its words in order, with what differs from one occasion to the next left open.

Two requests of one shape ask for the same things in the same words; they differ in quotes, numbers,
names, addresses, code and documents only. Those are slots, numbered by value, so that a thing said twice
is said twice in every request of the shape. When in doubt a word stays a word: a request that is not
recognised is planned anew, one that is taken for another is planned wrongly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from monai_node.agents.lexicon import (
    AUXILIARIES,
    DELIVERABLES,
    DOCUMENT_NOUNS,
    MODIFIER_VERBS,
    PREPOSITIONS,
    RELATIONAL_NOUNS,
    VERBS,
    WH_WORDS,
    vocabulary,
)
from monai_node.agents.segment import MASK, Segment

Slot = Literal["quote", "number", "name", "address", "code", "document"]


@dataclass(frozen=True, slots=True)
class Token:
    """`[start, end)` of the request, and what the shape says of it: the word, or a slot's label."""

    start: int
    end: int
    text: str
    said: str
    slot: Slot | None = None


# A token as it is found in a segment: its slot, start and end.
_Found = tuple[Slot | None, int, int]

_TOKEN = re.compile(rf"{MASK}+|\d+(?:[.,:/]\d+)*(?!\w)|[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]|_+")
_LATER_WORD = re.compile(r"(?<=[^.!?:\s]\s)[^\W\d_]{2,}")
_QUOTES = "\"'“‘«„「"
_ADDRESS = re.compile(r"(?:https?|ftp|file)://|www\.|[^\s@]+@|/[\w.-]", re.I)
# A number after one of these, or that opens a list item, says which and not how many.
_WHICH = vocabulary("""
    answer chapter example figure item line message no number option page paragraph part point question
    result row section sentence step task text #
    """)
_LIST_MARK = re.compile(r"[.):]\s")
# What may stand before a name. At the start of a sentence every word is capitalised.
_BEFORE_NAMES = (PREPOSITIONS | VERBS | vocabulary("are between is like me near or than was were")) - {"as"}
_NO_NAMES = (
    VERBS
    | MODIFIER_VERBS
    | AUXILIARIES
    | WH_WORDS
    | PREPOSITIONS
    | DOCUMENT_NOUNS
    | DELIVERABLES
    | RELATIONAL_NOUNS
    | vocabulary("""
    a all an another any both but each every everything few he her him his i its it last many me more most my
    no not one ones only or other others our result results same second she some than that the their them then
    there these they third this those three translation two us we you your yours
    """)
)


def shape(segments: Sequence[Segment]) -> str:
    """One line for all requests of a shape: boundaries in brackets, words in lower case, slots as ‹…›."""
    return " ".join(
        " ".join((f"[{piece.boundary} {piece.kind}]", *(token.said for token in tokens)))
        for piece, tokens in _read(segments)
    )


def tokens_of(segments: Sequence[Segment]) -> list[Token]:
    """The tokens of a request, in order; requests of one shape have equally many, one for one."""
    return [token for _, tokens in _read(segments) for token in tokens]


def _read(segments: Sequence[Segment]) -> Iterator[tuple[Segment, list[Token]]]:
    has_names = not _is_capitalised(segments)
    labels: dict[tuple[Slot, str], str] = {}
    counts: Counter[Slot] = Counter()
    for piece in segments:
        tokens: list[Token] = []
        for slot, start, end in _payload(piece) if piece.kind == "payload" else _words(piece, has_names):
            text = piece.text[start:end]
            said = " ".join(text.lower().split())
            if slot is not None:
                if (slot, text) not in labels:
                    counts[slot] += 1
                    labels[slot, text] = f"‹{slot} {counts[slot]}›"
                said = labels[slot, text]
            tokens.append(Token(piece.start + start, piece.start + end, text, said, slot))
        if piece is segments[-1] and len(tokens) > 1 and tokens[-1].said == ".":
            del tokens[-1]  # the last sentence is the same with its full stop and without
        yield piece, tokens


def _is_capitalised(segments: Sequence[Segment]) -> bool:
    """Whether capitals say nothing of names, as in a headline."""
    said = [
        word for piece in segments if piece.kind != "payload" for word in _LATER_WORD.findall(piece.masked)
    ]
    capitals = [word for word in said if word[0].isupper()]
    return 3 * len(capitals) > 2 * len(said) or any(word.lower() in _NO_NAMES for word in capitals)


def _payload(piece: Segment) -> Iterator[_Found]:
    text = piece.text.strip()
    if text:
        start = piece.text.index(text)
        yield "code" if text.startswith(("```", "~~~")) else "document", start, start + len(text)


def _words(piece: Segment, has_names: bool) -> Iterator[_Found]:
    """The tokens of a clause; the words of one name are one token."""
    name: tuple[int, int] | None = None
    before = ""
    for found in _TOKEN.finditer(piece.masked):
        start, end = found.span()
        text = piece.text[start:end]
        if has_names and _looks_like_name(text) and (name or before in _BEFORE_NAMES):
            name = (name[0] if name else start, end)
        else:
            if name:
                yield "name", *name
            name = None
            yield _slot_of(found, text, before), start, end
        before = text.lower()
    if name:
        yield "name", *name


def _looks_like_name(text: str) -> bool:
    return text[0].isupper() and any(map(str.islower, text)) and text.lower() not in _NO_NAMES


def _slot_of(found: re.Match[str], text: str, before: str) -> Slot | None:
    """Of what the segmenter blanks out, brackets and abbreviations are the user's own words."""
    if found[0][0] == MASK:
        if text[0] in "`":
            return "code"
        if text[0] in _QUOTES:
            return "quote"
        return "address" if _ADDRESS.match(text) else None
    if not (text[0].isdecimal() and text[-1].isdecimal()) or before in _WHICH:
        return None
    opens_item = not found.string[: found.start()].strip(" (") and _LIST_MARK.match(found.string, found.end())
    return None if opens_item else "number"
