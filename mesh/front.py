"""A gateway before a node: joins directory, router and runs, and is what the HTTP face asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from monai_node.agents.recipes import accepted, recipe_source
from monai_node.agents.request import RunRequest
from monai_node.mesh.canaries import Canaries
from monai_node.mesh.config import GatewayOptions
from monai_node.mesh.embeddings import Embedded, EmbeddingModel, Embeddings, Text
from monai_node.mesh.foresight import candidates_of
from monai_node.mesh.gateway.backend import ModelEntry, PeerView, Planned, Routed
from monai_node.mesh.ledger import StoredLedger
from monai_node.mesh.node import Node
from monai_node.mesh.offers import Offers
from monai_node.mesh.planning import Labellers, Reach, open_planning
from monai_node.mesh.recipes import RecipeFile
from monai_node.mesh.routing import Evidence, Routing, shown
from monai_node.mesh.store import Decision
from monai_node.registry.errors import MonaiError, NotFound, Unsupported, log_defect
from monai_node.registry.events import RunEvent
from monai_node.registry.ids import RunId
from monai_node.registry.wire import Label
from monai_node.router.demand import of_label
from monai_node.router.dispatch import Dispatcher
from monai_node.router.embed import CachedEmbedder, Embedder
from monai_node.router.health import Health
from monai_node.router.likeness import PhraseScorer
from monai_node.router.offer import Offer
from monai_node.router.outcome import Ledger, Ledgers
from monai_node.router.policy import Policy, verdict
from monai_node.router.speed import SpeedLedger, Speeds

if TYPE_CHECKING:
    from monai_node.agents.run import Runner

_log = logging.getLogger(__name__)

# That the end of a run waits for its plan to be on disk; less than the second that a run may be late.
_KEEPING_SECONDS = 0.5
_NOBODY = "no peer is reachable that offers a skill"


class Front:
    """Implements the gateway's `Backend` on one node. `announced` makes the vectors of what peers announce,
    where another embedder than that of requests does; `told` are told of every attempt at a task."""

    def __init__(
        self,
        node: Node,
        embedder: Embedder,
        recipes: RecipeFile | None = None,
        labellers: Labellers | None = None,
        ledger: StoredLedger | None = None,
        announced: Embedder | None = None,
        embeddings: Embeddings | None = None,
        told: Sequence[Ledger] = (),
    ) -> None:
        from monai_node.agents.run import Runner

        options = node.config.gateway or GatewayOptions()
        # Whoever opened a mesh to strangers meant to use it; a private one stays among its members.
        label: Label = "open" if node.mesh.is_open else "trusted"
        self._default_label: Label = label
        self._policy = options.policy
        self._recipes = recipes
        self._ledger = ledger
        self._embeddings = embeddings
        self._embedder = CachedEmbedder(embedder)
        self._offers = Offers(node)
        evidence = Evidence(Health(), Speeds(), ledger)
        self._health = evidence.health
        attempts = Ledgers(*(each for each in (ledger, node.traces, *told) if each is not None))
        self.routing = Routing(
            self._offers, self._embedder, announced or self._embedder, options.policy, evidence
        )
        dispatcher = _dispatcher(node, evidence, attempts)
        self._planning = open_planning(
            options.planner,
            Reach(self._offers.now, dispatcher, evidence.health, time.monotonic, options.policy),
            node.state.node(node.config.name).path,
            label,
            recipes=recipe_source(recipes) if recipes else None,
            labellers=labellers,
            scorer=PhraseScorer(self._embedder),
        )
        planner = self._planning.planner
        self._runner: Runner = Runner(self.routing, dispatcher, time.monotonic, label, _now, planner)
        self._canaries = (
            Canaries(dispatcher, self._embedder, self._canary_offers, ledger, label, time.monotonic)
            if ledger is not None
            else None
        )
        node.directory.listen(lambda _: self.routing.change())

    async def keep_examined(self) -> None:
        """Find out which models of the mesh plan better than we do, when nobody needs them."""
        await self._planning.keep_examined()

    async def keep_asking_canaries(self) -> None:
        """Find out which peers do tasks well whose answers are known, when nobody needs them."""
        if self._canaries is not None:
            await self._canaries.keep_asking()

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        with self._undisturbed():
            async with aclosing(self._runner.run(request)) as events:
                async for event in events:
                    yield event

    async def plan(self, request: RunRequest) -> Planned:
        label = request.options.privacy or self._default_label
        with self._undisturbed():
            plan = await self._runner.plan(request)
            found = await candidates_of(plan, request, label, self.routing, self._embedder)
        return Planned(plan, {name: shown(candidates) for name, candidates in found.items()})

    async def accept(self, request: RunRequest) -> None:
        if self._recipes is None:
            return
        try:
            async with asyncio.timeout(_KEEPING_SECONDS):
                label = request.options.privacy or self._default_label
                await asyncio.to_thread(_keep, self._recipes, request, label)
        except (MonaiError, TimeoutError) as error:
            _log.warning("an accepted plan could not be kept: %s", str(error) or "the disk is too slow")
        except Exception as error:
            # The run went well; a defect in what is remembered of it must not take its answer away.
            log_defect("keeping an accepted plan", error)

    async def feedback(self, run: RunId, task: str | None, rating: float) -> Sequence[str]:
        if self._ledger is None:
            raise NotFound("nothing is remembered of runs here", code="run_not_found", param="run")
        return self._ledger.rate(run, task, rating)

    async def decisions(self, limit: int) -> Sequence[Decision]:
        return await self._ledger.decisions(limit) if self._ledger is not None else ()

    async def route(self, text: str, label: Label | None) -> Routed:
        with self._undisturbed():
            return await self.routing.explain(text, of_label(label or self._default_label))

    def embedding_model(self) -> EmbeddingModel | None:
        return self._embeddings.model if self._embeddings is not None else None

    async def embed(self, texts: Sequence[Text]) -> Embedded:
        if self._embeddings is None:
            raise Unsupported("this gateway makes no embeddings")
        with self._undisturbed():
            return await self._embeddings.embed(texts)

    def models(self) -> Sequence[ModelEntry]:
        return self._offers.models()

    def peers(self) -> Sequence[PeerView]:
        return self._offers.peers(time.monotonic())

    def ejected_count(self) -> int:
        cooling = self._health.cooling(time.monotonic())
        return len({entry if isinstance(entry, str) else entry[0] for entry in cooling})

    def is_ready(self) -> tuple[bool, str]:
        return (True, "") if self._offers.now() else (False, _NOBODY)

    def _undisturbed(self) -> AbstractContextManager[None]:
        """Somebody waits: no canary is under way."""
        return self._canaries.paused() if self._canaries is not None else nullcontext()

    def _canary_offers(self) -> list[Offer]:
        """Of whom a task may be asked that nobody waits for: those that may see a usual request, for
        nothing."""
        policy = Policy(self._default_label).within(self._policy)
        return [offer for offer in self._offers.now() if not offer.skill.price and not verdict(offer, policy)]


def _dispatcher(node: Node, evidence: Evidence, attempts: Ledger) -> Dispatcher:
    return Dispatcher(
        node.transport,
        time.monotonic,
        evidence.health,
        heard=node.directory.heard,
        is_alive=lambda peer: node.directory.liveness(peer) == "alive",
        ledger=SpeedLedger(evidence.speeds, time.monotonic, attempts),
        traceparent_of=node.traces.traceparent_of if node.traces is not None else None,
    )


def _keep(recipes: RecipeFile, request: RunRequest, label: Label) -> None:
    found = accepted(request, label)
    if found is not None:
        recipes.keep(*found)


def _now() -> datetime:
    return datetime.now().astimezone()
