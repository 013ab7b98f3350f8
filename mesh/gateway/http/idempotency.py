"""A client's retry does not run its request twice: whoever sends the same `Idempotency-Key` again is given
the answer that there is, or joins the one under way; which goes on for a while when its client is gone, for
a client that tries again has lost its connection before.

One ASGI layer around the routes, inside those that say who asks. A key counts for one caller, together with
the request that it came with first. Answers are kept in memory, as the bytes that were sent.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_node.mesh.gateway.caller import caller_of
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import error_response
from monai_node.mesh.gateway.http.answers import Answers, Key, RecordedAnswer, note_answer
from monai_node.mesh.gateway.http.asgi import answer_body, deliver, while_connected
from monai_node.registry.errors import InvalidRequest, MonaiError

_PATHS = frozenset(
    f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "responses", "runs")
)
_SENT = re.compile(r"[\x21-\x7e]{1,255}")
_REPLAYED = (b"x-idempotent-replayed", b"true")


class Idempotency:
    """The layer itself; see above."""

    def __init__(
        self, app: ASGIApp, config: GatewayConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._stall_seconds = config.stall_seconds
        self._return_seconds = config.return_seconds
        self._answers = Answers(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = _sent_key(scope)
        if sent is None:
            await self._app(scope, receive, send)
            return
        try:
            if not _SENT.fullmatch(sent):
                raise InvalidRequest("Idempotency-Key should be 1 to 255 visible ASCII characters")
            body = await _read(receive)
            key = (caller_of(scope).key, sent)
            fingerprint = hashlib.sha256(scope["path"].encode() + b"\0" + body).digest()
            while (answer := self._answers.find(key, fingerprint)) is not None:
                if await while_connected(self._replay(answer, send), receive):
                    return
        except MonaiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._answer(key, self._answers.begin(key, fingerprint), body, scope, receive, send)

    async def _answer(
        self, key: Key, answer: RecordedAnswer, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_for_all() -> Message:
            if messages:
                return messages.pop()
            gone = await receive()
            await answer.until_unwanted(self._return_seconds)
            return gone

        async def record(message: Message) -> None:
            answer.note(message)
            if answer.is_over and not answer.is_kept:
                self._answers.drop(key, answer)
            await send(message)

        note_answer(scope, answer)
        try:
            await self._app(scope, receive_for_all, record)
        finally:
            if not answer.is_complete:
                self._answers.drop(key, answer)
                answer.close()

    async def _replay(self, answer: RecordedAnswer, send: Send) -> bool:
        """Whether there was an answer; where it breaks off, so does this one."""
        with answer.followed():
            start = await answer.opened()
            if start is None:
                return False
            marked: dict[str, object] = {**start, "headers": [*start["headers"], _REPLAYED]}
            await deliver(send, marked, self._stall_seconds)
            position = 0
            while not (answer.is_complete and position >= answer.body.end):
                try:
                    pieces = await answer.body.pieces(position)
                except LookupError:
                    pieces = []
                if not pieces:
                    raise ClientDisconnect  # seen by the client as a cut
                position += len(pieces)
                is_last = answer.is_complete and position >= answer.body.end
                message = answer_body(b"".join(pieces), more=not is_last)
                await deliver(send, message, self._stall_seconds)
        return True


def _sent_key(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _PATHS:
        return None
    return Headers(scope=scope).get("idempotency-key")


async def _read(receive: Receive) -> bytes:
    """The whole body, which the layers around us bound."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
