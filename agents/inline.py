"""Find where a document that is given in the middle of a line ends: "Total these: 4, 9, 2. Then halve that."

On one line nothing but the words tells what is brought along from what is asked next. Two kinds of
sentence are believed to be the user's: an instruction or question after bare data, which does not go on in
sentences; and instructions up to the end, the first of which has the document as its object ("Translate it
into Thai."). Whatever else stands there belongs to the document, and so does a call to forget what was
said: it is never the user's.
"""

from __future__ import annotations

import re

from monai_node.agents.lexicon import (
    AUXILIARIES,
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

_DATA_CHARS_MAX = 400
_DATA_WORDS_MAX = 6
_TAIL_CHARS_MAX = 240
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]{0,2}[ \t]+(?=\S)")
_ITEM_END = re.compile(r"[,;]\s+")
_GREETS = re.compile(r"\W*(?:dear|hello|hi|hey|sir|madam|to whom|good (?:morning|afternoon|evening))\b", re.I)
# Words of a sentence that says something, and not of a list of things.
_SAYING = AUXILIARIES | vocabulary("he i it she that the they this we who you your")
# What a recipe or a manual tells its reader to do with his hands.
_BY_HAND = vocabulary("""
    add arrange assemble bake combine cook cut drill fold go insert install mix open place press pull push put
    remove replace rotate separate set start stir stop store take turn wrap
    """)
_TAKES_OVER = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.!?\n]{0,40}"
    r"\b(?:above|all|before|earlier|everything|instructions?|previous|prior|prompts?|rules|said|text)\b"
    r"|\b(?:new|real|actual|updated|system) (?:task|instructions?|prompt)\b",
    re.I,
)
# "From your answer, …", "For anything over ten, …": says of what, before the verb.
_OPENER = re.compile(
    r"(?:from|using|with|based on|given|for|out of|if|once|after)\b[^,.!?\n]{2,60},\s+", re.I
)
_OBJECT = re.compile(
    r"\w+ (?:(?:me|us|up) )?(?:it|this|that|them|these|those|both|each"
    r"|(?:the|that|your) (?:total|sum|result|answer|summary|translation|list|rest|two))\b",
    re.I,
)
_OBJECT_VERBS = TEXT_VERBS | vocabulary("""
    average chart compare count double halve list merge name plot rank reverse round sort split sum tabulate
    tell total turn
    """)


def end_of_inline(masked: str, start: int, end: int) -> int:
    """Where the document masked[start:end] ends: `end`, or where the user's own words begin on its line."""
    inside = masked[start:end]
    if "\n" in inside.rstrip() or _GREETS.match(inside) or takes_over(inside):
        return end
    for found in _SENTENCE_END.finditer(masked, start, end):
        document, tail = masked[start : found.start()], masked[found.end() : end]
        if starts_instruction(document):
            return end  # a document of instructions
        if (_is_data(document) and _is_asked(tail)) or _is_all_asked(tail):
            return found.end()
    return end


def takes_over(text: str) -> bool:
    """Whether a text calls its reader to forget what was asked: nothing in it is the user's."""
    return _TAKES_OVER.search(text) is not None


def starts_instruction(text: str) -> bool:
    """Whether a text begins with an imperative or a question, however politely."""
    said = words(core(text[:400]))[:3]
    if not said:
        return False
    return (
        said[0] in SURE_VERBS
        or is_question(core(text[:400]))
        or (said[0] in VERBS | MODIFIER_VERBS and len(said) > 1 and not LEAD.fullmatch(text))
    )


def _is_data(document: str) -> bool:
    """Whether it is one number or name after the other: "consult 48, travel 12", "137"."""
    if len(document) > _DATA_CHARS_MAX:
        return False
    items = [words(item) for item in _ITEM_END.split(document.rstrip(".!? "))]
    if any(len(item) > _DATA_WORDS_MAX or not _SAYING.isdisjoint(item) for item in items):
        return False
    has_number = any(char.isdigit() for char in document)
    return has_number or len(items) > 2


def _is_asked(tail: str) -> bool:
    sentence = _without_opener(tail)
    said = words(core(sentence[:400]))
    if not said or said[0] in _BY_HAND:
        return False
    return said[0] in _OBJECT_VERBS or starts_instruction(sentence)


def _is_all_asked(tail: str) -> bool:
    """Whether it is nothing but instructions, and the first has what stands before it as its object."""
    if len(tail) > _TAIL_CHARS_MAX or not all(map(starts_instruction, _SENTENCE_END.split(tail))):
        return False
    asked = core(_without_opener(tail))
    return _OBJECT.match(asked) is not None and words(asked)[0] in _OBJECT_VERBS


def _without_opener(tail: str) -> str:
    lead = LEAD.match(tail[:_TAIL_CHARS_MAX])
    rest = tail[lead.end() if lead else 0 :]
    opener = _OPENER.match(rest)
    return rest[opener.end() :] if opener else tail
