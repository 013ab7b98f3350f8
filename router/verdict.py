"""What checking a result in code came to, and the protocol of whatever checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Verdict:
    """`passed` says that the result satisfies everything that can be checked, `failed` that it breaks
    something, `open` that nothing can be said (yet). `why` is one sentence without words of the user.
    `is_hollow`: it failed because nothing was done at all, whatever the task may be."""

    kind: Literal["passed", "failed", "open"]
    why: str = ""
    is_hollow: bool = False


class Check(Protocol):
    """What a right result of one task must satisfy. Pure; never raises, whatever the text is."""

    @property
    def held_chars(self) -> int | None:
        """How much of a result is kept from its reader until `early` has judged it: 0 when nothing is,
        None for the whole of it, because only a whole result can fail."""
        ...

    def early(self, beginning: str) -> Verdict:
        """Of the beginning of a result that is not whole: once it has `held_chars` characters, whether it
        fails; before, whether it has all that is asked for, so that nothing more need be held."""
        ...

    def whole(self, text: str) -> Verdict:
        """Of a whole result."""
        ...
