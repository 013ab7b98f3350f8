"""Cut a request into phrases that may each name a skill, and find the files and addresses it brings.

A labeller's segments are too coarse where skills are known: "a collage of the coloured photo and a frame
of the film" names three. So clauses, runs of clauses and short windows of words are all offered, and
the choice is made from how they match. Quotes and addresses stand for one noun each: their words are
material, not wishes.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

Span = tuple[int, int]

# A request longer than this is a document with an instruction; only its beginning is read.
TEXT_CHARS_MAX = 4_000
# Phrases are embedded: about 2 ms each on one core.
PHRASES_MAX = 128
URI_TYPE = "text/uri-list"
TEXT_TYPE = "text/plain"

# Four words hold a verb and its object; more or longer windows, or a window at every word, double the time
# and find no more (node-F1 within 0.3 points on 283 requests).
_WINDOW_WORDS = 4
_WINDOW_STEP = 2
_CLAUSES_JOINED = 2
_QUOTED_NAME_WORDS = 2

# Stands for every masked character: private use, so neither word, space nor punctuation.
_MASK = "\ue000"
_QUOTE = re.compile(
    r"""" [^"\n]{1,2000} " | “ [^”\n]{1,2000} ”
      | (?<![\w']) ' (?=\S) (?:[^'\n]{1,300}'(?=\w)){0,8} [^'\n]{1,2000} ' (?!\w)
      | ‘ (?:[^’\n]{1,300}’(?=\w)){0,8} [^’\n]{1,2000} ’ (?!\w)""",
    re.X,
)
_ADDRESS = re.compile(
    r"\b(?:https?|ftp)://[^\s'\"<>()]{1,2000}|\bwww\.[^\s'\"<>()]{1,400}"
    r"|\b[a-z\d-]{1,63}\.(?:com|org|net)\b(?:/[^\s'\"<>()]{0,400})?",
    re.I,
)
_FILE = re.compile(r"\b[\w-]{1,100}(?:\.[\w-]{1,30}){0,3}\.[A-Za-z]\w{1,4}\b")
# (?<!\s): a run of white space is looked at from its beginning only, or a page of it would take minutes.
_CUT = re.compile(
    r"""(?<=[.!?;:])\s+ | ,\s+(?:and\s+|then\s+){0,2} | (?<!\s)\s*\n\s* | (?<!\s)\s+[–—-]\s+
      | (?<!\s)\s+(?=(?:and|then|while|before|after|followed\ by|as\ well\ as|so\ that|by\ \w+ing|using
                |based\ on|according\ to|which|in\ order\ to|with)\b)""",
    re.I | re.X,
)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|(?<!\s)\s*\n\s*")


@dataclass(frozen=True, slots=True)
class Phrase:
    """`text` is what is compared with skills: the request's words from `start` to `end`, with a noun in
    place of each quote and address. `is_clause`: a clause, not a run of them or a window of words."""

    start: int
    end: int
    text: str
    is_clause: bool


@dataclass(frozen=True, slots=True)
class Given:
    """Something the request brings along, and its media type."""

    start: int
    end: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Wording:
    """A request made ready for comparing: the last phrase is the whole of it."""

    text: str
    phrases: tuple[Phrase, ...]
    clauses: tuple[Span, ...]
    given: tuple[Given, ...]


def word(text: str) -> Wording:
    """The phrases of a request, at most PHRASES_MAX, and what it brings along. Any text is accepted."""
    text = text[:TEXT_CHARS_MAX]
    masked, nouns, given = _masked(text)
    clauses = _clauses(masked)
    joined = {
        (clauses[first][0], clauses[last][1])
        for first in range(len(clauses))
        for last in range(first, min(first + _CLAUSES_JOINED, len(clauses)))
    }
    spans = [*clauses, *sorted(joined - set(clauses)), *sorted(_windows(masked) - joined)]
    phrases = [
        Phrase(start, end, _worded(masked, nouns, start, end), (start, end) in clauses)
        for start, end in spans[: PHRASES_MAX - 1]
    ]
    whole = Phrase(0, len(text), _worded(masked, nouns, 0, len(text)), is_clause=False)
    return Wording(text, (*phrases, whole), tuple(clauses), tuple(given))


@lru_cache(maxsize=256)
def media_type_of(file_name: str) -> str | None:
    """The media type that a file's extension stands for, from the standard table."""
    return mimetypes.guess_type(f"x.{file_name.rsplit('.', 1)[-1]}")[0]


def noun_of(media_type: str) -> str:
    """What people call a thing of this media type: "image/png" → "image", "text/csv" → "csv"."""
    kind, _, format_ = media_type.partition("/")
    if media_type == URI_TYPE:
        return "url"
    is_named_by_format = kind in {"application", "text"} and format_ not in {"", "*", "plain"}
    return format_ if is_named_by_format else kind


def _masked(text: str) -> tuple[str, dict[int, str], list[Given]]:
    """The text, equally long, with quotes and addresses blanked out; the noun for each blank by where it
    starts; what the request brings along."""
    nouns: dict[int, str] = {}
    given: list[Given] = []

    def blank(found: re.Match[str]) -> str:
        inner = found[0][1:-1].strip() if found.re is _QUOTE else found[0]
        if _ADDRESS.fullmatch(inner):
            media_type = URI_TYPE
        elif found.re is _QUOTE and len(inner.split()) > _QUOTED_NAME_WORDS:
            media_type = TEXT_TYPE
        else:
            return found[0]
        nouns[found.start()] = noun_of(media_type)
        given.append(Given(*found.span(), media_type))
        return _MASK * len(found[0])

    masked = _ADDRESS.sub(blank, _QUOTE.sub(blank, text))
    for found in _FILE.finditer(masked):
        media_type = media_type_of(found[0])
        if media_type is not None:
            given.append(Given(*found.span(), media_type))
    return masked, nouns, sorted(given, key=lambda one: one.start)


def _worded(masked: str, nouns: dict[int, str], start: int, end: int) -> str:
    pieces: list[str] = []
    at = start
    for found in re.finditer(f"{_MASK}+", masked[start:end]):
        pieces += [masked[at : start + found.start()], nouns.get(start + found.start(), "text")]
        at = start + found.end()
    return " ".join("".join([*pieces, masked[at:end]]).split())


def _clauses(masked: str) -> list[Span]:
    cuts = [0, *(at for found in _CUT.finditer(masked) for at in found.span()), len(masked)]
    return [span for span in list(pairwise(cuts))[::2] if masked[slice(*span)].strip()]


def _windows(masked: str) -> set[Span]:
    """Runs of a few words that do not reach over the end of a sentence."""
    ends = [0, *(at for found in _SENTENCE_END.finditer(masked) for at in found.span()), len(masked)]
    found: set[Span] = set()
    for start, end in list(pairwise(ends))[::2]:
        said = [(start + word.start(), start + word.end()) for word in re.finditer(r"\S+", masked[start:end])]
        for first in range(0, max(1, len(said) - _WINDOW_WORDS + 1) if said else 0, _WINDOW_STEP):
            found.add((said[first][0], said[min(first + _WINDOW_WORDS, len(said)) - 1][1]))
    return found
