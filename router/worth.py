"""What an offer is worth for one task: its chance, its cost, its time. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Literal, NamedTuple

import numpy as np

from monai_node.registry.ids import PeerId
from monai_node.router.delay import Delay, delay_at
from monai_node.router.demand import Demand, Sieve, cost_of, unspoken
from monai_node.router.estimate import PRIOR_CHANCE, Estimate
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.speed import Speeds

# What a second of waiting beyond a task's slack is worth, in chance: somebody waits 50 s for a result that is
# sure, rather than have one at once that is surely wrong.
DELAY_WEIGHT = 0.02
# What one unit of the mesh's currency is worth, in chance.
COST_WEIGHT = 0.1
# Of its chance, what a model keeps in a language that it does not list: so that one which lists it comes
# first although it is ten times smaller.
UNSPOKEN_SHARE = 0.7
# What the size of a model says weighs as much as so many outcomes of its own.
SIZE_WEIGHT = 10.0
_SIZE_SLOPE = 0.18  # of chance for ten times the parameters: MMLU of Qwen2.5, 47.5 at 0.5B to 86.1 at 72B
_SIZE_MIDDLE = 0.6  # at 1B
_SIZE_CHANCES = (0.1, 0.95)
# Offers of one kind that are looked at closely, of whom CANDIDATES_MAX become candidates: the best of so
# many is hardly worse than the best of all.
SHORTLIST_MAX = 24

# Of these, for those of whom something is known: what is announced of size and load costs nothing to say.
_KNOWN_ROOM = SHORTLIST_MAX // 3
_KNOWN_MAX = 128
_SHORTLISTED_PER_PEER = 3

Kind = Literal["narrow", "named", "general"]
Chance = Callable[[Offer], Estimate]

UNTRIED = Estimate(PRIOR_CHANCE, 0.0, 0.0, 0.0)


def untried(_: Offer) -> Estimate:
    """Where nothing was learnt."""
    return UNTRIED


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What this node has seen of its peers. `draw` is a random number from 0 to 1, new for every task: it
    decides whether the task is one of the few that go to a peer so as to know it. `outcomes` counts, for each
    peer of which any are remembered, those."""

    health: Health
    speeds: Speeds = field(default_factory=Speeds)
    chance: Chance = untried
    draw: float = 1.0
    outcomes: Mapping[PeerId, int] = field(default_factory=dict[PeerId, int])


class Option(NamedTuple):
    """One offer weighed for one task. `place` numbers its tier, from 0; `why` says in words what is not
    in the numbers. A tuple, because each decision makes dozens of them."""

    offer: Offer
    kind: Kind
    fit: float
    estimate: Estimate
    cost: float
    delay: Delay
    quality: float
    utility: float
    is_cooling: bool
    why: tuple[str, ...]
    place: int = 0

    @property
    def terms(self) -> Mapping[str, float]:
        """The numbers behind its place; seconds where it is time, else chances and the mesh's own unit."""
        return {
            "fit": self.fit,
            "chance": self.estimate.chance,
            "weight": self.estimate.weight,
            "cost": self.cost,
            "path": self.delay.path,
            "queue": self.delay.queue,
            "load": self.delay.load,
            "read": self.delay.read,
            "write": self.delay.write,
            "delay": self.delay.total,
            "quality": self.quality,
            "utility": self.utility,
        }


def weigh(
    offer: Offer,
    kind: Kind,
    fit: float,
    why: tuple[str, ...],
    demand: Demand,
    knowledge: Knowledge,
    now: float,
) -> Option:
    """`fit` is the chance that the offer's skill is the one asked for."""
    health = knowledge.health
    estimate = knowledge.chance(offer)
    cost = cost_of(offer, demand.expected_chars)
    delay = delay_at(offer, demand, knowledge.speeds, health, now)
    chance = _strength(offer, estimate) if kind == "general" else fit * estimate.chance
    if foreign := unspoken(offer, demand):
        chance, why = chance * UNSPOKEN_SHARE, (*why, foreign)
    quality = chance - COST_WEIGHT * cost
    failures = health.standing(offer.peer, offer.skill.id).failures
    late = max(0.0, delay.total - demand.slack_seconds)
    utility = chance * 0.5 ** min(failures, 16) - COST_WEIGHT * cost - DELAY_WEIGHT * late
    is_cooling = health.cooling_seconds(offer.peer, offer.skill.id, now) > 0
    return Option(offer, kind, fit, estimate, cost, delay, quality, utility, is_cooling, why)


