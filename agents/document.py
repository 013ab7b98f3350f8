"""Find the text that a request brings along: after a colon, after a blank line, before the instruction.

An instruction inside it is part of it. All places are in the masked request (see `masking`).
"""

from __future__ import annotations

import re
from itertools import islice, pairwise

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
from monai_node.agents.masking import MASK

_LONG_PARAGRAPH_CHARS = 280
_COLONS_MAX = 40
_TRAILING_INSTRUCTION_CHARS = 240

# The mark of a list item: "-", "2.", "b)", "Step 3:".
_ITEM = r"(?:[-*•–—·]|\(?\d{1,2}[.)]|\(?[a-hA-H]\)|(?:step|task|part|question)\ \d{1,2}\s?[.:)])(?=\s)"
ITEM_START = re.compile(rf"\s*{_ITEM}\s*", re.I | re.X)
_QUOTE = re.compile(rf"{MASK}+[.,;!?]*[ \t]+(?=\S)")
_CLAUSE_END = re.compile(r"[.:;,!?]\s+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_REFERS_TO_DOCUMENT = re.compile(
    r"\b(?:the following|following|below|above|attached|pasted|here(?: is|'s)|this|these)\b", re.I
)
_REFERS_BACK = re.compile(r"\b(?:it|this|that|them|both|these|those|above|results?|(?:the|your) \w+)\b", re.I)
_TRAILING = re.compile(
    r"(?<=[.!?])\s+(?=(?:and then|then|after that|afterwards|finally|next|also|lastly)\b)", re.I
)


def find_document(text: str, masked: str, taken: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Where a pasted document stands: after a colon, after a blank line, or before the instruction. Only
    what stands before the first of the spans `taken`, which are payloads already, is looked at."""
    limit = taken[0][0] if taken else len(masked)
    span = (
        _after_colon(masked, limit) or _after_blank_line(masked, limit) or _before_instruction(masked, limit)
    )
    if span is None or not masked[slice(*span)].strip():
        return None
    return _only_quote(text, masked, *span)


def _only_quote(text: str, masked: str, start: int, end: int) -> tuple[int, int]:
    """A document that begins with a quote is the quote, when its line goes on after it."""
    if text[start] not in '"“«„「' or masked[start] != MASK:
        return start, end
    quote = _QUOTE.match(masked, start, end)
    return (start, quote.end()) if quote else (start, end)


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
    if not looks_pasted or _starts_instruction(following) or ITEM_START.match(following):
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
