"""Which of the offers that can be given a task is asked first: what each is worth, and in which order. Pure.

An offer's `quality` is the chance that it does the task well, less what it costs. Offers of almost equal
quality are one tier, and within a tier whoever is expected to be done first comes first. Time does not buy
quality: a peer that does a task less well is asked when the others have failed, not because they are busy.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal

from monai_node.registry.ids import PeerId
from monai_node.router.delay import Delay, delay_at
from monai_node.router.demand import Demand, cost_of
from monai_node.router.estimate import PRIOR_CHANCE, Estimate, explored
from monai_node.router.health import Health, is_panic
from monai_node.router.offer import Offer
from monai_node.router.speed import Speeds

# What a second of waiting beyond a task's slack is worth, in chance: somebody waits 50 s for a result that is
# sure, rather than have one at once that is surely wrong.
DELAY_WEIGHT = 0.02
# What one unit of the mesh's currency is worth, in chance.
COST_WEIGHT = 0.1
# Qualities that differ by less are one: 100 outcomes tell chances apart by no less than 0.04.
TIER_WIDTH = 0.02
# Of the same model, or of agents in the same words: what differs is luck, until there is more evidence.
REPLICA_WIDTH = 0.1
# A contract is checked in code and escalated, so that a small model may try first where it mostly succeeds.
GOOD_CHANCE = 0.8
GOOD_WEIGHT = 5.0
# What the size of a model says weighs as much as so many outcomes of its own.
SIZE_WEIGHT = 10.0
_SIZE_SLOPE = 0.15  # of chance for ten times the parameters: MMLU of Qwen2.5, 47.5 at 0.5B to 86.1 at 72B
_SIZE_MIDDLE = 0.6  # at 1B
_SIZE_CHANCES = (0.1, 0.95)
_EXPLORED_FIT_SHARE = 0.8
# Before everything else is weighed: what is idle, and what is large. Of one kind of offers.
SHORTLIST_MAX = 256
# Of one peer, before everybody else was named: a peer that announces a hundred skills must not be all
# that a task can be sent to.
CANDIDATES_PER_PEER = 2

Kind = Literal["narrow", "named", "general"]
_KINDS: tuple[Kind, ...] = ("narrow", "named", "general")
Chance = Callable[[Offer], Estimate]

UNTRIED = Estimate(PRIOR_CHANCE, 0.0, 0.0, 0.0)


def untried(_: Offer) -> Estimate:
    """Where nothing was learnt."""
    return UNTRIED


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What this node has seen of its peers. `draw` is a random number from 0 to 1, new for every task: it
    decides whether the task is one of the few that go to a peer so as to know it."""

    health: Health
    speeds: Speeds = field(default_factory=Speeds)
    chance: Chance = untried
    draw: float = 1.0


@dataclass(frozen=True, slots=True)
class Option:
    """One offer weighed for one task. `place` numbers its tier, from 0; `why` says in words what is not
    in the numbers."""

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
    quality = chance - COST_WEIGHT * cost
    failures = health.standing(offer.peer, offer.skill.id).failures
    late = max(0.0, delay.total - demand.slack_seconds)
    utility = chance * 0.5 ** min(failures, 16) - COST_WEIGHT * cost - DELAY_WEIGHT * late
    is_cooling = health.cooling_seconds(offer.peer, offer.skill.id, now) > 0
    return Option(offer, kind, fit, estimate, cost, delay, quality, utility, is_cooling, why)


def shortlisted(offers: Sequence[Offer], health: Health, now: float) -> Sequence[Offer]:
    """At most SHORTLIST_MAX of them: the largest models that are not cooling down, and the idlest."""
    if len(offers) <= SHORTLIST_MAX:
        return offers
    cooling = health.cooling(now)
    half = SHORTLIST_MAX // 2

    def is_out(offer: Offer) -> bool:
        return offer.peer in cooling or (offer.peer, offer.skill.id) in cooling

    large = heapq.nsmallest(half, offers, key=lambda it: (is_out(it), -parameters_of(it), it.load))
    taken = set(map(id, large))
    idle = heapq.nsmallest(SHORTLIST_MAX, offers, key=lambda it: (is_out(it), it.load))
    return [*large, *(it for it in idle if id(it) not in taken)][:SHORTLIST_MAX]


def in_order(options: Sequence[Option], demand: Demand, draw: float = 1.0) -> list[Option]:
    """Best first. What is cooling down comes last; in a panic, when so much is that it says nothing, behind
    its equals only. What a peer has beyond CANDIDATES_PER_PEER comes after everybody else."""
    cooling = [each for each in options if each.is_cooling]
    is_ignored = len(cooling) == len(options) or is_panic(cooling, options)
    placed: list[Option] = []
    for kind in _KINDS:
        placed += _by_tier([each for each in options if each.kind == kind], demand, len(placed))
    order = placed if is_ignored else [each for each in placed if not each.is_cooling]
    order = _spread(_explored_first(_sticky_first(order, demand), draw))
    if not is_ignored:
        return order + [each for each in placed if each.is_cooling]
    said = f"{len(cooling)} of {len(options)} are cooling down, so that it counts little"
    return [replace(each, why=(*each.why, said)) if each.is_cooling else each for each in order]


