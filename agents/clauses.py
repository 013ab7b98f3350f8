"""What a contract is made of: single things that a right result satisfies, each checked in code.

Every clause is pure, never raises, and takes time linear in the text. It fails a result only when no
right one could look like it; where that is not plain it says that the matter is open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from monai_node.agents.languages import language_of
from monai_node.agents.lexicon import vocabulary
from monai_node.router.verdict import Verdict

# Of a longer result only so much is read: three pages of text, which take a few milliseconds.
JUDGED_CHARS_MAX = 1 << 13
# The same for what may stand anywhere in a long result, and is found quickly. What is not in so much of it
# may be further on.
SEARCHED_CHARS_MAX = 1 << 16
# Results no longer than this are judged before they are shown; of longer ones the reader sees what
# comes after it as it is written. About sixty tokens: one to four seconds of a small model.
SHORT_CHARS = 240
# The same for a language that was asked for: enough of a text to know its language by, behind a word that
# announces it.
LANGUAGE_CHARS = 160

OPEN = Verdict("open")
PASSED = Verdict("passed")

_WORD = re.compile(r"[^\W_]+")
_LAST_WORD = re.compile(r"(?<!\w)\w+\Z")
_MARK = re.compile(r"^([ \t]*)(?:[#*_]{1,4} ?)?(\d{1,3}[.):]|[-*•–+])(?:\*\*)?[ \t]+\S", re.M)
_SENTENCE_END = re.compile(
    r"(?<=[^\W\d_][^\W\d_][^\W\d_])[.!?]{1,3}[\"'”’)]{0,2}\s{1,4}(?=[A-ZÀ-ÖØ-Þ¿¡“\"])|[。！？]"
)
_AGREEMENTS = vocabulary("""
    yes no yeah yep nope true false ja nein oui non vrai faux si sí verdadero falso cierto sì no vero
    tak nie sim não correct incorrect right wrong richtig falsch stimmt neither depends unclear maybe
    unknown absolutely definitely certainly indeed surely cannot determined undetermined impossible possibly
    probably likely unlikely perhaps partly partially both sometimes nej nee da net hai inte doch jain
    """)
# The same by a letter, in a result that is hardly more: "1) T 2) F".
_LETTERS = frozenset("ynjtf")
_LETTERS_CHARS_MAX = 40
# "Certainly! Here is the translation: …", and what follows: not yet the text, or not the text alone.
_ANNOUNCED = re.compile(r"\A[^\n]{0,400}?:[\"*_ ]{0,4}(?:\n|\Z)")
_ANNOUNCES = re.compile(
    r"\W{0,8}(?:sure|certainly|of course|here(?:'s|’s| is| are| you)|okay|ok|absolutely|gladly|great"
    r"|(?:the|this) (?:\w+ ){0,2}translation|below|natürlich|gerne?|klar|hier ist|voici|bien sûr|claro|aquí"
    r"|por supuesto|ecco|certo|конечно|вот)\b",
    re.I,
)
# Of a paragraph of a result, to know its language by.
_PARAGRAPH_LETTERS_MIN = 40


class Clause(Protocol):
    """One thing that a right result satisfies; the members are those of `router.verdict.Check`."""

    @property
    def held_chars(self) -> int | None: ...

    def early(self, beginning: str) -> Verdict: ...

    def whole(self, text: str) -> Verdict: ...


def failed(why: str) -> Verdict:
    return Verdict("failed", why)


@dataclass(frozen=True, slots=True)
class SomethingDone:
    """Neither nothing at all, nor the words of the task again. `task` is "" where an echo may be right."""

    task: str = ""
    held_chars: int | None = 0

    def early(self, beginning: str) -> Verdict:
        return OPEN

    def whole(self, text: str) -> Verdict:
        if not text or text.isspace():
            return Verdict("failed", "the result is empty", is_hollow=True)
        # White space and marks may differ; another case is work done, if not much.
        is_short = len(text) <= 2 * len(self.task) + 100
        if self.task and is_short and _WORD.findall(text) == _WORD.findall(self.task):
            return Verdict("failed", "the result repeats the task and nothing else", is_hollow=True)
        return OPEN


@dataclass(frozen=True, slots=True)
class InLanguage:
    """In this language (one that `language_of` tells). `is_asked`: the task names it; else it is the
    language that the task is written in, which is no reason to keep a text back."""

    language: str
    is_asked: bool

    @property
    def held_chars(self) -> int | None:
        return LANGUAGE_CHARS if self.is_asked else 0

    def early(self, beginning: str) -> Verdict:
        text = _ANNOUNCED.sub("", beginning, count=1)
        return OPEN if len(text) == len(beginning) and _ANNOUNCES.match(text) else self.whole(text)

    def whole(self, text: str) -> Verdict:
        found = language_of(text)
        if not found:
            return OPEN
        if found == self.language:
            return PASSED if self.is_asked else OPEN
        # Notes on it, in the asker's language, may be longer than a short text.
        if any(language_of(part, _PARAGRAPH_LETTERS_MIN) == self.language for part in text.split("\n")):
            return OPEN
        asked = "the one that was asked for" if self.is_asked else "the one of the task"
        return failed(f"the result is in another language than {asked}")


@dataclass(frozen=True, slots=True)
class Quoting:
    """Each of these texts stands in it, letter by letter but for case and spaces."""

    texts: tuple[str, ...]
    why: str = "words that were to be in the result are not in it"
    held_chars: int | None = SHORT_CHARS

    def early(self, beginning: str) -> Verdict:
        return OPEN

    def whole(self, text: str) -> Verdict:
        folded = _without_marks(text)
        if all(_without_marks(quoted) in folded for quoted in self.texts):
            return PASSED
        return OPEN if len(text) >= SEARCHED_CHARS_MAX else failed(self.why)


@dataclass(frozen=True, slots=True)
class YesOrNo:
    held_chars: int | None = SHORT_CHARS

    def early(self, beginning: str) -> Verdict:
        return PASSED if self.whole(whole_words(beginning)).kind == "passed" else OPEN

    def whole(self, text: str) -> Verdict:
        words = words_of(text)
        letters = _LETTERS if len(text) <= _LETTERS_CHARS_MAX else frozenset[str]()
        if any(word in _AGREEMENTS or word in letters for word in words):
            return PASSED
        return failed("yes or no was asked for, the result says neither") if text.isascii() else OPEN


@dataclass(frozen=True, slots=True)
class Items:
    """So many items; `is_marked` when bullet points were asked for, each of which must be seen. Twice as
    many may be so many for and so many against."""

    count: int
    is_marked: bool = False
    held_chars: int | None = SHORT_CHARS

    def early(self, beginning: str) -> Verdict:
        return OPEN

    def whole(self, text: str) -> Verdict:
        marks = [(len(indent), mark) for indent, mark in _MARK.findall(text)]
        if not marks:
            return self._unmarked(text)
        outermost = min(indent for indent, _ in marks)
        counts = {
            len(marks),
            sum(indent == outermost for indent, _ in marks),
            sum(mark[0].isdigit() for _, mark in marks),
        }
        if self.count in counts:
            return PASSED
        if any(count >= self.count and count % self.count == 0 for count in counts):
            return OPEN
        if max(counts) < self.count:
            # What is listed may be headings or paragraphs, and the marks stand for something below them.
            unmarked = sum(not part.isspace() and not _MARK.match(part) for part in text.split("\n\n"))
            return (
                OPEN if unmarked >= self.count else failed("the result has fewer items than were asked for")
            )
        return failed("the result has more items than were asked for") if self.is_marked else OPEN

    def _unmarked(self, text: str) -> Verdict:
        lines = sum(not line.isspace() and bool(line) for line in text.split("\n"))
        if lines == self.count:
            return PASSED
        if self.is_marked and lines < self.count:
            return failed("the result has fewer items than were asked for")
        is_figure = any(map(str.isdecimal, text)) and len(text.split()) == 1
        if len(text.split()) < self.count and text.isascii() and not is_figure:
            return failed("the result has fewer items than were asked for")
        return OPEN


@dataclass(frozen=True, slots=True)
class AtMost:
    """No longer than was asked for, with room for how people count and for a sentence before it: a fifth
    more words, fifteen at least, twice as many sentences and one more than that, a title and a line around
    the lines."""

    words: int | None = None
    sentences: int | None = None
    lines: int | None = None

    @property
    def held_chars(self) -> int | None:
        """As much as shows that it is too long; of what may be long by itself nothing is held."""
        limits = [
            6 * self._words_max if self.words is not None else 0,
            200 * self.sentences if self.sentences is not None else 0,
            80 * self.lines if self.lines is not None else 0,
        ]
        chars = max(limits)
        return chars if chars <= SHORT_CHARS else 0

    @property
    def _words_max(self) -> int:
        return 0 if self.words is None else self.words + max(15, self.words // 5)

    def early(self, beginning: str) -> Verdict:
        found = self.whole(beginning)
        return found if found.kind == "failed" else OPEN

    def whole(self, text: str) -> Verdict:
        is_over = (
            (self.words is not None and _word_count(text) > self._words_max)
            or (self.sentences is not None and _sentence_count(text) > 2 * self.sentences + 1)
            or (self.lines is not None and _line_count(text) > 2 * self.lines + 2)
        )
        # That it is short is no sign that it is right.
        return failed("the result is longer than was asked for") if is_over else OPEN


def _word_count(text: str) -> int:
    return sum(any(map(str.isalpha, word)) for word in text.split())


def _sentence_count(text: str) -> int:
    return 1 + sum(found.end() < len(text.rstrip()) for found in _SENTENCE_END.finditer(text))


def _line_count(text: str) -> int:
    return sum(bool(line.strip()) for line in text.split("\n"))


def whole_words(beginning: str) -> str:
    """Without the last word, which may go on: "No" may become "Norway"."""
    return _LAST_WORD.sub("", beginning)


def words_of(text: str) -> list[str]:
    """The words and figures of a text, in small letters."""
    return _WORD.findall(text.casefold())


_MARKS = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "\u00a0": " ", "–": "-", "—": "-"})


def _without_marks(text: str) -> str:
    """Folded, with quotation marks, dashes and spaces of one kind: what editors change by themselves."""
    return " ".join(text.translate(_MARKS).casefold().split())
