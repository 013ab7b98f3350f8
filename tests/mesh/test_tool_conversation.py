"""A conversation with tool calls over several requests, between two peers that serve the same model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from monai_node.agents.request import RunRequest
from monai_node.agents.run import Runner
from monai_node.mesh.engine.scripted import Calls, ScriptedEngine
from monai_node.mesh.offers import Offers
from monai_node.mesh.provider import Provider
from monai_node.mesh.routing import Evidence, Routing
from monai_node.registry.events import AnswerCompleted, AnswerDelta, RunEvent, RunFailed
from monai_node.registry.ids import PeerId, new_run_id
from monai_node.registry.transport import MemoryNetwork, open_memory_transport
from monai_node.registry.wire import TASK_PROTOCOL, ChatMessage, Parameters, TaskRequest
from monai_node.router.dispatch import Dispatcher
from monai_node.router.embed import Embedder
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.policy import NO_POLICY
from monai_node.router.speed import Speeds

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}
ASKED = ChatMessage(role="user", content="Is it warm in Oslo?")


def _reply(request: TaskRequest) -> str | Calls:
    """The tool is called until its result is there."""
    return "It is warm." if request.input.turns[-1].role == "tool" else Calls("weather", "{}")


class _Mesh:
    """Two peers; what they announce is changed by the test."""

    def __init__(self, *features: str) -> None:
        self.engines = {
            PeerId(name): ScriptedEngine(_reply, features=features) for name in ("peer-ada", "peer-bob")
        }
        self.offers = [
            Offer(
                peer, "", "trusted", engine.card.skills[0], engine.card.model, load_told_at=time.monotonic()
            )
            for peer, engine in self.engines.items()
        ]

    def now(self) -> list[Offer]:
        return self.offers

    def load(self, peer: PeerId, running: int) -> None:
        self.offers = [replace(it, running=running if it.peer == peer else 0) for it in self.offers]

    @asynccontextmanager
    async def runner(self) -> AsyncGenerator[Runner]:
        network, health, nobody = MemoryNetwork(), Health(), cast("Embedder", None)
        first, second = self.engines
        async with (
            open_memory_transport(PeerId("peer-here"), network) as here,
            open_memory_transport(first, network) as one,
            open_memory_transport(second, network) as other,
        ):
            for transport, engine in zip((one, other), self.engines.values(), strict=True):
                provider = Provider([engine], lambda _peer, _label: True, lambda: None)
                transport.handle(TASK_PROTOCOL, provider.serve)
            evidence = Evidence(health, Speeds(), None)
            routing = Routing(cast("Offers", self), nobody, nobody, NO_POLICY, evidence)
            dispatcher = Dispatcher(here, time.monotonic, health)
            yield Runner(routing, dispatcher, time.monotonic, "trusted", lambda: datetime.now(UTC))


async def _ask(runner: Runner, *messages: ChatMessage, **parameters: Any) -> list[RunEvent]:
    request = RunRequest(new_run_id(), messages, parameters=Parameters.model_validate(parameters))
    return [event async for event in runner.run(request)]


def _ended(events: list[RunEvent]) -> AnswerCompleted:
    assert isinstance(events[-1], AnswerCompleted), events[-1]
    return events[-1]


def test_a_conversation_with_tool_calls_stays_with_its_peer_though_another_is_free() -> None:
    mesh = _Mesh("tools")

    async def main() -> None:
        async with asyncio.timeout(20), mesh.runner() as runner:
            first = _ended(await _ask(runner, ASKED, tools=[TOOL]))
            assert first.finish_reason == "tool_calls"
            peer = PeerId(first.parts[0].peer)
            mesh.load(peer, 5)
            called = ChatMessage(role="assistant", content="", extra={"tool_calls": first.tool_calls})
            result = ChatMessage(role="tool", content="warm", extra={"tool_call_id": "call_1"})
            second = _ended(await _ask(runner, ASKED, called, result, tools=[TOOL]))
            assert (second.finish_reason, second.parts[0].peer) == ("stop", peer)
            # A conversation of which nobody knows anything goes to whoever is free.
            anew = _ended(await _ask(runner, _saying(ASKED, "Is it cold?"), tools=[TOOL]))
            assert anew.parts[0].peer != peer

    asyncio.run(main())


def _saying(message: ChatMessage, text: str) -> ChatMessage:
    return message.model_copy(update={"content": text})


def test_what_is_told_of_tokens_reaches_the_answer_of_one_task() -> None:
    mesh = _Mesh("logprobs", "tools")

    async def main() -> None:
        async with asyncio.timeout(20), mesh.runner() as runner:
            two = ChatMessage(role="user", content="Write a poem and translate it into German.")
            result = ChatMessage(role="tool", content="x", extra={"tool_call_id": "call_1"})
            events = await _ask(runner, two, result, logprobs=0)
            deltas = [event for event in events if isinstance(event, AnswerDelta)]
            assert "".join(delta.text for delta in deltas) == "It is warm."
            told = [token.token for delta in deltas for token in delta.logprobs]
            assert "".join(told) == "It is warm."
            assert len(_ended(events).parts) == 1

    asyncio.run(main())


def test_what_nobody_is_able_to_do_is_said_by_name() -> None:
    wanted: dict[str, dict[str, Any]] = {
        "tools": {"tools": [TOOL]},
        "logprobs": {"logprobs": 2},
        "logit_bias": {"logit_bias": {"1": 2.0}},
    }

    async def main() -> None:
        async with asyncio.timeout(20), _Mesh().runner() as runner:
            for param, parameters in wanted.items():
                request = RunRequest(
                    new_run_id(), (ASKED,), "scripted", parameters=Parameters.model_validate(parameters)
                )
                events = [event async for event in runner.run(request)]
                failed = events[-1]
                assert isinstance(failed, RunFailed)
                assert (failed.status, failed.param) == (422, param)

    asyncio.run(main())