def shortlisted(offers: Sequence[Offer], sieve: Sieve, knowledge: Knowledge, now: float) -> list[Offer]:
    """Those that the sieve lets through, at most SHORTLIST_MAX: whoever served this conversation before, who
    is known to do such tasks best, the largest models, the smallest where a contract lets one try, and the
    idlest. What is cooling down, and what a peer has beyond _SHORTLISTED_PER_PEER, is left out while there
    are others. Of a longer list most are looked at for size and load only, 0.3 us each."""
    if len(offers) <= SHORTLIST_MAX:
        return sieve(offers)
    demand = sieve.demand
    load = np.array([it.running + it.queued for it in offers], np.float64)
    size = np.array([it.model.parameter_count if it.model else 0 for it in offers], np.float64)
    keys = [-size, size, load] if demand.has_contract else [-size, load]
    found = _Shortlist(sieve, knowledge.health.cooling(now))
    if demand.sticky is not None:
        found.fill(1, (it for it in offers if is_sticky(it, demand)))
    found.fill(_KNOWN_ROOM, iter(_best_known(offers, knowledge)))
    for part, key in enumerate(keys, 1):
        room = _KNOWN_ROOM + (SHORTLIST_MAX - _KNOWN_ROOM) * part // len(keys)
        places: list[int] = np.argsort(key, kind="stable").tolist()
        found.fill(room, map(offers.__getitem__, places))
    found.fill(SHORTLIST_MAX, iter(offers), per_peer=SHORTLIST_MAX)
    if not found.offers:
        found.cooling = frozenset()
        found.fill(SHORTLIST_MAX, iter(offers))
    return list(found.offers.values())


def _best_known(offers: Sequence[Offer], knowledge: Knowledge) -> list[Offer]:
    """Those of whom something is known, the best first; of many those of whom most is."""
    known = [it for it in offers if it.peer in knowledge.outcomes]
    most = nlargest(_KNOWN_MAX, known, key=lambda it: knowledge.outcomes[it.peer])
    return sorted(most, key=lambda it: -knowledge.chance(it).chance)


@dataclass(slots=True)
class _Shortlist:
    """Offers by their identity, in the order in which they were found."""

    sieve: Sieve
    cooling: frozenset[object]
    offers: dict[int, Offer] = field(default_factory=dict[int, Offer])
    counts: Counter[PeerId] = field(default_factory=Counter[PeerId])

    def fill(self, room: int, order: Iterator[Offer], per_peer: int = _SHORTLISTED_PER_PEER) -> None:
        while len(self.offers) < room and (offer := next(order, None)) is not None:
            is_out = self.counts[offer.peer] >= per_peer or self._is_cooling(offer)
            if not is_out and id(offer) not in self.offers and self.sieve((offer,)):
                self.offers[id(offer)] = offer
                self.counts[offer.peer] += 1

    def _is_cooling(self, offer: Offer) -> bool:
        cooling = self.cooling
        return bool(cooling) and (offer.peer in cooling or (offer.peer, offer.skill.id) in cooling)


def is_sticky(offer: Offer, demand: Demand) -> bool:
    sticky = demand.sticky
    return sticky is not None and (offer.peer, offer.skill.model) == (sticky.peer, sticky.model)


def parameters_of(offer: Offer) -> int:
    return offer.model.parameter_count if offer.model is not None else 0


def _strength(offer: Offer, estimate: Estimate) -> float:
    """How well a general model does, by its size until there is evidence. A size is a claim that outcomes
    outweigh. One that says none, as behind an OpenAI URL, counts as one of 1B: nobody runs a server for the
    smallest that there are."""
    low, high = _SIZE_CHANCES
    count = parameters_of(offer)
    by_size = _SIZE_MIDDLE + _SIZE_SLOPE * math.log10((count or 1e9) / 1e9)
    weight = estimate.weight
    return (SIZE_WEIGHT * min(max(by_size, low), high) + weight * estimate.chance) / (SIZE_WEIGHT + weight)
