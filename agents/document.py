"""Find the text that a request brings along: after a colon, after a blank line, before the instruction.

An instruction inside it is part of it. All places are in the masked request (see `masking`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise

from monai_node.agents.inline import end_of_inline, starts_instruction, takes_over
from monai_node.agents.lexicon import (
    DOCUMENT_NOUNS,
    TEXT_VERBS,
    VERBS,
    core,
    is_question,
    vocabulary,
    words,
)
from monai_node.agents.masking import MASK

Span = tuple[int, int]

_LONG_PARAGRAPH_CHARS = 280
_COLONS_MAX = 40
_DOCUMENTS_MAX = 8
_TRAILING_INSTRUCTION_CHARS = 240
_PARAGRAPH_READ_CHARS = 2_000

# The mark of a list item: "-", "2.", "b)", "Step 3:".
_ITEM = r"(?:[-*•–—·]|\(?\d{1,2}[.)]|\(?[a-hA-H]\)|(?:step|task|part|question)\ \d{1,2}\s?[.:)])(?=\s)"
ITEM_START = re.compile(rf"\s*{_ITEM}\s*", re.I | re.X)
_QUOTE = re.compile(rf"({MASK}+)([.,;!?]*)([ \t]+|[ \t]*\n\s*)(?=\S)")
_CLAUSE_END = re.compile(r"[.:;,!?]\s+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_REFERS_TO_DOCUMENT = re.compile(
    r"\b(?:the following|following|below|above|attached|pasted|here(?: is|'s)|this|these)\b", re.I
)
_REFERS_BACK = re.compile(r"\b(?:it|this|that|them|both|these|those|above|results?|(?:the|your) \w+)\b", re.I)
_TRAILING = re.compile(
    r"(?<=[.!?])\s+(?=(?:and then|then|after that|afterwards|finally|next|also|lastly)\b)", re.I
)
# How an e-mail, a patch, a query, a trace, a page, a script and a command line begin.
_COMMANDS = "awk|cat|curl|docker|find|git|grep|kubectl|ls|sed|ssh|sudo|tar"
_HEADERS = r"(?:(?:To|Date|Sent|Cc): [^\n]{0,400}\n){0,4}"
_PASTED = re.compile(
    r"\s*(?:"
    # With a sender: "To: helpdesk, Subject: …" is how some people write to us.
    rf"{_HEADERS}From: [^\n]{{0,400}}\n{_HEADERS}Subject: |Subject: [^\n]{{0,400}}\n{_HEADERS}From: "
    r"|diff --git |--- \S{1,400}[^\n]{0,80}\n\+\+\+ |@@ -\d"
    r"|SELECT\s[^\n;]{1,400}\sFROM\s|INSERT INTO\s|CREATE TABLE\s"
    r"|Traceback \(most recent |#!/|<!DOCTYPE\s|<html\b"
    rf"|(?:{_COMMANDS}) [^\n]{{0,200}} -{{1,2}}[A-Za-z][^\n]{{0,400}}?(?: \|| &&|;)\s"
    ")"
)


def find_documents(text: str, masked: str, taken: Sequence[Span]) -> list[Span]:
    """Where pasted documents stand: after a colon, after a blank line, or before the instruction. Only
    what stands before the first of the spans `taken`, which are payloads already, is looked at. A second
    one may be announced after the end of the first."""
    limit = taken[0][0] if taken else len(masked)
    span = (
        _from_the_start(text, masked, limit)
        or _after_colon(masked, 0, limit)
        or _after_blank_line(masked, limit)
    )
    span = span or _before_instruction(masked, limit)
    found: list[Span] = []
    while span is not None and masked[slice(*span)].strip():
        found.append(_only_quote(text, masked, *span))
        at = found[-1][1]
        span = _after_colon(masked, at, limit) if at < limit and len(found) < _DOCUMENTS_MAX else None
    return found


def _from_the_start(text: str, masked: str, limit: int) -> Span | None:
    """A request that opens as an e-mail, a patch, a query or a command does is that, up to the instructions
    at its end."""
    return (0, _end_of_document(masked, 0)) if limit and _PASTED.match(text, 0, limit) else None


def _only_quote(text: str, masked: str, start: int, end: int) -> Span:
    """A document that begins with a quote is the quote, when the user's words go on after it."""
    if text[start] not in '"“«„「`' or masked[start] != MASK:
        return start, end
    quote = _QUOTE.match(masked, start, end)
    if quote is None or text[quote.end(1) - 2] == ",":  # "Hello," said Bob: it quotes somebody itself
        return start, end
    if text[start] == "`" and not quote[2]:  # prose that begins with a piece of code
        return start, end
    if "\n" in quote[3] and not starts_instruction(masked[quote.end() : quote.end() + 400]):
        return start, end
    return start, quote.end()


def _after_colon(masked: str, at: int, limit: int) -> Span | None:
    for found in islice(re.finditer(r":(?=\s)", masked[at:limit]), _COLONS_MAX):
        colon, after = at + found.start(), at + found.end()
        if limit < len(masked) and not masked[after:limit].strip():
            return None  # what it announces is a payload already
        before = max(masked.rfind(mark, at, colon) for mark in ("\n", ". ", "? ", "! "))
        intro, rest = masked[max(at, before + 1) : colon], masked[after:]
        if _introduces(intro, rest):
            start = after + len(rest) - len(rest.lstrip())
            end = _end_of_document(masked, start)
            return start, end if "\n" in masked[after:start] else end_of_inline(masked, start, end)
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
        return not starts_instruction(rest) or takes_text
    if starts_instruction(rest):
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
    if len(intro) > _LONG_PARAGRAPH_CHARS * 2 or not any(map(starts_instruction, _CLAUSE_END.split(intro))):
        return None
    following = rest.split("\n\n", 1)[0]
    looks_pasted = len(following) > _LONG_PARAGRAPH_CHARS or _REFERS_TO_DOCUMENT.search(intro)
    if not looks_pasted or starts_instruction(following) or ITEM_START.match(following):
        return None
    return first.end(), _end_of_document(masked, first.end())


def _before_instruction(masked: str, limit: int) -> tuple[int, int] | None:
    breaks = list(_PARAGRAPH.finditer(masked, 0, limit))
    if not breaks or starts_instruction(masked[:400]):
        return None
    last = breaks[-1]
    instruction = masked[last.end() : limit]
    if last.start() < _LONG_PARAGRAPH_CHARS or len(instruction) > _LONG_PARAGRAPH_CHARS:
        return None
    return (0, last.end()) if starts_instruction(instruction) else None


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
        paragraph = max(start, masked.rfind("\n\n", start, found.end()), found.end() - _PARAGRAPH_READ_CHARS)
        if takes_over(masked[paragraph:end]):
            break
        has_lead = bool(re.match(r"(?:and|then|now|after|also|finally|next|last|please)", tail, re.I))
        if not starts_instruction(tail) or not (has_lead or _REFERS_BACK.search(tail)):
            break
        end = found.end()
    return end
