"""Cancel scopes, made in one place: the installed types of trio do not describe them."""

from __future__ import annotations

import trio


def shield(seconds: float) -> trio.CancelScope:
    """A scope that no outer cancellation enters, and that gives up by itself after `seconds`.

    To be made where it is entered: the time counts from here.
    """
    scope = new_scope()
    scope.shield = True
    scope.deadline = trio.current_time() + seconds
    return scope


def new_scope() -> trio.CancelScope:
    """A scope without deadline; may be made on any thread, and cancelled before it is entered."""
    return trio.CancelScope()  # pyright: ignore[reportCallIssue]
