"""What a person reads at the terminal, wherever the words come from."""

from __future__ import annotations

import unicodedata
from typing import Any

# Joiners have no direction and no width: Persian, Hindi and many emoji are spelled with them.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Text of others for a terminal: no control or direction characters but newline and tab, and no
    half of a surrogate pair, which no terminal can be sent."""
    return "".join(
        c for c in text if c in "\n\t" or c in _JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )


def one_line(text: object) -> str:
    """`printable`, for what has one line to stand on: a name, a reason, an error."""
    return " ".join(printable(str(text)).split())


def who(row: dict[str, Any]) -> str:
    """A peer by its own name and the end of its id."""
    return f"{one_line(row['peer_name'])} ({one_line(row['peer'])[-8:]})"


def shortened(text: object, chars_max: int) -> str:
    """`one_line`, at most so long."""
    line = one_line(text)
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"
