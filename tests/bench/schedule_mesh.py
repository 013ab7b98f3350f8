"""A gateway and providers in one process, whose tasks take the seconds that were drawn for them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schedule_bound import Draw, Peers

from monai_node.agents.run import Runner
from monai_node.mesh.engine.base import EngineCard
from monai_node.mesh.engine.describe import chat_skill
from monai_node.mesh.provider import Provider
from monai_node.registry.advert import ModelInfo
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import MemoryNetwork, open_memory_transport
from monai_node.registry.wire import TASK_PROTOCOL, Label, TaskCompleted, TaskDelta, TaskRequest
from monai_node.router.demand import Demand, of_label
from monai_node.router.dispatch import Dispatcher
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.rank import Candidate, rank_general
from monai_node.router.worth import Knowledge

CHARS_PER_SECOND = 1000  # of work


class TimedEngine:
    """Does each task in the seconds that were drawn for it, at its own speed."""

    def __init__(self, speed: float, slots: int, draws: dict[str, Draw]) -> None:
        self._speed = speed
        self._draws = draws
        self._card = EngineCard((chat_skill("worker", "worker"),), ModelInfo(alias="worker"), slots)

    @property
    def card(self) -> EngineCard:
        return self._card

    async def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        work = self._draws[request.run][request.task]
        await asyncio.sleep(work / self._speed)
        yield TaskDelta(attempt=request.attempt, text="x" * math.ceil(work * CHARS_PER_SECOND))
        yield TaskCompleted(attempt=request.attempt, model="worker")


def _anybody(_: PeerId, label: Label) -> bool:
    return True


@dataclass
class Mesh:
    """A gateway and some providers in one process. Also the run's `Routes`."""

    providers: dict[PeerId, Provider]
    dispatcher: Dispatcher
    health: Health
    draws: dict[str, Draw]
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = Runner(self, self.dispatcher, time.monotonic, "trusted", lambda: datetime.now(UTC))

    def candidates(self) -> Sequence[Candidate]:
        offers = [
            Offer(peer, peer, "trusted", skill, provider.models[0], provider.running, provider.queued)
            for peer, provider in self.providers.items()
            for skill in provider.skills
        ]
        now = time.monotonic()
        return rank_general(offers, of_label("trusted"), Knowledge(self.health), now).candidates

    async def foresee(self, text: str) -> None: ...

    async def for_text(self, text: str, demand: Demand) -> Sequence[Candidate]:
        return self.candidates()

    def for_model(self, model: str, demand: Demand) -> Sequence[Candidate]:
        return self.candidates()

    def for_passthrough(self, demand: Demand) -> Sequence[Candidate]:
        return self.candidates()

    def for_skill(self, skill: str, demand: Demand) -> Sequence[Candidate]:
        return self.candidates()

    def served(self, demand: Demand, candidate: Candidate) -> None:
        pass


@asynccontextmanager
async def open_mesh(peers: Peers) -> AsyncGenerator[Mesh]:
    network, draws, health = MemoryNetwork(), dict[str, Draw](), Health()
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(open_memory_transport(PeerId("gateway"), network))
        providers: dict[PeerId, Provider] = {}
        for number, speed in enumerate(peers.speeds):
            peer = PeerId(f"peer-{number}")
            transport = await stack.enter_async_context(open_memory_transport(peer, network))
            engine = TimedEngine(speed, peers.slots, draws)
            providers[peer] = Provider([engine], _anybody, lambda: None)
            transport.handle(TASK_PROTOCOL, providers[peer].serve)
        yield Mesh(providers, Dispatcher(gateway, time.monotonic, health), health, draws)
