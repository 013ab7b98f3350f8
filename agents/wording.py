"""What a task asks of its result in so many words: a number, a list of five, an answer in French.

Only the user's own words are read, never a text that the task is about, and only wordings that hardly
ever mean anything else: a clause that is not drawn lets a bad result pass, one that is drawn wrongly
throws good results away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from monai_node.agents.amounts import EACH, amounts_of, compiled
from monai_node.agents.clauses import Clause, InLanguage, Quoting, YesOrNo
from monai_node.agents.days import OnDate, OnWeekday
from monai_node.agents.formats import IsCron, IsJson
from monai_node.agents.languages import LANGUAGE_NAMES, TOLD_LANGUAGES, language_of
from monai_node.agents.numbers import SomeNumber
from monai_node.agents.segment import MASK, segment

# Of a longer task only its ends are read: a text with an instruction before or after it. It takes some
# fifteen milliseconds.
_HEAD_CHARS = 1_024
_TAIL_CHARS = 512
# Patterns that allow any white space between words take time with the square of it and worse.
_SPACES = re.compile(r"[^\S\n]*\n\s*|\s{2,}")
# Words of a task that tell its language: fewer letters than a result needs, as it is all there is.
_TASK_LETTERS_MIN = 30
# At the start of a sentence, behind what people say before they ask.
_ASKING = r"""(?:^|[.!?:;\n]\s*|\b(?:and|then|und|et|y)\s+)[¿¡]?(?:(?:please|ok|okay|so|and|then|now|hey
    |hi|hello|can|could|would|you|tell|give|let|me|us|know|work|figure|find|out|say|check|calculate|compute
    |estimate|i|need|want|to|do|bitte|und|sag|mir|dis|moi|dime),?\s+){0,6}"""
# A task about code asks for code, whatever else it names; so does one about how things are done.
ABOUT_CODE = compiled(
    r"""\b(?:functions?|scripts?|programs?|code|coding|regex|regexp|quer(?:y|ies)|sql|class(?:es)?|method|api
    |endpoint|python|javascript|typescript|java|rust|golang|bash|shell|excel|spreadsheet|formula|algorithm
    |implement\w*|debug|refactor|parser|parsing|unit\ tests?|funktion|programm|fonction|programme|función
    |programa|snippet|decorator|hook|commit|makefile|dockerfile|pipeline|component)\b"""
)
_ABOUT_HOW = compiled(
    r"""\b(?:explain|describe|how\ (?:do|does|did|to|can|could|would|should|is|are)\b(?!\ (?:many|much))|why
    |what\ does|mean|story|poem|essay|quiz|riddle|joke|questions?|dialogue|script|song|lyrics|erkläre?|warum
    |explique|pourquoi|explica|porque|puzzle|problems?|exercises?|survey|test|template)\b"""
)
_NUMBER = compiled(
    _ASKING
    + r"""(?:how\ many\b|count\ (?:the|how\ many|all)\b|wie\ ?viele\b|zähle?\b|combien\ (?:de|d['’]|y)
    |cu[aá]nt[ao]s\b
    |quant[ie]\b|what(?:['’]s|\ is|\ was)\ the\ (?:total\ |exact\ |average\ |approximate\ )?(?:number|sum
    |total|percentage|population)\ of\b)"""
)
_CALCULATE = compiled(
    rf"""(?:^|[.!?:\n]\s*)(?:please\s+|can\ you\s+|could\ you\s+|bitte\s+)?(?:calculate|compute|berechne
    |calcule[rz]?|calcula)\b
    (?!\ (?:which|who|whether|if|when|the\ date)\b)[^.?!\n{MASK}]*\d"""
)
_WEEKDAY = compiled(
    _ASKING
    + r"""(?:(?:on\ |an\ )?(?:what|which)\ (?:weekday|day\ of\ the\ week)\b
    |what['’ ]?i?s\ the\ (?:weekday|day\ of\ the\ week)\b
    |(?:an\ )?welche[mrn]?\ wochentag\b|quel\ jour\ de\ la\ semaine\b
    |(?:en\ )?qu[eé]\ día\ de\ la\ semana\b)"""
)
_ISO = compiled(
    r"""(?:\b(?:as|in|into|to|using|format|formatted|als|im|au|en)\s(?:an?\s|the\s|strict\s)?|\()
    (?:yyyy-mm-dd|iso[- ](?:8601[- ])?(?:date|datum)|date\ iso)\b"""
)
_ASKS_DAY = compiled(r"\b(?:date|day|when|deadline|datum|tag|wann|jour|quand|fecha|cuándo)\b")
_CRON = compiled(
    r"""\b(?:write|give|create|generate|make|produce|provide|need|want|convert|translate|turn|build|as|into
    |what(?:['’]s|\ is)|schreibe?|erstelle?|écris|donne|génère|genera|escribe|crea)\b[^.?!\n:]{0,60}
    (?:\bcron(?:tab)?[ -](?:expression|schedule|line|entry|string|ausdruck|syntax)|\bexpresión\ cron
    |\bexpression\ cron)\b"""
)
_CRON_READ = compiled(
    r"\b(?:explain|mean\w*|english|words|describe|human|validate|wrong|fix|bedeutet|means)\b"
)
_JSON = compiled(
    r"""\b(?:as|in|into|to|only|als|im|en|au|valid|return|output|respond\ with|reply\ with|produce)\s
    (?:(?:an?|the|strictly|only|valid|plain|pure|strict|raw|compact|format|formato)\s){0,3}
    json(?:[ -](?P<kind>object|array|list|format|objekt))?
    (?=\s*(?:$|[.,;:!?\n)]|with\b|only\b|and\ nothing\b|please\b|mit\b|avec\b|con\b|like\b))"""
)
# "Are comments allowed in JSON?" asks about it; "could you list them as JSON?" asks for it.
_QUESTION = compiled(
    r"""(?:^|[.!?\n])[^\w.!?\n]*(?:how|why|what|which|when|where|who|is|are|do|does|did|should|can|could|would|has
    |have|wie|warum|was|kann|ist|sind|comment|pourquoi|peut|est|cómo|qué|por\ qué|puede)\b(?!['’]?\s?you\b)
    [^.!?\n]*\Z"""
)
_JSON_ELSE = compiled(
    r"""\b(?:jsonl|ndjson|json\ lines|json\ schema|explain|validate|yaml|csv|xml|toml|difference
    |convert\ (?:this|the)\ json|file|or)\b"""
)
_YES_NO = compiled(
    r"""\b(?:answer|reply|respond|(?:just|only)\ say|just|only|antworte?|réponds?|répondez|responde?
    |contesta)\b[^.!?\n]{0,40}
    \b(?:yes\ or\ no|yes/no|true\ or\ false|true/false|ja\ oder\ nein|oui\ ou\ non|s[ií]\ o\ no)\b
    (?!\s+(?:question|answer|quiz|statement|item)s?\b)
    |(?:^|[.!?\n]\s*)(?:yes\ or\ no|true\ or\ false|ja\ oder\ nein|oui\ ou\ non|s[ií]\ o\ no)\s*[:?,–-]"""
)
_LANGUAGE = rf"(?:{'|'.join(sorted(LANGUAGE_NAMES, key=len, reverse=True))})"
_A_LANGUAGE = compiled(rf"\b{_LANGUAGE}\b")
# What may follow a language that a text is to be in; "in Greek mythology" it is not.
_BEHIND_LANGUAGE = r"""(?=\s*(?:\Z|[^\w\s-]|(?:about|on|for|to|that|which|who|with|using|please|so
    |because|explaining|describing|saying|asking|thanking|telling|inviting|why|how|what|when|if|by|at|from|as
    |and|but|while|keeping|without|then|now|only|again|instead|text|(?:ü|ue)ber|an|für|von|mit|zu|bitte|und
    |warum|wie|was|dass|sobre|para|con|por|de|del|y|que|sin|a|à|au|aux|pour|sur|avec|et|sans|du|pourquoi|comment)\b))"""
_TRANSLATE = compiled(
    rf"""\b(?:translat(?:e|ion)|render|übersetz(?:e|en|t)?|tradui(?:s|re|sez)|traduc(?:e|ir|i)|traduz(?:a
    |ir)?)\b[^.?!\n]{{0,80}}?
    \b(?:in|into|to|ins|nach|en|al|auf|em|para)\s+(?:the\s+|plain\s+|simple\s+|brazilian\s+|european\s+
    |das\s+|l['’])?(?P<name>{_LANGUAGE})\b{_BEHIND_LANGUAGE}"""
)
_IN_LANGUAGE = compiled(
    rf"""\b(?:answer|reply|respond|write|summari[sz]e|draft|compose|rewrite|antworte|schreibe?|réponds?
    |répondez|écris|écrivez|rédige|responde|contesta|escribe|redacta)\b[^.?!\n]{{0,80}}?\b(?:in|auf
    |en)\s+(?:plain\s+|simple\s+)?(?P<name>{_LANGUAGE})\b{_BEHIND_LANGUAGE}
    (?!\s+(?:class|lesson|course|exam|restaurant|cuisine|teacher|school|style|history|literature|learners
    |speaking|or|and|et|und|y)\b|-)"""
)
_ABOUT_LANGUAGE = compiled(
    r"""\b(?:how|say|words?|phrases?|learn\w*|teach\w*|lessons?|grammar|vocabulary|proofread|correct
    |flashcards?|bilingual|both|conjugat\w*|pronounc\w*|differences?|side\ by\ side|subtitles?|alongside
    |languages?|table|code|comments?|function|script)\b"""
)
# What is only edited or read out stays in its own language.
_EDITS = compiled(
    r"""\b(?:transcri\w*|recit\w*|quot\w*|lyrics|proofread\w*|correct\w*|fix|edit|polish|rewrite|rephrase
    |translat\w*|korrigier\w*|verbesser\w*|corrige\w*|photo|recording|audio|sign|code|error|log|poems?|verses?
    |songs?|anthem|prayer|original|languages?|known|famous|proverbs?|sayings?|пере\w*)\b"""
)
_QUOTE = compiled(
    r"""(?:^|[.!?;:\n]\s*|\b(?:must|should|to|that|and|please|und|et|y|muss|doit|debe)\s+)
    (?:include|contain|mention|use|keep|quote|enthalten|verwende|erwähne|inclus|utilise|mentionne|incluye|usa
    |menciona)s?\s+
    (?:the|das|den|le|la|el)\s+(?:exact\s+|literal\s+)?
    (?:words?|phrase|sentence|string|text|wort|satz|ausdruck|mot|expression|palabra|frase)\s*:?\s*
    [\"“„«'‘](?P<quoted>[^\"”“»«'’\n]{2,80})[\"”“»'’]"""
)
_NEGATED = compiled(r"\b(?:not|n['’]t|never|without|avoid|instead|nicht|kein|ohne|pas|jamais|sin|nunca|no)\b")


@dataclass(frozen=True, slots=True)
class Wording:
    """The user's own words of a task, quotes, code and addresses in them blanked out in `masked`, and
    `given`: the texts that it brings along."""

    said: str
    masked: str
    given: str

    @classmethod
    def of(cls, text: str) -> Wording:
        if len(text) > _HEAD_CHARS + _TAIL_CHARS:
            text = f"{text[:_HEAD_CHARS]}\n\n{text[-_TAIL_CHARS:]}"
        text = _SPACES.sub(_one_space, text)
        pieces = segment(text)
        own = [piece for piece in pieces if piece.kind != "payload"]
        return cls(
            "".join(piece.text for piece in own),
            "".join(piece.masked for piece in own),
            "\n".join(piece.text for piece in pieces if piece.kind == "payload"),
        )

    @property
    def language(self) -> str:
        """The language it is written in, where it names no language and is about no given text."""
        if self.given or MASK in self.masked or _A_LANGUAGE.search(self.masked) or _EDITS.search(self.masked):
            return ""
        return language_of(self.said, _TASK_LETTERS_MIN)


def _one_space(found: re.Match[str]) -> str:
    lines = found[0].count("\n")
    return "\n" * min(lines, 2) if lines else " "


def clauses_of(wording: Wording) -> list[Clause]:
    """What a right result satisfies, by the words of its task."""
    said = wording.masked
    if ABOUT_CODE.search(said):
        return [*_words(wording)]
    return [*_values(said), *amounts_of(said), *_words(wording)]


def _values(said: str) -> Iterator[Clause]:
    """What the result has to name. Not for tasks that ask for code or a text about such things."""
    if _YES_NO.search(said):
        yield YesOrNo()
    if _CRON.search(said) and not _CRON_READ.search(said):
        yield IsCron()
    found = _JSON.search(said)
    if found and not _JSON_ELSE.search(said) and not _QUESTION.search(said, 0, found.start()):
        kinds: dict[str, Any] = {"object": dict, "objekt": dict, "array": list, "list": list}
        yield IsJson(None if EACH.search(said) else kinds.get((found["kind"] or "").lower()))
    if _ABOUT_HOW.search(said):
        return
    if _NUMBER.search(said) or _CALCULATE.search(said):
        yield SomeNumber()
    if _WEEKDAY.search(said):
        yield OnWeekday()
    if _ISO.search(said) and _ASKS_DAY.search(said):
        yield OnDate(is_iso=True)


def _words(wording: Wording) -> Iterator[Clause]:
    """In which language the result is, and what it quotes."""
    language = _asked_language(wording.masked)
    if language in TOLD_LANGUAGES and not _is_phrase(wording):
        yield InLanguage(language, is_asked=True)
    quoted = tuple(
        found["quoted"].strip()
        for found in _QUOTE.finditer(wording.said)
        if not _NEGATED.search(wording.said[max(0, found.start() - 60) : found.start("quoted")])
    )
    if quoted and not ABOUT_CODE.search(wording.masked):
        yield Quoting(quoted)
    brought = wording.said.partition(": ")[2] + wording.given
    kept = _kept(brought) if _TRANSLATE.search(wording.masked) else ()
    if kept:
        yield Quoting(kept, "an address of the text was to be kept, and the result has it no more")


def _is_phrase(wording: Wording) -> bool:
    """Whether what is to be translated stands there and is short: whoever is asked explains it as well."""
    if not _TRANSLATE.search(wording.masked):
        return False
    quoted = sum(letter == MASK for letter in wording.masked)
    brought = max(quoted, len(wording.said.partition(": ")[2]), len(wording.given))
    return 0 < brought < _PHRASE_CHARS


def _asked_language(said: str) -> str:
    found = _TRANSLATE.search(said) or _IN_LANGUAGE.search(said)
    if found is None or _ABOUT_LANGUAGE.search(said):
        return ""
    name = found["name"].lower()
    named = {match[0].lower() for match in _A_LANGUAGE.finditer(said)}
    sources = {match[1].lower() for match in _FROM.finditer(said)}
    return LANGUAGE_NAMES[name] if named - sources == {name} else ""


_FROM = compiled(rf"\b(?:from|this|the|following|my|aus\ dem|vom|du|de\ l['’]|del)\s+({_LANGUAGE})\b")
_ADDRESS = re.compile(
    r"https?://[^\s<>\"'`)\]]{4,200}(?<![.,;:!?])|\b[\w.+-]{1,60}@[\w-]{1,60}(?:\.[\w-]{1,20}){1,4}"
)
_KEPT_MAX = 20
# A text shorter than this is a phrase.
_PHRASE_CHARS = 120


def _kept(given: str) -> tuple[str, ...]:
    """The addresses of a text, which no translation changes."""
    return tuple(dict.fromkeys(_ADDRESS.findall(given)))[:_KEPT_MAX]
