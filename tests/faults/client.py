"""A streaming client that believes nothing and writes down everything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from faults.history import (
    Answered,
    Chunk,
    Ended,
    History,
    HowEnded,
    MeshEvent,
    RequestStarted,
    StreamDone,
)
from faults.sse import (
    SseParser,
    is_list,
    is_map,
    is_run_event,
    parse_json_map,
    run_events_in,
)

GIVE_UP_SECONDS = 2.0  # past the deadline: later than any promise, so lateness is seen
ERROR_BODY_BYTES_MAX = 1 << 20

ChunkHook = Callable[[int], None]
"""Called with 0 when the stream opened and with k right after the k-th piece of text."""


class Disconnect(Exception):
    """Raised by a ChunkHook: drop the connection here."""


@dataclass(slots=True)
class StreamResult:
    """What came back. `run` is the id in the run events, when the gateway sent any."""

    request: str
    how: HowEnded = "reset"
    status: int = 0
    text: str = ""
    finish_reason: str | None = None
    error: str | None = None
    chunks: int = 0  # pieces of text
    run: str | None = None


class StreamClient:
    """Streams chat completions from one gateway and records each into `history`."""

    def __init__(
        self,
        base_url: str,
        history: History,
        *,
        api_key: str = "none",
        own_peer: str | None = None,
    ) -> None:
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._history = history
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._own_peer = own_peer
        self._numbers = itertools.count(1)

    def chat(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        deadline_seconds: float = 30.0,
        mesh: Mapping[str, Any] | None = None,
        on_chunk: ChunkHook | None = None,
        **fields: Any,
    ) -> StreamResult:
        """`stream` from a thread without an event loop."""
        return asyncio.run(
            self.stream(prompt, deadline_seconds=deadline_seconds, mesh=mesh, on_chunk=on_chunk, **fields)
        )

    async def stream(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        deadline_seconds: float = 30.0,
        mesh: Mapping[str, Any] | None = None,
        on_chunk: ChunkHook | None = None,
        **fields: Any,
    ) -> StreamResult:
        """One chat completion with `stream`, run events on, and the deadline told to the gateway.

        `fields` are further fields of the body. Never raises for what the gateway does: that is in
        the result and the history. Gives up GIVE_UP_SECONDS after the deadline.
        """
        options: dict[str, Any] = {"deadline_seconds": deadline_seconds, "events": True}
        options |= mesh or {}
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        body = {"model": "mesh", "messages": messages, "stream": True, "mesh": options, **fields}
        exchange = _Exchange(f"request-{next(self._numbers)}", self._history, on_chunk)
        self._history.add(
            RequestStarted(
                at=self._history.now(),
                request=exchange.result.request,
                deadline_seconds=deadline_seconds,
                label=options.get("privacy"),
                own_peer=self._own_peer,
            )
        )
        try:
            async with asyncio.timeout(deadline_seconds + GIVE_UP_SECONDS):
                how = await exchange.run(self._url, self._headers, body)
        except TimeoutError:
            how = "gave_up"
        exchange.end(how)
        return exchange.result


class _Exchange:
    """One request and the reading of its answer."""

    def __init__(self, request: str, history: History, on_chunk: ChunkHook | None) -> None:
        self.result = StreamResult(request)
        self._history = history
        self._on_chunk = on_chunk
        self._messages = 0
        self._is_done = False

    async def run(self, url: str, headers: Mapping[str, str], body: object) -> HowEnded:
        # The one deadline is the caller's; trust_env off: a proxy of this machine is not the mesh.
        client = httpx.AsyncClient(timeout=None, trust_env=False)
        try:
            async with client, client.stream("POST", url, headers=headers, json=body) as response:
                if response.status_code != 200:
                    await self._read_error(response)
                    return "http_error"
                self._answered(response, None)
                self._hook(0)
                return await self._read_stream(response)
        except Disconnect:
            return "cancelled"
        except httpx.TransportError:
            return "error_event" if self.result.error else "reset"

    def end(self, how: HowEnded) -> None:
        self.result.how = how
        self._history.add(Ended(at=self._history.now(), request=self.result.request, how=how))

    async def _read_error(self, response: httpx.Response) -> None:
        raw = b""
        async for piece in response.aiter_bytes():
            raw += piece
            if len(raw) > ERROR_BODY_BYTES_MAX:
                break
        error = (parse_json_map(raw.decode("utf-8", "replace")) or {}).get("error")
        is_openai = is_map(error) and {"message", "type", "param", "code"} <= error.keys()
        self.result.error = str(error.get("code")) if is_map(error) and is_openai else None
        self._answered(response, self.result.error)

    def _answered(self, response: httpx.Response, code: str | None) -> None:
        self.result.status = response.status_code
        retry_after = response.headers.get("retry-after", "")
        self._history.add(
            Answered(
                at=self._history.now(),
                request=self.result.request,
                status=response.status_code,
                code=code,
                retry_after_seconds=float(retry_after) if retry_after.isdecimal() else None,
            )
        )

    async def _read_stream(self, response: httpx.Response) -> HowEnded:
        parser = SseParser()
        async for piece in response.aiter_bytes():
            for event in parser.feed(piece):
                if event.data == "[DONE]":
                    self._is_done = True
                    self._history.add(StreamDone(at=self._history.now(), request=self.result.request))
                else:
                    self._message(event.data)
        if self.result.error is not None:
            return "error_event"
        return "done" if self._is_done else "clean_end_without_done"

    def _message(self, data: str) -> None:
        self._messages += 1
        payload = parse_json_map(data)
        for event in run_events_in(payload or {}):
            self.result.run = str(event["run"])
            self._history.add(MeshEvent(at=self._history.now(), request=self.result.request, event=event))
        if payload is None:
            self._chunk(data, is_malformed=True)
        elif is_run_event(payload):
            pass  # its `error` is a peer's, not the answer's
        elif (error := payload.get("error")) is not None:
            code = error.get("code") if is_map(error) else None
            self.result.error = str(code or "unknown")
            self._chunk(data, error=self.result.error)
        elif is_list(choices := payload.get("choices")):
            for choice in choices:
                if is_map(choice):
                    self._choice(data, choice)

    def _choice(self, data: str, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        content, calls = (delta.get("content"), delta.get("tool_calls")) if is_map(delta) else ("", 0)
        text = content if isinstance(content, str) else ""
        chars = len(text) + (len(str(calls)) if calls else 0)
        finish = choice.get("finish_reason")
        self.result.text += text
        self.result.finish_reason = finish or self.result.finish_reason
        index = choice.get("index") or 0
        self._chunk(data, chars=chars, choice=index, finish_reason=finish)
        if text:
            self.result.chunks += 1
            self._hook(self.result.chunks)

    def _chunk(self, data: str, **fields: Any) -> None:
        self._history.add(
            Chunk(
                at=self._history.now(),
                request=self.result.request,
                n=self._messages,
                bytes=len(data.encode()),
                **fields,
            )
        )

    def _hook(self, n: int) -> None:
        if self._on_chunk is not None:
            self._on_chunk(n)
