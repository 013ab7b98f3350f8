"""A gateway before a node: joins directory, router, runs and HTTP, and is what the HTTP face asks."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from monai_node.agents.recipes import accepted, recipe_source
from monai_node.agents.request import RunRequest
from monai_node.mesh.canaries import Canaries
from monai_node.mesh.config import GATEWAY_PORT, GatewayOptions
from monai_node.mesh.foresight import candidates_of
from monai_node.mesh.gateway.backend import ModelEntry, PeerView, Planned, RouteCandidate
from monai_node.mesh.ledger import StoredLedger, open_ledger
from monai_node.mesh.node import Node, Say
from monai_node.mesh.planning import Labellers, Reach, open_planning
from monai_node.mesh.recipes import RecipeFile
from monai_node.mesh.state import write_json
from monai_node.registry.advert import Advert, Beacon, ModelInfo, Skill
from monai_node.registry.errors import MonaiError, NotFound, SetupError, TaskFailed, log_defect
from monai_node.registry.events import RunEvent
from monai_node.registry.ids import PeerId, RunId
from monai_node.registry.membership import PeerRecord
from monai_node.registry.tasks import task_scope
from monai_node.registry.wire import Label
from monai_node.router.candidate import Candidate
from monai_node.router.demand import Demand, Sieve, of_label
from monai_node.router.dispatch import Dispatcher
from monai_node.router.embed import CachedEmbedder, Embedder, Vector
from monai_node.router.estimate import Estimate
from monai_node.router.health import Health
from monai_node.router.index import SkillIndex
from monai_node.router.likeness import PhraseScorer
from monai_node.router.named import rank_models
from monai_node.router.offer import Offer
from monai_node.router.policy import Policy, peer_label, verdict
from monai_node.router.rank import rank, rank_general, rank_named
from monai_node.router.speed import SpeedLedger, Speeds
from monai_node.router.sticky import Conversations
from monai_node.router.worth import Knowledge

if TYPE_CHECKING:
    from fastapi import FastAPI

    from monai_node.agents.run import Runner
    from monai_node.mesh.gateway.server import Address

_log = logging.getLogger(__name__)

# That a request waits for skills that were announced just now.
_INDEX_SECONDS = 1.5
# That the end of a run waits for its plan to be on disk; less than the second that a run may be late.
_KEEPING_SECONDS = 0.5
_NOBODY = "no peer is reachable that offers a skill"


class Front:
    """Implements the gateway's `Backend` and the run's `Routes` on one node."""

    def __init__(
        self,
        node: Node,
        embedder: Embedder,
        recipes: RecipeFile | None = None,
        labellers: Labellers | None = None,
        ledger: StoredLedger | None = None,
    ) -> None:
        from monai_node.agents.run import Runner

        self._node = node
        self._ledger = ledger
        self._recipes = recipes
        self._embedder = CachedEmbedder(embedder)
        self._index = SkillIndex(self._embedder)
        self._health = Health()
        self._speeds = Speeds()
        self._conversations = Conversations()
        self._draw = random.Random().random  # noqa: S311  # which few tasks go to somebody little known
        dispatcher = Dispatcher(
            node.transport,
            time.monotonic,
            self._health,
            heard=node.directory.heard,
            is_alive=lambda peer: node.directory.liveness(peer) == "alive",
            ledger=SpeedLedger(self._speeds, time.monotonic, ledger),
        )
        # Whoever opened a mesh to strangers meant to use it; a private one stays among its members.
        label: Label = "open" if node.mesh.is_open else "trusted"
        self._default_label: Label = label
        self._policy = (node.config.gateway or GatewayOptions()).policy
        self._planning = open_planning(
            (node.config.gateway or GatewayOptions()).planner,
            Reach(self._offers, dispatcher, self._health, time.monotonic),
            node.state.node(node.config.name).path,
            label,
            recipes=recipe_source(recipes) if recipes else None,
            labellers=labellers,
            scorer=PhraseScorer(self._embedder),
        )
        planner = self._planning.planner
        self._runner: Runner = Runner(self, dispatcher, time.monotonic, label, _now, planner)
        self._canaries = (
            Canaries(dispatcher, self._embedder, self._canary_offers, ledger, label, time.monotonic)
            if ledger is not None
            else None
        )
        self._changed = asyncio.Event()
        self._changed.set()
        self._reachable = asyncio.Event()
        node.directory.listen(lambda _: self._changed.set())

    async def keep_indexed(self) -> None:
        """Embed what peers announce when they announce it, so that no request waits for it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._index.update(self._offers())
            except MonaiError as error:
                # Requests embed what is missing themselves, and say so when that fails.
                _log.warning("skills could not be indexed: %s", error)
            if len(self._index):
                self._reachable.set()

    async def keep_examined(self) -> None:
        """Find out which models of the mesh plan better than we do, when nobody needs them."""
        await self._planning.keep_examined()

    async def keep_asking_canaries(self) -> None:
        """Find out which peers do tasks well whose answers are known, when nobody needs them."""
        if self._canaries is not None:
            await self._canaries.keep_asking()

    async def until_reachable(self) -> None:
        """Return when a skill of some peer can be matched."""
        await self._reachable.wait()

    # --- what the HTTP face asks --------------------------------------------------------------------
    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        with self._canaries.paused() if self._canaries else nullcontext():
            async with aclosing(self._runner.run(request)) as events:
                async for event in events:
                    yield event

    async def plan(self, request: RunRequest) -> Planned:
        plan = await self._runner.plan(request)
        label = request.options.privacy or self._default_label
        found = await candidates_of(plan, request, label, self, self._embedder)
        return Planned(plan, {name: _shown(candidates) for name, candidates in found.items()})

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

    async def route(self, text: str, label: Label) -> Sequence[RouteCandidate]:
        return _shown(await self.for_text(text, of_label(label)))

    def models(self) -> Sequence[ModelEntry]:
        return [
            ModelEntry(
                alias=model.alias,
                peer=peer,
                peer_name=name,
                digest=model.digest,
                architecture=model.architecture,
                parameter_count=model.parameter_count,
                quantisation=model.quantisation,
                n_ctx=model.n_ctx,
                licence=model.licence,
            )
            for peer, name, model in self._reachable_models()
        ]

    def peers(self) -> Sequence[PeerView]:
        now = time.monotonic()
        records = sorted(self._node.directory.membership.records(), key=lambda record: record.peer)
        return [self._self_view(), *(_view(record, now) for record in records)]

    def is_ready(self) -> tuple[bool, str]:
        return (True, "") if self._offers() else (False, _NOBODY)

    # --- what a run asks ----------------------------------------------------------------------------
    async def for_text(self, text: str, demand: Demand) -> Sequence[Candidate]:
        demand = demand.within(self._policy)
        try:
            await self._index_offers()
            matches = await self._index.match(text, Sieve(demand))
        except TaskFailed as error:
            # Without the embedder nobody can say who is best; a general model still answers.
            _log.warning("the embedder failed, a general model is asked instead: %s", error)
            return self.for_passthrough(demand)
        now, offers = time.monotonic(), self._index.offers
        return rank(matches, demand, self._knowledge(matches.vector), now, offers).candidates

    async def _index_offers(self) -> None:
        """What is announced at this moment; what was announced just now only if it is embedded in time:
        a peer that announces thousands of new words again and again must not hold every request up."""
        offers = self._offers()
        limit = asyncio.timeout(_INDEX_SECONDS)
        try:
            async with limit:
                await self._index.update(offers)
        except TimeoutError:
            if not limit.expired():
                raise
            self._index.retain(offers)

    def for_model(self, model: str, demand: Demand) -> Sequence[Candidate]:
        alias, _, peer = model.partition("@")
        wanted, now = self._wanted(demand), time.monotonic()
        return rank_models(self._offers(), alias, peer or None, wanted, self._knowledge(), now).candidates

    def for_passthrough(self, demand: Demand) -> Sequence[Candidate]:
        wanted = self._wanted(demand)
        return rank_general(self._offers(), wanted, self._knowledge(), time.monotonic()).candidates

    def for_skill(self, skill: str, demand: Demand) -> Sequence[Candidate]:
        found = [offer for offer in self._offers() if offer.skill.id == skill]
        if not found:
            known = ", ".join(sorted({offer.skill.id for offer in self._offers()})[:10]) or "none"
            raise NotFound(f"no reachable peer offers the skill {skill!r}; known skills: {known}")
        why = f"skill {skill!r} was asked for"
        return rank_named(found, why, self._wanted(demand), self._knowledge(), time.monotonic()).candidates

    def served(self, demand: Demand, candidate: Candidate) -> None:
        self._conversations.served(demand, candidate, time.monotonic())

    def _wanted(self, demand: Demand) -> Demand:
        """Under the owner's policy too, and with whoever answered the conversation before."""
        sticky = self._conversations.former(demand, time.monotonic())
        return replace(demand.within(self._policy), sticky=sticky)

    def _knowledge(self, vector: Vector | None = None) -> Knowledge:
        """What is known of peers; how well they do tasks like the one with this vector, where outcomes are
        kept."""
        if self._ledger is None:
            return Knowledge(self._health, self._speeds)
        view = self._ledger.estimates.view(vector, time.time())

        def chance(offer: Offer) -> Estimate:
            return view.of(offer.peer, offer.skill.id, offer.model.digest if offer.model is not None else "")

        return Knowledge(self._health, self._speeds, chance, self._draw())

    # --- who offers what ----------------------------------------------------------------------------
    def _offers(self) -> list[Offer]:
        """Every skill that may be given a task now: our own, and those of peers that are alive."""
        own = self._node.provider
        now = time.monotonic()
        load = (own.running, own.queued, 0.0)
        found = [
            self._offer(self._node.peer_id, self._node.config.name, skill, own.models, load)
            for skill in own.skills
        ]
        for record, advert in self._announced():
            if record.beacon is None or record.beacon.admission == "accepting":
                # Every answer to a probe brings the load along.
                load = (*_load(record.beacon), now - record.heard_at)
                found += [
                    self._offer(record.peer, advert.name, skill, advert.models, load)
                    for skill in advert.skills
                ]
        return found

    def _canary_offers(self) -> list[Offer]:
        """Of whom a task may be asked that nobody waits for: those that may see a usual request, for
        nothing."""
        policy = Policy(self._default_label).within(self._policy)
        return [offer for offer in self._offers() if not offer.skill.price and not verdict(offer, policy)]

    def _offer(
        self, peer: PeerId, name: str, skill: Skill, models: Sequence[ModelInfo], load: tuple[int, int, float]
    ) -> Offer:
        return Offer(
            peer=peer,
            peer_name=name,
            label=peer_label(peer, self._node.peer_id, self._node.mesh.is_open),
            skill=skill,
            model=next((model for model in models if model.alias == skill.model), None),
            running=load[0],
            queued=load[1],
            load_age_seconds=load[2],
        )

    def _announced(self) -> Iterator[tuple[PeerRecord, Advert]]:
        for record in self._node.directory.membership.alive():
            if record.advert is not None:
                yield record, record.advert

    def _reachable_models(self) -> Iterator[tuple[PeerId, str, ModelInfo]]:
        for model in self._node.provider.models:
            yield self._node.peer_id, self._node.config.name, model
        for record, advert in self._announced():
            for model in advert.models:
                yield record.peer, advert.name, model

    def _self_view(self) -> PeerView:
        node = self._node
        return PeerView(
            id=node.peer_id,
            name=node.config.name,
            state="self",
            addrs=list(node.transport.addrs),
            models=[model.alias for model in node.provider.models],
            skills=[skill.id for skill in node.provider.skills],
            running=node.provider.running,
            queued=node.provider.queued,
        )


