"""Who may be asked for a task at this moment, best first: implements `agents.means.Routes` on one node."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from monai_node.mesh.gateway.backend import PassedOver, RouteCandidate, Routed
from monai_node.mesh.ledger import StoredLedger
from monai_node.mesh.offers import Offers
from monai_node.registry.errors import MonaiError, NoProvider, NotFound, TaskFailed, Unsupported
from monai_node.router.candidate import Candidate, Ranking
from monai_node.router.demand import Demand, Sieve
from monai_node.router.embed import Embedder, Vector
from monai_node.router.estimate import Estimate
from monai_node.router.health import Health
from monai_node.router.index import SkillIndex
from monai_node.router.named import rank_models
from monai_node.router.offer import Offer
from monai_node.router.policy import Policy
from monai_node.router.rank import rank, rank_general, rank_named
from monai_node.router.speed import Speeds
from monai_node.router.sticky import Conversations, stay
from monai_node.router.texts import cleaned
from monai_node.router.worth import Knowledge

_log = logging.getLogger(__name__)

# That a request waits for skills that were announced just now.
_INDEX_SECONDS = 1.5
_KNOWN_SKILLS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Evidence:
    """What this node found out about its peers. Without a ledger nothing is known of how well they do."""

    health: Health
    speeds: Speeds
    ledger: StoredLedger | None


class Routing:
    """Ranks what is offered now under the owner's policy. `embedder` also makes the vectors of requests,
    `announced` those of what peers announce."""

    def __init__(
        self, offers: Offers, embedder: Embedder, announced: Embedder, policy: Policy, evidence: Evidence
    ) -> None:
        self._offers = offers
        self._embedder = embedder
        self._index = SkillIndex(embedder, announced)
        self._policy = policy
        self._evidence = evidence
        self._conversations = Conversations()
        self._draw = random.Random().random  # noqa: S311  # which few tasks go to somebody little known
        self._changed = asyncio.Event()
        self._changed.set()
        self._reachable = asyncio.Event()

    def change(self) -> None:
        """Something else is announced from now on."""
        self._changed.set()

    async def keep_indexed(self) -> None:
        """Embed what peers announce when they announce it, so that no request waits for it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._index.update(self._offers.now())
            except MonaiError as error:
                # Requests embed what is missing themselves, and say so when that fails.
                _log.warning("skills could not be indexed: %s", error)
            if len(self._index):
                self._reachable.set()

    async def until_reachable(self) -> None:
        """Return when a skill of some peer can be matched."""
        await self._reachable.wait()

    # --- Routes -------------------------------------------------------------------------------------
    async def foresee(self, text: str) -> None:
        # What goes wrong here goes wrong again in `for_text`, which knows what to do without a vector.
        with suppress(MonaiError):
            await self._embedder.embed([cleaned(text)])

    async def for_text(self, text: str, demand: Demand) -> Sequence[Candidate]:
        return (await self._ranking(text, Sieve(demand.within(self._policy)))).candidates

    def for_model(self, model: str, demand: Demand) -> Sequence[Candidate]:
        alias, _, peer = model.partition("@")
        wanted, now = self._wanted(demand), time.monotonic()
        ranking = rank_models(self._offers.now(), alias, peer or None, wanted, self._knowledge(), now)
        return _in_place(ranking, wanted)

    def for_passthrough(self, demand: Demand) -> Sequence[Candidate]:
        wanted = self._wanted(demand)
        return _in_place(self._general(wanted), wanted)

    def for_skill(self, skill: str, demand: Demand) -> Sequence[Candidate]:
        offers = self._offers.now()
        found = [offer for offer in offers if offer.skill.id == skill]
        if not found:
            known = sorted({offer.skill.id for offer in offers})[:_KNOWN_SKILLS_SHOWN]
            raise NotFound(
                f"no reachable peer offers the skill {skill!r}; known skills: {', '.join(known) or 'none'}"
            )
        why = f"skill {skill!r} was asked for"
        return rank_named(found, why, self._wanted(demand), self._knowledge(), time.monotonic()).candidates

    def served(self, demand: Demand, candidate: Candidate) -> None:
        self._conversations.served(demand, candidate, time.monotonic())

    # --- for people ---------------------------------------------------------------------------------
    async def explain(self, text: str, demand: Demand) -> Routed:
        """What would become of a task with these words, every number of it; nobody is asked."""
        sieve = Sieve(demand.within(self._policy))
        try:
            ranking = await self._ranking(text, sieve)
        except (NoProvider, Unsupported) as error:
            return Routed("none", None, error.message, [], _passed_over(sieve.filtered))
        return Routed(
            ranking.decision,
            ranking.none,
            _WHY[ranking.decision],
            shown(ranking.candidates),
            _passed_over(ranking.filtered),
        )

    # --- how ----------------------------------------------------------------------------------------
    async def _ranking(self, text: str, sieve: Sieve) -> Ranking:
        demand = sieve.demand
        try:
            await self._index_offers()
            matches = await self._index.match(text, sieve)
        except TaskFailed as error:
            # Without the embedder nobody can say who is best; a general model still answers.
            _log.warning("the embedder failed, a general model is asked instead: %s", error)
            return self._general(demand)
        knowledge = self._knowledge(matches.vector)
        return rank(matches, sieve, knowledge, time.monotonic(), lambda: self._index.offers)

    def _general(self, demand: Demand) -> Ranking:
        return rank_general(self._offers.now(), demand, self._knowledge(), time.monotonic())

    async def _index_offers(self) -> None:
        """What is announced at this moment; what was announced just now only if it is embedded in time:
        a peer that announces thousands of new words again and again must not hold every request up."""
        offers = self._offers.now()
        limit = asyncio.timeout(_INDEX_SECONDS)
        try:
            async with limit:
                await self._index.update(offers)
        except TimeoutError:
            if not limit.expired():
                raise
            self._index.retain(offers)

    def _wanted(self, demand: Demand) -> Demand:
        """Under the owner's policy too, and with whoever answered the conversation before."""
        sticky = self._conversations.former(demand, time.monotonic())
        return replace(demand.within(self._policy), sticky=sticky)

    def _knowledge(self, vector: Vector | None = None) -> Knowledge:
        """What is known of peers; how well they do tasks like the one with this vector, where outcomes are
        kept."""
        health, speeds, ledger = self._evidence.health, self._evidence.speeds, self._evidence.ledger
        if ledger is None:
            return Knowledge(health, speeds)
        view = ledger.estimates.view(vector, time.time())

        def chance(offer: Offer) -> Estimate:
            return view.of(offer.peer, offer.skill.id, offer.model.digest if offer.model is not None else "")

        return Knowledge(health, speeds, chance, self._draw(), ledger.estimates.counts())


def _in_place(ranking: Ranking, demand: Demand) -> Sequence[Candidate]:
    return stay(ranking.candidates, demand.sticky) if "tools" in demand.features else ranking.candidates


_WHY = {
    "route": "a skill made for such tasks fits",
    "fallback": "no skill made for such tasks fits or does them well; a general model comes first",
    "none": "nobody can be asked",
}


def shown(candidates: Sequence[Candidate]) -> list[RouteCandidate]:
    """As people see them, best first."""
    return [
        RouteCandidate(
            peer=candidate.peer,
            peer_name=candidate.peer_name,
            skill=candidate.skill,
            model=candidate.model,
            score=round(candidate.score, 4),
            reasons=list(candidate.reasons),
            is_chosen=position == 0,
            tier=candidate.tier,
            terms={name: round(value, 4) for name, value in candidate.terms.items()},
        )
        for position, candidate in enumerate(candidates)
    ]


def _passed_over(filtered: Sequence[tuple[Offer, str]]) -> list[PassedOver]:
    return [
        PassedOver(offer.peer, offer.peer_name, offer.skill.id, offer.skill.model, reason)
        for offer, reason in filtered
    ]