def tiers(order: Sequence[Option]) -> list[int]:
    """Numbers from 0 that rise wherever an option is not as good as the one before it."""
    keys = [(each.place, each.is_cooling) for each in order]
    return list(accumulate(int(at > 0 and key != keys[at - 1]) for at, key in enumerate(keys)))


def parameters_of(offer: Offer) -> int:
    return offer.model.parameter_count if offer.model is not None else 0


def _strength(offer: Offer, estimate: Estimate) -> float:
    """How well a general model does, by its size until there is evidence. A size is a claim that outcomes
    outweigh."""
    low, high = _SIZE_CHANCES
    count = parameters_of(offer)
    by_size = _SIZE_MIDDLE + _SIZE_SLOPE * math.log10(count / 1e9) if count > 0 else low
    weight = estimate.weight
    return (SIZE_WEIGHT * min(max(by_size, low), high) + weight * estimate.chance) / (SIZE_WEIGHT + weight)


def _by_tier(options: Sequence[Option], demand: Demand, start: int) -> list[Option]:
    """Options of one kind, best tier first, soonest first within a tier; tiers are numbered from `start`."""
    best: dict[tuple[str, str], float] = {}
    for each in options:
        best[_alike(each)] = max(best.get(_alike(each), -math.inf), each.quality)
    first = _small_and_good(options) if demand.has_contract else frozenset[int]()

    def standing(option: Option) -> float:
        """Its quality; that of the best of its replicas, unless it is clearly worse."""
        highest = best[_alike(option)]
        return highest if highest - option.quality <= REPLICA_WIDTH else option.quality

    found: list[Option] = []
    place, anchor = start - 1, math.inf
    for each in sorted(options, key=lambda each: (id(each) not in first, -standing(each))):
        is_first = id(each) in first
        if place < start or (not is_first and anchor - standing(each) > TIER_WIDTH):
            place, anchor = place + 1, math.inf if is_first else standing(each)
        why = (
            (*each.why, "small, but good at such tasks, whose results are checked") if is_first else each.why
        )
        found.append(replace(each, place=place, why=why))
    return sorted(found, key=_in_tier)


def _in_tier(option: Option) -> tuple[float | str | bool, ...]:
    offer = option.offer
    return (option.place, option.is_cooling, -option.utility, offer.load, offer.peer, offer.skill.model)


def _alike(option: Option) -> tuple[str, str]:
    """Offers that do the same, as they say."""
    offer = option.offer
    digest = offer.model.digest or offer.model.alias if offer.model is not None else ""
    return ("" if option.kind == "general" else offer.skill.id), digest


def _small_and_good(options: Sequence[Option]) -> frozenset[int]:
    """The smallest model that is known to do such tasks well, wherever it is."""
    good = [
        each
        for each in options
        if not each.is_cooling
        and each.estimate.chance >= GOOD_CHANCE
        and each.estimate.weight >= GOOD_WEIGHT
        and parameters_of(each.offer) > 0
    ]
    if not good:
        return frozenset()
    smallest = _alike(min(good, key=lambda each: parameters_of(each.offer)))
    return frozenset(id(each) for each in good if _alike(each) == smallest)


def _sticky_first(order: Sequence[Option], demand: Demand) -> list[Option]:
    """Who served this conversation before stays first while what it need not read again is worth more than
    what others are better or sooner by."""
    sticky = demand.sticky
    former = next(
        (
            each
            for each in order
            if sticky is not None and (each.offer.peer, each.offer.skill.model) == (sticky.peer, sticky.model)
        ),
        None,
    )
    if former is None or former.kind != order[0].kind:
        return list(order)
    worse = max(0.0, order[0].quality - former.quality)
    later = max(0.0, former.delay.queue - order[0].delay.queue)
    if DELAY_WEIGHT * former.delay.saved < worse + DELAY_WEIGHT * later:
        return list(order)
    said = f"served this conversation before, {former.delay.saved:.1f} s of reading saved"
    return _moved_up(order, former, said)


def _explored_first(order: Sequence[Option], draw: float) -> list[Option]:
    """A few tasks go to somebody little known that may be as good; never one who fits clearly less."""
    if not order:
        return []
    leading = [
        each
        for each in order
        if each.kind == order[0].kind
        and each.fit >= _EXPLORED_FIT_SHARE * order[0].fit
        and not each.is_cooling
    ]
    at = explored([each.estimate for each in leading], draw)
    if at is None or leading[at] is order[0]:
        return list(order)
    return _moved_up(order, leading[at], "little is known of it: one of the few tasks that are to tell")


def _moved_up(order: Sequence[Option], chosen: Option, why: str) -> list[Option]:
    first = replace(chosen, place=-1, why=(*chosen.why, why))
    return [first, *(each for each in order if each is not chosen)]


def _spread(order: Sequence[Option]) -> list[Option]:
    """The same order, but what a peer has beyond CANDIDATES_PER_PEER stands after all others."""
    counts: Counter[PeerId] = Counter()
    first: list[Option] = []
    rest: list[Option] = []
    for each in order:
        counts[each.offer.peer] += 1
        (first if counts[each.offer.peer] <= CANDIDATES_PER_PEER else rest).append(each)
    return first + rest
