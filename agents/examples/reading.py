"""Reading a short text token by token: the ground that exact agents stand on.

They understand every token or abstain; a reader that skips what it does not know would guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TEXT_CHARS_MAX = 4000  # a calculation or a question about a date; longer texts are something else


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is the name of the group that matched; `end` is where the token stops in the text."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def lower(self) -> str:
        return self.text.lower()


END = Token("end", "", -1, -1)


def tokens_of(text: str, pattern: re.Pattern[str]) -> list[Token] | None:
    """The tokens of a text, blanks apart; None when some character belongs to no token.

    Every named group of `pattern` is a kind of token. The group "joint" ties words and is dropped.
    """
    tokens: list[Token] = []
    position = 0
    for match in pattern.finditer(text):
        if text[position : match.start()].strip():
            return None
        position = match.end()
        if match.lastgroup != "joint":
            tokens.append(Token(match.lastgroup or "", match[0], match.start(), match.end()))
    return None if text[position:].strip() else tokens


class Phrases:
    """Sets of words, separated by "|", found at a position by their first word, longest first."""

    def __init__(self, phrases: str) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for words in sorted((tuple(each.split()) for each in phrases.split("|")), key=len)[::-1]:
            self._by_first.setdefault(words[0], []).append(words)

    def starting_with(self, word: str) -> Sequence[tuple[str, ...]]:
        return self._by_first.get(word, ())


class Cursor:
    """A place in a list of tokens. Readers that turn out wrong put `index` back."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.words = [token.lower for token in tokens]
        self.index: int = 0

    @property
    def is_at_end(self) -> bool:
        return self.index >= len(self.tokens)

    def peek(self, ahead: int = 0) -> Token:
        at = self.index + ahead
        return self.tokens[at] if at < len(self.tokens) else END

    def take(self, *phrases: str) -> str | None:
        """Steps over the first of `phrases` that stands here, and returns it."""
        for phrase in phrases:
            words = phrase.split()
            if self.words[self.index : self.index + len(words)] == words:
                self.index += len(words)
                return phrase
        return None

    def take_from(self, phrases: Phrases) -> bool:
        """Steps over the longest of `phrases` that stands here."""
        for words in phrases.starting_with(self.peek().lower):
            if tuple(self.words[self.index : self.index + len(words)]) == words:
                self.index += len(words)
                return True
        return False

    def skip(self, phrases: Phrases) -> None:
        while self.take_from(phrases):
            pass

    def take_kind(self, kind: str) -> Token | None:
        token = self.peek()
        if token.kind != kind:
            return None
        self.index += 1
        return token
