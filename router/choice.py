"""In which order the offers that can be given a task are asked. Pure.

An offer's `quality` is the chance that it does the task well, less what it costs. Offers of almost equal
quality are one tier, and within a tier whoever is expected to be done first comes first. Time does not buy
quality: a peer that does a task less well is asked when the others have failed, not because they are busy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from monai_node.registry.ids import PeerId
from monai_node.router.demand import Demand
from monai_node.router.estimate import EXPLORATION_SHARE, explored
from monai_node.router.health import is_panic
from monai_node.router.worth import COST_WEIGHT, DELAY_WEIGHT, Kind, Option, is_sticky, parameters_of

# Qualities that differ by less are one: 100 outcomes tell chances apart by no less than 0.04.
TIER_WIDTH = 0.02
# Of the same model, or of agents in the same words: what differs is luck, until there is more evidence.
REPLICA_WIDTH = 0.1
# A contract is checked in code and escalated, so that a small model may try first where it mostly succeeds.
GOOD_CHANCE = 0.8
GOOD_WEIGHT = 5.0
# By how much its chance may be below the best one. Most contracts see the form of a result only: with any
# small model at GOOD_CHANCE first, simulated answers were 6 points less often right (tests/bench/liars.py).
SMALL_LOSS_MAX = 0.03
# Of quality, that reading less may make up for: how slowly a peer reads is partly its own word.
STICKY_WORSE_MAX = 0.2
# Of the best: whoever is to be known fits at least so well, and is at least so large.
_EXPLORED_FIT_SHARE = 0.95
_EXPLORED_SIZE_SHARE = 0.2
# A skill made for a task that does it this badly after so many outcomes is not asked before general models.
_BAD_CHANCE = 0.25
_BAD_WEIGHT = 8.0
# Of one peer, before everybody else was named: a peer that announces a hundred skills must not be all
# that a task can be sent to.
CANDIDATES_PER_PEER = 2

_KINDS: tuple[Kind, ...] = ("narrow", "named", "general")


def in_order(options: Sequence[Option], demand: Demand, draw: float = 1.0) -> list[Option]:
    """Best first. What is cooling down comes last; in a panic, when so much is that it says nothing, behind
    its equals only. What a peer has beyond CANDIDATES_PER_PEER comes after everybody else."""
    cooling = [each for each in options if each.is_cooling]
    is_ignored = len(cooling) == len(options) or is_panic(cooling, options)
    placed: list[Option] = []
    least = max((each.quality for each in options if each.kind == "general"), default=-math.inf)
    for kind in _KINDS:
        these = [each for each in options if each.kind == kind and not _is_bad(each, least)]
        if kind == "general":
            said = "stands among general models, for it does such tasks badly"
            these += [each._replace(why=(*each.why, said)) for each in options if _is_bad(each, least)]
        placed += _by_tier(these, demand, len(placed))
    order = placed if is_ignored else [each for each in placed if not each.is_cooling]
    order = _spread(_explored_first(_sticky_first(order, demand), demand, draw))
    if not is_ignored:
        return order + [each for each in placed if each.is_cooling]
    said = f"{len(cooling)} of {len(options)} are cooling down, so that it counts little"
    return [each._replace(why=(*each.why, said)) if each.is_cooling else each for each in order]


def _is_bad(option: Option, least: float) -> bool:
    """Whether a skill made for such tasks is known to do them badly, and worse than the best general model,
    which is worth `least`: it would be asked first for as long as its words fit."""
    known = option.estimate
    is_known_bad = known.weight >= _BAD_WEIGHT and known.chance < _BAD_CHANCE
    return option.kind == "narrow" and is_known_bad and option.quality < least


def tiers(order: Sequence[Option]) -> list[int]:
    """Numbers from 0 that rise wherever an option is not as good as the one before it."""
    keys = [(each.place, each.is_cooling) for each in order]
    return list(accumulate(int(at > 0 and key != keys[at - 1]) for at, key in enumerate(keys)))


def _by_tier(options: Sequence[Option], demand: Demand, start: int) -> list[Option]:
    """Options of one kind, best tier first, soonest first within a tier; tiers are numbered from `start`."""
    first = _small_and_good(options) if demand.has_contract else frozenset[int]()
    found: list[Option] = []
    place, anchor = start - 1, math.inf
    standings = zip(_standings(options), options, strict=True)
    for standing, each in sorted(standings, key=lambda it: (id(it[1]) not in first, -it[0])):
        is_first = id(each) in first
        if place < start or (not is_first and anchor - standing > TIER_WIDTH):
            place, anchor = place + 1, math.inf if is_first else standing
        said = ("small, but good at such tasks, whose results are checked",) if is_first else ()
        found.append(Option(*each[:-2], why=each.why + said, place=place))  # half the time of `_replace`
    return sorted(found, key=_in_tier)


def _standings(options: Sequence[Option]) -> list[float]:
    """Of each its quality; that of the best of its replicas, unless it is clearly worse."""
    alike = [_alike(each) for each in options]
    best: dict[tuple[str, str], Option] = {}
    for name, each in zip(alike, options, strict=True):
        if name not in best or each.quality > best[name].quality:
            best[name] = each

    def standing(option: Option, highest: Option) -> float:
        worse = highest.estimate.chance - option.estimate.chance + COST_WEIGHT * (option.cost - highest.cost)
        return highest.quality if worse <= REPLICA_WIDTH else option.quality

    return [standing(each, best[name]) for name, each in zip(alike, options, strict=True)]


def _in_tier(option: Option) -> tuple[float | str | bool, ...]:
    offer = option.offer
    return (option.place, option.is_cooling, -option.utility, offer.load, offer.peer, offer.skill.model)


def _alike(option: Option) -> tuple[str, str]:
    """Offers that do the same, as they say."""
    offer = option.offer
    digest = offer.model.digest or offer.model.alias if offer.model is not None else ""
    return ("" if option.kind == "general" else offer.skill.id), digest


def _small_and_good(options: Sequence[Option]) -> frozenset[int]:
    """The smallest model that is known to do such tasks about as well as the best, wherever it is, and that
    costs no more than what would come first without it."""
    best = max((each.estimate.chance for each in options), default=0.0)
    cost = max(options, key=lambda each: each.quality).cost if options else 0.0
    good = [
        each
        for each in options
        if not each.is_cooling
        and each.cost <= cost
        and each.estimate.chance >= max(GOOD_CHANCE, best - SMALL_LOSS_MAX)
        and each.estimate.weight >= GOOD_WEIGHT
        and parameters_of(each.offer) > 0
    ]
    if not good:
        return frozenset()
    smallest = min(good, key=lambda each: parameters_of(each.offer))
    # With its replicas, unless they are clearly worse: whichever of them was lucky may be a slow one.
    least = smallest.estimate.chance - REPLICA_WIDTH
    replicas = (each for each in options if _alike(each) == _alike(smallest) and each.cost <= cost)
    return frozenset(id(each) for each in replicas if each.estimate.chance >= least and not each.is_cooling)


def _sticky_first(order: Sequence[Option], demand: Demand) -> list[Option]:
    """Who served this conversation before stays first while what it need not read again is worth more than
    what others are better or sooner by."""
    former = next((each for each in order if is_sticky(each.offer, demand)), None)
    if former is None or former.kind != order[0].kind:
        return list(order)
    worse = max(0.0, order[0].quality - former.quality)
    later = max(0.0, former.delay.queue - order[0].delay.queue)
    if worse > STICKY_WORSE_MAX or DELAY_WEIGHT * former.delay.saved < worse + DELAY_WEIGHT * later:
        return list(order)
    said = f"served this conversation before, {former.delay.saved:.1f} s of reading saved"
    return _moved_up(order, former, said)


def _explored_first(order: Sequence[Option], demand: Demand, draw: float) -> list[Option]:
    """A few tasks go to somebody little known that may be as good. Never to one that costs more, fits clearly
    less or is far smaller, and never the next turn of a conversation that somebody else has answered."""
    if not order or demand.sticky is not None or draw >= EXPLORATION_SHARE:
        return list(order)
    best = order[0]
    leading = [each for each in order if not each.is_cooling and _is_comparable(each, best)]
    at = explored([each.estimate for each in leading], draw)
    if at is None or leading[at] is best:
        return list(order)
    return _moved_up(order, leading[at], "little is known of it: one of the few tasks that are to tell")


def _is_comparable(option: Option, best: Option) -> bool:
    if option.kind != best.kind or option.cost > best.cost or option.fit < _EXPLORED_FIT_SHARE * best.fit:
        return False
    is_small = parameters_of(option.offer) < _EXPLORED_SIZE_SHARE * parameters_of(best.offer)
    return not (option.kind == "general" and is_small)


def _moved_up(order: Sequence[Option], chosen: Option, why: str) -> list[Option]:
    first = chosen._replace(place=-1, why=(*chosen.why, why))
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
