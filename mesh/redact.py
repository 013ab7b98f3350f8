"""Takes out of a text what is nobody else's business: secrets, who and where somebody is, ids by which
something could be asked for."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from monai_node.mesh.state import parse_json
from monai_node.registry.errors import SetupError

_HIDDEN = "…"
_SECRET_CHARS_MIN = 8  # what is shorter may be a word
_NAME_CHARS_MIN = 3  # likewise

_RULES = (
    (re.compile(r"\bmk-[\w-]+"), "mk-…"),
    (re.compile(r"(?i)\bbearer +\S+"), "Bearer …"),
    (re.compile(r"#[a-z2-7]{10,}", re.IGNORECASE), "#…"),  # of a join line
    (re.compile(r"/dns(?:4|6|addr)?/[^/\s]+"), "/dns/…"),
    (re.compile(r"\b(?:12D3KooW|Qm)[1-9A-HJ-NP-Za-km-z]{20,}([1-9A-HJ-NP-Za-km-z]{8})\b"), r"…\1"),
    (re.compile(r"\b([0-9a-f]{8})[0-9a-f]{8,}\b"), r"\1…"),
)
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*)(?![\w.])"
)


@dataclass(frozen=True, slots=True)
class Redaction:
    """`secrets` must not stand in what is shown; `names` are replaced by what they name."""

    secrets: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, _HIDDEN)
        for rule, shown in _RULES:
            text = rule.sub(shown, text)
        text = _ADDRESS.sub(_masked, text)
        for name, shown in self.names:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", shown, text)
        return text

    def value(self, value: Any) -> Any:
        """Every text in a value that JSON can hold."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(each) for each in cast("list[Any]", value)]
            case dict():
                items = cast("dict[str, Any]", value).items()
                return {self.text(name): self.value(each) for name, each in items}
            case _:
                return value

    def check(self, text: str) -> None:
        """SetupError when one of the secrets stands in the text after all."""
        if any(secret in text for secret in self.secrets):
            raise SetupError("the report would hold a secret and is not shown; please say so to its authors")


def redaction_of(state: Path) -> Redaction:
    """For the texts of this user, on this machine, with this state directory."""
    secrets: set[str] = set()
    for name in ("mesh.json", "gateway.json", "keys.json"):
        with suppress(OSError, ValueError):
            secrets |= set(_secrets(parse_json(state / name)))
    # The longer one first: one may be a part of another.
    ordered = tuple(sorted(secrets, key=len, reverse=True))
    return Redaction(ordered, tuple(_names(state)))


def _secrets(value: object) -> list[str]:
    """What stands in a file of secrets under the names of such."""
    found: list[str] = []
    if isinstance(value, Mapping):
        for name, each in cast("Mapping[str, object]", value).items():
            if name in ("secret", "key", "digest") and isinstance(each, str):
                found.append(each)
            elif name == "join" and isinstance(each, str):
                found += [each, each.rpartition("#")[2]]
            else:
                found += _secrets(each)
    elif isinstance(value, list):
        found = [secret for each in cast("list[object]", value) for secret in _secrets(each)]
    return [secret for secret in found if len(secret) >= _SECRET_CHARS_MIN]


def _names(state: Path) -> list[tuple[str, str]]:
    names = [(str(state), "STATE")]
    with suppress(RuntimeError):
        names.append((str(Path.home()), "~"))
    with suppress(OSError):
        names.append((socket.gethostname(), "HOST"))
    with suppress(OSError, KeyError, ImportError):
        names.append((getpass.getuser(), "USER"))
    return [(name, shown) for name, shown in names if len(name) >= _NAME_CHARS_MIN]


def _masked(found: re.Match[str]) -> str:
    """An address of another machine; of this one, which says nothing, it stays."""
    try:
        address = ip_address(found[0])
    except ValueError:
        return found[0]  # a time of day, a version
    return found[0] if address.is_loopback or address.is_unspecified else "ADDRESS"
