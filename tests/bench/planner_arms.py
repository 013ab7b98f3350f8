"""The planners that can be measured, by name: each makes a plan of a draft, or says why it is not there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.plan import Draft, Plan, PlannerName, finish
from monai_node.agents.segment import Segment
from monai_node.registry.errors import MonaiError
from monai_node.registry.wire import ChatMessage
from monai_node.router.embed import Embedder

NAMES = ("rules", "small", "lora", "model", "auto")
_MODEL_SECONDS = 120.0

Read = Callable[[Sequence[Segment]], Awaitable[Reading]]


class Unavailable(Exception):
    """The planner is not here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the planners that are no part of the package stand, as given on the command line."""

    base: Path | None = None
    adapter: Path | None = None
    url: str | None = None
    model: str = "default"


@dataclass(frozen=True, slots=True)
class Arm:
    """`plan` raises a MonaiError or returns None when it has no plan; `read` is None for a planner that
    labels no segments."""

    name: PlannerName
    plan: Callable[[Draft], Awaitable[Plan | None]]
    read: Read | None = None


@asynccontextmanager
async def open_arm(name: str, files: Files, embedder: Embedder | None) -> AsyncGenerator[Arm]:
    """The planner of that name, ready. Unavailable when it is not here; `auto` is the first that is, of
    the model, the small labeller, the adapter and the rules."""
    async with AsyncExitStack() as stack:
        yield await _open(name, files, embedder, stack)


async def _open(name: str, files: Files, embedder: Embedder | None, stack: AsyncExitStack) -> Arm:
    match name:
        case "rules":
            return _labelling("rules", _by_rules)
        case "small":
            return _labelling("small", await _small(embedder))
        case "lora":
            return _labelling("lora", await _lora(files))
        case "model":
            return await _model(files, stack)
        case _:
            for other in ("model", "small", "lora"):
                try:
                    return await _open(other, files, embedder, stack)
                except Unavailable:
                    continue
            return _labelling("rules", _by_rules)


def _labelling(name: PlannerName, read: Read) -> Arm:
    async def plan(draft: Draft) -> Plan:
        return finish(draft, await read(draft.segments), name)

    return Arm(name, plan, read)


async def _by_rules(segments: Sequence[Segment]) -> Reading:
    return label_by_rules(segments)


async def _small(embedder: Embedder | None) -> Read:
    from monai_node.agents.segment import segment
    from monai_node.mesh.embedders import SentenceEmbedder

    if not isinstance(embedder, SentenceEmbedder):
        raise Unavailable("not available: the small labeller needs the embedder (no --no-embedder)")
    try:
        await embedder.label(segment("Add 3 and 4, then write the sum in French."))
    except MonaiError as error:
        raise Unavailable(f"not available: the small labeller does not answer: {error}") from error
    return embedder.label


async def _lora(files: Files) -> Read:
    if files.adapter is None or files.base is None:
        raise Unavailable("not available: name the base model's and the adapter's GGUF: --base F --adapter F")
    from monai_node.mesh.engine.llama_labeller import LoraLabeller

    try:
        labeller = await asyncio.to_thread(LoraLabeller, files.base, files.adapter)
    except MonaiError as error:
        raise Unavailable(f"not available: {error}") from error

    async def read(segments: Sequence[Segment]) -> Reading:
        return await asyncio.to_thread(labeller, segments)

    return read


async def _model(files: Files, stack: AsyncExitStack) -> Arm:
    from monai_node.agents.writer import plan_with

    if files.url is None:
        raise Unavailable("not available: name a server with an OpenAI endpoint: --url http://HOST:PORT")
    client = await stack.enter_async_context(httpx.AsyncClient(timeout=_MODEL_SECONDS))
    key = os.environ.get("OPENAI_API_KEY", "none")

    async def ask(messages: Sequence[ChatMessage], schema: dict[str, Any]) -> str:
        body = {
            "model": files.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
            "temperature": 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "plan", "schema": schema}},
        }
        answer = await client.post(
            f"{files.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
        )
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    async def plan(draft: Draft) -> Plan | None:
        return await plan_with(ask, draft)

    return Arm("model", plan)
