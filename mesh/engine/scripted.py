"""An engine that says what it is told to: for tests of whatever stands above an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from monai_node.mesh.engine.base import EngineCard
from monai_node.mesh.engine.describe import chat_skill
from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.wire import TaskCompleted, TaskDelta, TaskRequest, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class Breaks:
    """A reply that shows `text` and then raises `error`."""

    error: Exception
    text: str = ""


@dataclass(frozen=True, slots=True)
class Calls:
    """A reply that shows no text and calls this function, with arguments as JSON."""

    name: str
    arguments: str = "{}"


Reply = str | Breaks | Calls
Script = Reply | Sequence[Reply] | Callable[[TaskRequest], Reply]


async def _no_pause() -> None: ...


class ScriptedEngine:
    """Replies from a script, in pieces, and remembers what it was asked.

    `script` is one reply for every request, a list of replies used in turn (the last one repeats),
    or a function of the request. `pause` is awaited before every piece and before the end: hand in a
    gate to stop it anywhere. A reply that begins with `request.prefix` goes on after it. Who asks for
    logprobs is told each piece as a token that was certain.
    """

    def __init__(
        self,
        script: Script = "",
        *,
        alias: str = "scripted",
        skills: Sequence[Skill] | None = None,
        piece_chars: int = 8,
        pause: Callable[[], Awaitable[object]] = _no_pause,
        concurrency: int = 1,
        features: Sequence[str] = (),
    ) -> None:
        self._script = script
        self._alias = alias
        self._piece_chars = piece_chars
        self._pause = pause
        self._card = EngineCard(
            skills=tuple(skills) if skills is not None else (chat_skill(alias, alias),),
            model=ModelInfo(alias=alias, features=list(features)),
            concurrency=concurrency,
        )
        self.requests: list[TaskRequest] = []
        self.completed: list[TaskRequest] = []
        self.cancelled: list[TaskRequest] = []  # closed, or cancelled, before they had ended

    @property
    def card(self) -> EngineCard:
        return self._card

    async def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted, None]:
        self.requests.append(request)
        reply = self._reply(request)
        broken = reply if isinstance(reply, Breaks) else None
        text = reply if isinstance(reply, str) else "" if isinstance(reply, Calls) else reply.text
        text = text.removeprefix(request.prefix)
        is_over = False
        try:
            for at in range(0, len(text), self._piece_chars):
                await self._pause()
                yield _delta(request, text[at : at + self._piece_chars])
            await self._pause()
            is_over = True
            if broken is not None:
                raise broken.error
            self.completed.append(request)
            yield self._completed(request, text, reply if isinstance(reply, Calls) else None)
        finally:
            if not is_over:
                self.cancelled.append(request)

    def _reply(self, request: TaskRequest) -> Reply:
        script = self._script
        if isinstance(script, str | Breaks | Calls):
            return script
        if callable(script):
            return script(request)
        return script[min(len(self.requests), len(script)) - 1]

    def _completed(self, request: TaskRequest, text: str, called: Calls | None) -> TaskCompleted:
        function = {"name": called.name, "arguments": called.arguments} if called else {}
        return TaskCompleted(
            attempt=request.attempt,
            model=self._alias,
            finish_reason="tool_calls" if called else "stop",
            tool_calls=[{"id": "call_1", "type": "function", "function": function}] if called else [],
            usage=Usage(prompt_tokens=len(request.input.text.split()), completion_tokens=len(text.split())),
        )


def _delta(request: TaskRequest, text: str) -> TaskDelta:
    told = TokenLogprob(token=text, logprob=0.0, bytes=list(text.encode()))
    is_asked = request.parameters.logprobs is not None
    return TaskDelta(attempt=request.attempt, text=text, logprobs=[told] if is_asked else [])
