"""Who asks: what the layers before the routes found out about the other side of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

from monai_node.mesh.keys import Right

_KEY = "monai.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """`key` is the id of the access key that was shown, never the key; "" where none is needed.
    `request_id` is that of the HTTP request, for logs and errors."""

    key: str = ""
    rights: frozenset[Right] = frozenset(("chat", "admin"))
    request_id: str = ""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.rights


NOBODY = Caller()


def caller_of(scope: Scope) -> Caller:
    """The caller of this request or socket; NOBODY in particular where no layer said."""
    return cast("Caller", scope.get(_KEY, NOBODY))


def set_caller(scope: Scope, caller: Caller) -> None:
    scope[_KEY] = caller
