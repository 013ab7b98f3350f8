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
    rf"""(?:^|[.!?:;,\n]\s*|\b(?:and|then|please|you|und|et|y|you\ to)\s+)
    (?:list|name|give\ me|give|suggest|recommend|provide|brainstorm|think\ of|think\ up|come\ up\ with
    |propose|nenne?|nennen|liste|zähle|cite|donne(?:-moi)?|propose|enumera|dime|nombra|sugiere)\s+(?:me\s+
    |us\s+|mir\s+|moi\s+)?(?:exactly\s+|just\s+|the\s+(?:top|first|main|best)\s+)?
    {_N}\s+(?P<what>[^\W\d_][^.?!\n]*)"""
)
_BULLETS = compiled(
    rf"""(?<![-–.,\d]){_N}\s+(?:\w+\s+)?(?:bullet\ points?|bullets|bulleted\ points|stichpunkte[n]?
    |aufzählungspunkte[n]?|puces|viñetas)\b"""
)
# Three of them, three or four, three minutes: no list of three.
_NO_ITEMS = compiled(
    r"""(?:of|or|to|and|by|x|%)\b|(?:\S+\s+){0,2}(?:minutes?|seconds?|hours?|days?|weeks?|months?|years?
    |words?|characters?|sentences?|lines?|paragraphs?|stanzas?|verses?|percent|times|dollars?|euros?|cents?
    |stars?|minuten|tage|jahre|wörter|sätze|sekunden|mots|phrases|lignes|jours|ans|palabras|frases|líneas
    |días|años|degrees|km|kg|m|cm|g|ml|people)\b
    |(?:letters?|digits?|syllables?|stars?|courses?|part|page|step|person|factorial|squared|cubed|plus|minus|divided
    |multiplied|over|mod|modulo|cups?|pints?|gallons?|ounces?|pounds?|miles|feet|inches|percent)\b"""
)
# Five at most, three or more, about ten: not so many.
_ROUGHLY = compiled(
    r"""(?:at\ (?:most|least)|up\ to|(?:(?:no|not)\ )?(?:more|fewer|less)\ than
    |(?:max|min)(?:\.|imum)?(?:\ of)?|about|around|roughly|approximately|some|say|or|to|and|between|under|over
    |within|höchstens|maximal|mindestens|etwa|ungefähr|bis|bis\ zu|oder|au\ (?:plus|maximum|moins)|environ
    |jusqu['’]à|ou|à|como\ máximo|máximo(?:\ de)?|al\ menos|unos|o|hasta|[-–~<>≤≥])\s*\Z"""
)
# A length that is one of these parts', or is asked about.
_OF_PARTS = compiled(
    r"""\b(?:sentences?|paragraphs?|bullets?|points?|lines?|items?|sections?|slides?|title|subject
    |headline|heading|header|caption|tagline|hook|intro\w*|opening|conclusion|names?|labels?|sätze|absätze|absatz|titel|betreff
    |phrases?|paragraphes?|titre|objet|frases|párrafos?|título|asunto)\b[^.!?\n]{0,60}\Z"""
)
# "How do you use a comma in a sentence?" asks for no sentence.
_ASKS_ABOUT = compiled(
    r"""\bhow\ (?:do|does|did|can|could|would|should|to|is|are)\b|\bcommand\b
    |\bwhat(?:['’]s|\ is|\ are)\ (?:the|an?)\ (?:difference|role|function|subject|verb|object|purpose)\b"""
)
EACH = compiled(r"\b(?:each|every|per|jede[nrs]?|chaque|cada|both|or|then|table|another|more|further)\b")
_PER = compiled(r"\b(?:each|every|per|jede[nrs]?|pro|chaque|par|cada|por)\b")
_WORDS_MAX = compiled(
    r"""(?:at\ most|no\ more\ than|not\ more\ than|maximum(?:\ of)?|max\.?|up\ to|under|fewer\ than
    |less\ than|within|höchstens|maximal|au\ (?:plus|maximum)|maximum\ de|máximo(?:\ de)?|como\ máximo
    |in)\s+(?P<count>\d{1,4})\s+(?:words|wörtern?|worte[n]?|mots|palabras)\b
    (?!\s+(?:per|each|a\ |for\ each|apart))"""
)
_SENTENCES = compiled(
    rf"""\b(?:in|into|(?:answer|reply|respond)\ with|to|as|using|auf|en|dans)\s+
    (?:just\s+|only\s+|exactly\s+|at\ most\s+|about\s+)?
    (?:(?:a|an|einem|einen|une|una|un)\b(?:\s+(?:single|short|simple|einzigen|kurzen|seule|sola))?|{_N})\s+
    (?:short\s+|simple\s+|plain\s+|clear\s+)?(?:sentences?|satz|sätzen?|phrases?|frases?
    |oraci[oó]n(?:es)?)\b(?!\s+(?:each|per|for\ each|with))"""
)
_LINES = compiled(
    rf"""\b{_N}[- ]line\ (?:poem|verse|rhyme|summary|notice|note|reply|message|text|joke|description|slogan
    |handover)\b
    |(?:^\s*|\b(?:write|compose|draft|make|give\ me|pen|create|schreibe?|écris|escribe)\s+(?:me\s+|mir\s+)?)
    (?:an?|one|the|einen?|un)\s+(?:\w+\s+){{0,2}}(?P<haiku>haiku)\b(?!\s*(?:,|and\b|then\b|with\b|sequence|series))"""
)


def amounts_of(said: str) -> Iterator[Clause]:
    """What the words of a task say of how much its result is to be."""
    if _ASKS_ABOUT.search(said):
        return
    has_each = EACH.search(said) is not None
    if found := _BULLETS.search(said):
        if not has_each and 2 <= _count(found) <= _COUNT_MAX and not _follows(_ROUGHLY, found, said):
            yield Items(_count(found), is_marked=True)
    elif (found := _ITEMS.search(said)) and not (_NO_ITEMS.match(found["what"]) or has_each):
        yield from [Items(_count(found))] if 2 <= _count(found) <= _COUNT_MAX else []
    if (found := _WORDS_MAX.search(said)) and not (_PER.search(said) or _follows(_OF_PARTS, found, said)):
        yield AtMost(words=_count(found))
    if (found := _SENTENCES.search(said)) and not has_each:
        yield AtMost(sentences=_count(found))
    if (found := _LINES.search(said)) and not has_each:
        yield AtMost(lines=3 if found["haiku"] else _count(found))


def _follows(pattern: re.Pattern[str], found: re.Match[str], said: str) -> bool:
    """Whether what was found stands right behind something; patterns end in "\\Z"."""
    return pattern.search(said, max(0, found.start() - 100), found.start()) is not None


def _count(found: re.Match[str]) -> int:
    said = found["count"]
    if said is None:
        return 1
    return int(said) if said.isdecimal() else _COUNTS[said.lower()]
