"""HTTP answers written message by message, to clients that may be gone or take nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send

from monai_node.registry.tasks import task_scope

_T = TypeVar("_T")


async def deliver(send: Send, message: dict[str, object], stall_seconds: float) -> None:
    """ClientDisconnect also when the client is there but takes nothing for too long."""
    try:
        async with asyncio.timeout(stall_seconds):
            await send(message)
    except TimeoutError:
        raise ClientDisconnect from None


def answer_start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, object]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def answer_body(data: bytes, *, more: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def while_connected(work: Awaitable[_T], receive: Receive) -> _T:
    """What `work` returns; when the client goes before, `work` is cancelled: ClientDisconnect."""
    found: list[_T] = []

    async def do() -> None:
        found.append(await work)

    async with task_scope() as tasks:
        doing = tasks.start(do(), name="work")
        gone = tasks.start(disconnected(receive), name="disconnect")
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not found:
        raise ClientDisconnect
    return found[0]


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
