"""How much a task asks for: three bullet points, five ideas, two sentences, at most fifty words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from monai_node.agents.clauses import AtMost, Clause, Items

_COUNT_MAX = 40

_COUNTS = {
    word: number
    for number, words in enumerate(
        (
            "two zwei deux dos",
            "three drei trois tres",
            "four vier quatre cuatro",
            "five fünf cinq cinco",
            "six sechs seis",
            "seven sieben sept siete",
            "eight acht huit ocho",
            "nine neun neuf nueve",
            "ten zehn dix diez",
        ),
        2,
    )
    for word in words.split()
} | {"twelve": 12, "fifteen": 15, "twenty": 20, "one": 1, "single": 1}
_N = rf"(?P<count>\d{{1,3}}|{'|'.join(_COUNTS)})"


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of words, in whatever case, written with blanks that count for nothing."""
    return re.compile(pattern, re.I | re.X)


_ITEMS = compiled(
    rf"""(?:^|[.!?:;,\n]\s*|\b(?:and|then|please|you|und|et|y|to)\s+)
    (?:list|name|give\ me|give|suggest|recommend|provide|brainstorm|think\ of|think\ up|come\ up\ with
    |propose|nenne?|nennen|liste|zähle|cite|donne(?:-moi)?|propose|enumera|dime|nombra|sugiere)\s+(?:me\s+
    |us\s+|mir\s+|moi\s+)?(?:exactly\s+|just\s+|the\s+(?:top|first|main|best)\s+)?
    {_N}\s+(?P<what>[^\W\d_][^.?!\n]*)"""
)
_BULLETS = compiled(
    rf"""\b{_N}\s+(?:\w+\s+)?(?:bullet\ points?|bullets|bulleted\ points|stichpunkte[n]?
    |aufzählungspunkte[n]?|puces|viñetas)\b"""
)
# Three of them, three or four, three minutes: no list of three.
_NO_ITEMS = compiled(
    r"""(?:of|or|to|and|by|x|%)\b|(?:\S+\s+){0,2}(?:minutes?|seconds?|hours?|days?|weeks?|months?|years?
    |words?|characters?|sentences?|lines?|paragraphs?|stanzas?|verses?|percent|times|dollars?|euros?|cents?
    |stars?|minuten|tage|jahre|wörter|sätze|sekunden|mots|phrases|lignes|jours|ans|palabras|frases|líneas
    |días|años|degrees|km|kg|m|cm|g|ml|people)\b"""
)
_EACH = compiled(r"\b(?:each|every|per|jede[nrs]?|chaque|cada|both|or|then|table|another|more|further)\b")
_WORDS_MAX = compiled(
    r"""(?:at\ most|no\ more\ than|not\ more\ than|maximum(?:\ of)?|max\.?|up\ to|under|fewer\ than
    |less\ than|within|höchstens|maximal|au\ (?:plus|maximum)|maximum\ de|máximo(?:\ de)?|como\ máximo
    |in)\s+(?P<count>\d{1,4})\s+(?:words|wörtern?|worte[n]?|mots|palabras)\b
    (?!\s+(?:per|each|a\ |for\ each|apart))"""
)
_SENTENCES = compiled(
    rf"""\b(?:in|into|with|to|as|using|auf|en|dans)\s+(?:just\s+|only\s+|exactly\s+|at\ most\s+
    |about\s+)?(?:(?:a|an|einem|einen|une|una|un)\b(?:\s+(?:single|short|simple|einzigen|kurzen|seule|sola))?
    |{_N})\s+
    (?:short\s+|simple\s+|plain\s+|clear\s+)?(?:sentences?|satz|sätzen?|phrases?|frases?
    |oraci[oó]n(?:es)?)\b(?!\s+(?:each|per|for\ each|with))"""
)
_LINES = compiled(
    rf"""\b{_N}[- ]line\ (?:poem|verse|rhyme|summary|notice|note|reply|message|text|joke|description|slogan
    |handover)\b
    |(?:^\s*(?:an?\ )?|\b(?:write|compose|draft|make|give|pen|create|schreibe?|écris
    |escribe)\b[^.?!\n]{{0,30}}\b)(?P<haiku>haiku)\b"""
)


def amounts_of(said: str) -> Iterator[Clause]:
    """What the words of a task say of how much its result is to be."""
    if (found := _BULLETS.search(said)) and not _EACH.search(said) and 2 <= _count(found) <= _COUNT_MAX:
        yield Items(_count(found), is_marked=True)
    elif (found := _ITEMS.search(said)) and not (_NO_ITEMS.match(found["what"]) or _EACH.search(said)):
        yield from [Items(_count(found))] if 2 <= _count(found) <= _COUNT_MAX else []
    if found := _WORDS_MAX.search(said):
        yield AtMost(words=_count(found))
    if (found := _SENTENCES.search(said)) and not _EACH.search(said):
        yield AtMost(sentences=_count(found))
    if (found := _LINES.search(said)) and not _EACH.search(said):
        yield AtMost(lines=3 if found["haiku"] else _count(found))


def _count(found: re.Match[str]) -> int:
    said = found["count"]
    if said is None:
        return 1
    return int(said) if said.isdecimal() else _COUNTS[said.lower()]
