"""Whether what a model wrote says what the user said: shared words, and facts that must not be lost.

Words are alike when they begin alike ("summarise", "summary"), so that a model may bend them; languages
written without spaces are compared by pairs of characters.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from monai_node.agents.lexicon import core, vocabulary, words

# Two words are alike when they share so many first letters, or all but the last three of the shorter.
_STEM_CHARS_MIN = 4
_ENDING_CHARS = 3
# From Thai on scripts are found that put no spaces between words.
_UNSPACED_FROM = "\u0e00"

_FUNCTION_WORDS = vocabulary("""
    a about after all also am an and any are as at be been before being between both but by can could did do
    does doing done each either every for from get give had has have her here him his how i i'd i'll i'm if in
    into is it it's its just let like make me my need of off on once one or our out over please she should so
    some such than that the their them then there these they this those to too under until up us using want
    was we were what when where which while who whom whose why will with would you your result results
    previous task output
    """)
_SPELT = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
# A capital inside a sentence; at its beginning every word has one.
_INNER_WORD = re.compile(r"(?<=[\w,;)]\s)[^\W\d_][\w'’-]+")


def content_words(text: str) -> list[str]:
    """The words of a text that carry what it is about, in order; numbers are among them."""
    return [word for word in words(text) if word not in _FUNCTION_WORDS]


def numbers(text: str) -> set[str]:
    """The numbers of a text in digits, without list marks at its beginning."""
    return {_plain(found[0]) for found in _NUMBER.finditer(core(text))}


def names(text: str) -> set[str]:
    """Words with a capital inside a sentence, in lower case. None in a text that shouts."""
    if text.isupper():
        return set()
    inner = (match[0] for match in _INNER_WORD.finditer(core(text)))
    return {word for name in inner if name[0].isupper() for word in content_words(name)}


class Vocabulary:
    """The words of some texts, to be compared with others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words: set[str] = set()
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._pairs: set[str] = set()
        self._numbers: set[str] = set()
        for text in texts:
            self._add(text)

    def _add(self, text: str) -> None:
        for word in set(words(text)) - self._words:
            self._words.add(word)
            self._numbers |= {_SPELT[word]} if word in _SPELT else set()
            self._by_stem[word[:_STEM_CHARS_MIN]].append(word)
            if _is_unspaced(word):
                self._pairs |= _pairs(word)
        self._numbers |= {_plain(found[0]) for found in _NUMBER.finditer(text)}

    def has(self, word: str) -> bool:
        """Whether this word or one like it is among them."""
        if word in self._words:
            return True
        if _is_unspaced(word):
            return bool(_pairs(word)) and _pairs(word) <= self._pairs
        return len(word) >= _STEM_CHARS_MIN and any(
            _alike(word, other) for other in self._by_stem.get(word[:_STEM_CHARS_MIN], ())
        )

    def has_number(self, number: str) -> bool:
        """Whether this number stands in them, in digits or as a word."""
        return number in self._numbers

    def share(self, said: Iterable[str]) -> float:
        """How many of these words are among them, from 0 to 1; 0 when there are none."""
        listed = list(said)
        return sum(map(self.has, listed)) / len(listed) if listed else 0.0


def _alike(one: str, other: str) -> bool:
    if min(len(one), len(other)) < _STEM_CHARS_MIN:
        return False
    stem = max(_STEM_CHARS_MIN, min(len(one), len(other)) - _ENDING_CHARS)
    return one[:stem] == other[:stem]


def _is_unspaced(word: str) -> bool:
    return word[0] >= _UNSPACED_FROM and not word.islower()


def _pairs(word: str) -> set[str]:
    return {word[at : at + 2] for at in range(len(word) - 1)} or {word}


def _plain(number: str) -> str:
    """1,200 and 1200 are one number."""
    return re.sub(r",(?=\d{3}\b)", "", number)
