"""Two ways to one answer, timed to its first text: the gateway's HTTP, and a provider's own wire.

Hand-made HTTP: a client library spends more on a chunk than the gateway does, and both share the machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from monai_node.registry.ids import PeerId, new_attempt_id
from monai_node.registry.transport import Transport
from monai_node.registry.wire import RUN_SECONDS_DEFAULT, Parameters, TaskDelta, TaskInput, TaskRequest
from monai_node.router.task_stream import Patience, TaskStream, Watch

DEADLINE_SECONDS = RUN_SECONDS_DEFAULT  # of a client that asks for none
_LINE_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class Answer:
    """How one request went; seconds from its start. `error` is "" when it ended as promised."""

    first_s: float = 0.0
    total_s: float = 0.0
    chars: int = 0
    models: tuple[str, ...] = ()
    error: str = ""


class HttpClient:
    """One kept connection to a gateway."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, model: str, text: str, max_tokens: int) -> Answer:
        """A streamed chat completion; never raises."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "stream": True,
            "max_tokens": max_tokens,
            "mesh": {"deadline_seconds": DEADLINE_SECONDS},
        }
        answer, started = Answer(error="cut"), time.perf_counter()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS + 5):
                await self._exchange(json.dumps(body).encode(), answer, started)
        except (OSError, EOFError, TimeoutError) as error:
            answer.error = type(error).__name__
        if answer.error:
            await self.close()
        answer.total_s = time.perf_counter() - started
        return answer

    async def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(OSError):
                await streams[1].wait_closed()

    async def _exchange(self, body: bytes, answer: Answer, started: float) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_LINE_BYTES_MAX)
        reader, writer = self._streams
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status = (await reader.readline()).split()
        if status[1:2] != [b"200"]:
            answer.error = b" ".join(status[1:2]).decode() or "cut"
            return
        # Between the events stand the lengths of HTTP's chunks, and nothing of them looks like an event.
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                _take(json.loads(line[6:]), answer, started)
            elif line.startswith(b"data: [DONE]"):
                answer.error = "" if answer.error == "cut" else answer.error
            elif line == b"0\r\n":
                await reader.readline()
                return


def _take(chunk: dict[str, Any], answer: Answer, started: float) -> None:
    if "error" in chunk:
        answer.error = str(chunk["error"].get("code"))
        return
    for choice in chunk["choices"]:
        if text := choice["delta"].get("content"):
            answer.first_s = answer.first_s or time.perf_counter() - started
            answer.chars += len(text)
    if "mesh" in chunk:
        answer.models = tuple(part["model"] for part in chunk["mesh"].get("parts", []))


class WireClient:
    """A member of the mesh that asks one peer for tasks, as a gateway does."""

    def __init__(self, transport: Transport, peer: PeerId) -> None:
        self._transport = transport
        self._peer = peer
        self._watch = Watch(time.monotonic, lambda _: True, lambda _: None, Patience())

    async def ask(self, model: str, text: str, max_tokens: int) -> Answer:
        """The same task on the peer's own wire; a MonaiError is a defect of the measurement, and raised."""
        request = TaskRequest(
            run="bench",
            task="t1",
            attempt=new_attempt_id(),
            skill="chat",
            model=model,
            input=TaskInput(text=text),
            parameters=Parameters(max_tokens=max_tokens),
            remaining_ms=int(DEADLINE_SECONDS * 1000),
        )
        answer, started = Answer(), time.perf_counter()
        stream = TaskStream(self._transport, self._peer, self._watch, time.monotonic() + DEADLINE_SECONDS)
        async with aclosing(stream.events(request)) as events:
            async for event in events:
                if isinstance(event, TaskDelta) and event.text:
                    answer.first_s = answer.first_s or time.perf_counter() - started
                    answer.chars += len(event.text)
        answer.total_s = time.perf_counter() - started
        return answer