def _shown(candidates: Sequence[Candidate]) -> list[RouteCandidate]:
    return [
        RouteCandidate(
            peer=candidate.peer,
            peer_name=candidate.peer_name,
            skill=candidate.skill,
            model=candidate.model,
            score=round(candidate.score, 4),
            reasons=list(candidate.reasons),
            is_chosen=position == 0,
        )
        for position, candidate in enumerate(candidates)
    ]


def _keep(recipes: RecipeFile, request: RunRequest, label: Label) -> None:
    found = accepted(request, label)
    if found is not None:
        recipes.keep(*found)


def _view(record: PeerRecord, now: float) -> PeerView:
    advert = record.advert
    running, queued = _load(record.beacon)
    return PeerView(
        id=record.peer,
        name=advert.name if advert else "",
        state=record.liveness,
        addrs=list(record.addrs),
        models=[model.alias for model in advert.models] if advert else [],
        skills=[skill.id for skill in advert.skills] if advert else [],
        running=running,
        queued=queued,
        last_heard_seconds=round(now - record.heard_at, 3),
    )


def _load(beacon: Beacon | None) -> tuple[int, int]:
    return (beacon.running, beacon.queued) if beacon else (0, 0)


def _now() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A listening gateway."""

    url: str
    front: Front


# --- opening --------------------------------------------------------------------------------------
@asynccontextmanager
async def open_gateway(node: Node, say: Say) -> AsyncGenerator[Gateway]:
    """Load the embedder, listen for HTTP, and tell this user's other commands where.

    SetupError when the port is taken or the gateway's packages are missing.
    """
    from monai_node.mesh.embedders import open_embedder

    options = node.config.gateway or GatewayOptions()
    await asyncio.to_thread(_check_port, options)
    say("loading the embedder")
    async with open_embedder(options.embedder, node.state.node(node.config.name).path) as embedder:
        if not embedder.has_labeller:
            say("the embedder runs without torch, and so without the small labeller: rules divide requests")
        try:
            # Off the loop: these imports take seconds, in which peers probe us.
            await asyncio.to_thread(_import_heavy_packages)
        except ModuleNotFoundError as error:
            raise SetupError(
                f"a gateway needs the package {error.name}: pip install 'monai-node[gateway]'"
            ) from None
        from monai_node.mesh.gateway.app import create_app

        recipes = RecipeFile(node.state.recipes_file) if options.has_recipes else None
        labellers = Labellers(small=embedder.label if embedder.has_labeller else None)
        file = node.state.node(node.config.name).store_file
        async with (
            open_ledger(file, embedder.fingerprint, time.time) as ledger,
            task_scope() as scope,
        ):
            front = Front(node, embedder, recipes, labellers, ledger)
            async with _listen(create_app(front), options) as address:
                scope.start(front.keep_indexed(), name="skill index")
                scope.start(front.keep_examined(), name="planners' exams")
                if options.has_canaries:
                    scope.start(front.keep_asking_canaries(), name="canaries")
                with _announced_here(node, address.url):
                    yield Gateway(address.url, front)


def _check_port(options: GatewayOptions) -> None:
    """Say what is wrong with an address before anything is loaded, which takes seconds."""
    with contextlib.suppress(ModuleNotFoundError):  # told later, with what to install
        from monai_node.mesh.gateway.server import listen

        listen(options.host, options.port or 0).close()


def _import_heavy_packages() -> None:
    for module in ("langgraph.graph", "monai_node.agents.run", "monai_node.mesh.gateway.app"):
        importlib.import_module(module)


@asynccontextmanager
async def _listen(app: FastAPI, options: GatewayOptions) -> AsyncGenerator[Address]:
    """On the port asked for; when none was, on ours, or on a free one if that is taken."""
    from monai_node.mesh.gateway.server import open_server

    async with contextlib.AsyncExitStack() as stack:
        port = GATEWAY_PORT if options.port is None else options.port
        try:
            address = await stack.enter_async_context(open_server(app, options.host, port))
        except SetupError:
            if options.port is not None:
                raise
            address = await stack.enter_async_context(open_server(app, options.host, 0))
        yield address


@contextlib.contextmanager
def _announced_here(node: Node, url: str) -> Generator[None]:
    """Keep gateway.json while we listen, so that `ask` and `serve` of this user need no address."""
    file = node.state.gateway_file
    try:
        write_json(file, {"url": url, "join": str(node.join_line), "pid": os.getpid()})
    except OSError as error:
        raise SetupError(f"{file} cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
