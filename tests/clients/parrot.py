"""A gateway on a real socket, before a model that does what its request asks for, without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from monai_node.agents.request import RunRequest
from monai_node.mesh.embeddings import EmbeddingModel
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.backend import ModelEntry
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.testing import ScriptedBackend, completed, provenance
from monai_node.registry.errors import NoProvider, NotFound, PeerLost
from monai_node.registry.events import AnswerDelta, PlanTask, RunCreated, RunEvent
from monai_node.registry.wire import LikelyToken, TokenLogprob

WAIT_SECONDS = 15.0
SLOW_SECONDS = 1.0
ALIAS = "parrot"
EMBEDDER = EmbeddingModel("three-numbers", dimensions=3, tokens_max=512, vocabulary=1000)
BREAKS = "break off"  # said by a user: a peer is lost after the first word
SLOW = "take your time"  # said by a user: nothing is answered for a second
BUSY = "be busy"  # said by a user: at the first try there is nobody, at the next one there is


@dataclass(slots=True)
class Parrot(ScriptedBackend):
    """Says what its user said. Where tools are to be called it calls them all, with the smallest arguments
    that they take; after the results it says those. Where a schema is asked for, it says such a value."""

    entries: Sequence[ModelEntry] = (ModelEntry(ALIAS, "12D3KooWanna", "anna"),)
    embeds_with: EmbeddingModel | None = EMBEDDER

    def __post_init__(self) -> None:
        self.script = self.play

    async def play(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        yield RunCreated(run=request.run)
        yield PlanTask(run=request.run, task="t1", text="say it", depends_on=[])
        if request.model not in ("mesh", ALIAS, f"{ALIAS}@12D3KooWanna"):
            raise NotFound("there is no such model here", code="model_not_found", param="model")
        said = request.messages[-1].content
        if said == BUSY and len(self.requests) == 1:
            raise NoProvider("nobody is there", retry_after_seconds=1)
        if said == SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        done = completed(request.run, provenance(model=ALIAS))
        if calls := _calls(request):
            yield done.model_copy(update={"finish_reason": "tool_calls", "tool_calls": calls})
            return
        for word in _words(request):
            yield AnswerDelta(run=request.run, text=word, logprobs=_chances(request, word))
            if said == BREAKS:
                raise PeerLost("anna is gone")
        yield done


def _words(request: RunRequest) -> list[str]:
    results = [message.content for message in request.messages if message.role == "tool"]
    said = request.messages[-1].content
    if request.parameters.json_schema is not None:
        said = encode_json(smallest(request.parameters.json_schema)).decode()
    elif request.messages[-1].role == "tool":
        said = "It is " + " and ".join(results)
    first, *others = said.split(" ")
    return [first, *(f" {word}" for word in others)]


def _calls(request: RunRequest) -> list[dict[str, Any]]:
    """The calls of every tool that may be called, of the chosen one only where there is one."""
    parameters = request.parameters
    if not parameters.tools or parameters.tool_choice == "none" or request.messages[-1].role == "tool":
        return []
    chosen = parameters.tool_choice if isinstance(parameters.tool_choice, dict) else {}
    functions = [tool["function"] for tool in parameters.tools]
    wanted = chosen.get("function", {}).get("name")
    called = [function for function in functions if wanted in (None, function["name"])]
    return [
        {
            "id": f"call_{n}",
            "function": {"name": function["name"], "arguments": smallest(function.get("parameters") or {})},
        }
        for n, function in enumerate(called)
    ]


def smallest(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """A value that such schemas as clients make of types allow."""
    root = schema if root is None else root
    if "$ref" in schema:
        return smallest(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return smallest(schema[several][0], root)
    match schema.get("type"):
        case "object" | None:
            return {name: smallest(each, root) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [smallest(schema["items"], root)]
        case "string":
            return "Oslo"
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return schema.get("minimum", 7)


def _chances(request: RunRequest, word: str) -> list[TokenLogprob]:
    if request.parameters.logprobs is None:
        return []
    others = [LikelyToken(token="Ho", logprob=-2.0, bytes=[72, 111])][: request.parameters.logprobs]
    return [TokenLogprob(token=word, logprob=-0.5, bytes=list(word.encode()), top=others)]


@dataclass(frozen=True, slots=True)
class Gateway:
    """One that listens: its address, and what stands behind it."""

    url: str
    backend: Parrot

    @property
    def base(self) -> str:
        """What a client of OpenAI's is pointed at."""
        return f"{self.url}/v1"


@contextmanager
def open_gateway(access: Access | None = None, config: GatewayConfig | None = None) -> Generator[Gateway]:
    """A gateway in a thread of its own, for clients that block theirs."""
    backend, ready, urls = Parrot(), threading.Event(), list[str]()
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stopping = asyncio.Event()
        stop.append((asyncio.get_running_loop(), stopping))
        app = create_app(backend, config, access)
        async with open_server(app, "127.0.0.1", 0, drain_seconds=1) as address:
            urls.append(address.url)
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="gateway")
    thread.start()
    try:
        assert ready.wait(WAIT_SECONDS)
        yield Gateway(urls[0], backend)
    finally:
        loop, stopping = stop[0]
        loop.call_soon_threadsafe(stopping.set)
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
