"""Which peers are asked for a task, in which order, and why. Pure: values in, values out.

Policy first: a peer that may not see the request is no candidate, whatever it offers. Then narrow
skills that match the text, then general ones; what is cooling down comes last of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from monai_node.registry.errors import NotFound, Unsupported
from monai_node.registry.ids import PeerId, short
from monai_node.registry.wire import Label
from monai_node.router import reasons
from monai_node.router.health import Health
from monai_node.router.index import Match
from monai_node.router.offer import Offer
from monai_node.router.policy import may_see

CANDIDATES_MAX = 6
# Of one peer, before everybody else was named: a peer that announces a hundred skills must not be all
# that a task can be sent to.
CANDIDATES_PER_PEER = 2
# Chosen on 46 texts with all-MiniLM-L6-v2, an arithmetic, a calendar and a chat skill: any threshold
# from 0.30 to 0.35 puts the right skill first for 41 of them. The lower end, because the two mistakes
# differ: an agent that is asked in vain abstains in milliseconds, a small model that is asked to
# calculate answers wrongly. On 40 further texts the right skill is first for 36; 3 of the other 4 are
# asked of an agent, which abstains from each of them (tests/mesh/test_embedders.py).
NARROW_THRESHOLD = 0.30
# By how much a narrow skill must match better than the best general one.
NARROW_MARGIN = 0.02

_KNOWN_MODELS_SHOWN = 10

_T = TypeVar("_T", Match, Offer)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer that may be asked for a task. `reasons` says in words why it stands where it stands.

    Candidates of one `tier` do a task equally well, as far as the ranking knows: which of them is asked
    may be decided by time alone (`router.seating`).
    """

    peer: PeerId
    peer_name: str
    skill: str
    model: str  # alias; "" for an agent
    is_general: bool
    score: float
    reasons: tuple[str, ...]
    is_idempotent: bool = True  # may be started again elsewhere when nobody knows how far it came
    tier: int = 0
    seconds: float | None = None  # what a task of this skill is expected to take there; None: never measured
    load: int = 0  # tasks that its last beacon said it has
    slots: int = 0  # tasks it does at once; 0: it does not say


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first, and what was passed over with the reason in words."""

    candidates: list[Candidate]
    filtered: list[tuple[Offer, str]]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """An offer on its way into the order: `fit` sorts, lowest first, then how busy and quick it is."""

    offer: Offer
    score: float
    fit: tuple[float | str, ...]
    reasons: tuple[str, ...]


def rank(
    matches: Sequence[Match], *, label: Label, health: Health, now: float, skill: str | None = None
) -> Ranking:
    """The order for a task in words. `skill` fixes the skill, and nothing else is asked then."""
    seen, filtered = _permitted(matches, label)
    if skill is not None:
        fixed = [match for match in seen if match.offer.skill.id == skill]
        return _ordered([_fixed(match) for match in fixed], filtered, health, now)
    best_general = max((match.score for match in seen if match.offer.skill.is_general), default=0.0)
    best_of: dict[str, float] = {}
    for match in seen:
        best_of[match.offer.skill.id] = max(best_of.get(match.offer.skill.id, 0.0), match.score)
    ranked: list[_Ranked] = []
    for match in seen:
        unfit = "" if match.offer.skill.is_general else _unfit(match.score, best_general)
        if unfit:
            filtered.append((match.offer, unfit))
        elif match.offer.skill.is_general:
            ranked.append(_general(match.offer, match.score))
        else:
            ranked.append(_narrow(match, best_of[match.offer.skill.id], best_general))
    return _ordered(ranked, filtered, health, now)


def rank_general(
    offers: Sequence[Offer], needs_tools: bool, *, label: Label, health: Health, now: float
) -> Ranking:
    """The order for a whole conversation that names no model: the largest general model first.

    Unsupported when a tool must be called and no model that may see the request can."""
    seen, filtered = _permitted(offers, label)
    general = [offer for offer in seen if offer.skill.is_general]
    able = [offer for offer in general if not needs_tools or _can_call_tools(offer)]
    if general and not able:
        raise Unsupported("no model that can be reached is able to call tools", param="tools")
    return _ordered([_general(offer, 1.0) for offer in able], filtered, health, now)


def rank_models(
    offers: Sequence[Offer],
    alias: str,
    peer: str | None = None,
    *,
    label: Label,
    health: Health,
    now: float,
) -> Ranking:
    """The order for a request that names its model: `alias`, everywhere or at one peer (its id, its
    name, or the last 8 characters of its id). `alias` may also be written `alias@peer`.

    NotFound (`model_not_found`) when nobody serves it; Unsupported when only peers that may not see
    the request do."""
    served = [offer for offer in offers if offer.model is not None and offer.skill.model == offer.model.alias]
    named = [offer for offer in served if offer.skill.model == alias]
    if not named and peer is None and "@" in alias:
        alias, _, peer = alias.rpartition("@")
        named = [offer for offer in served if offer.skill.model == alias]
    if peer is not None:
        named = _at(peer, named)
    if not named:
        raise NotFound(_unknown(alias, peer, served), code="model_not_found", param="model")
    seen, filtered = _permitted(_one_skill_each(named), label)
    if not seen:
        raise Unsupported(
            f"the model {alias!r} is served only by peers that may not see a {label!r} request", param="model"
        )
    ranked = [_Ranked(offer, 1.0, (), (f"serves {alias}",)) for offer in seen]
    return _ordered(ranked, filtered, health, now)


def _ordered(
    ranked: Sequence[_Ranked], filtered: list[tuple[Offer, str]], health: Health, now: float
) -> Ranking:
    """Best first, those that are cooling down last, cut to CANDIDATES_MAX; the best general candidate
    is kept in any case, because it may answer what the others abstain from."""
    placed = sorted(ranked, key=lambda each: (each.fit, _by_load(each.offer, health)))
    cooling = {id(each) for each in health.ejected(placed, _key, now)}
    order = [each for each in placed if id(each) not in cooling]
    order = _spread(order) + [each for each in placed if id(each) in cooling]
    kept, over = order[:CANDIDATES_MAX], order[CANDIDATES_MAX:]
    if not any(each.offer.skill.is_general for each in kept):
        fallback = next((at for at, each in enumerate(over) if each.offer.skill.is_general), None)
        if fallback is not None:
            kept[-1], over[fallback] = over[fallback], kept[-1]
    filtered = filtered + [(each.offer, f"{CANDIDATES_MAX} others stand before it") for each in over]
    tiers = _tiers([(each.fit, id(each) in cooling) for each in kept])
    found = [_candidate(each, tier, health, now) for each, tier in zip(kept, tiers, strict=True)]
    return Ranking(found, filtered)


def _tiers(fits: Sequence[object]) -> list[int]:
    """Numbers from 0 that rise wherever a fit differs from the one before it."""
    changes = [int(at > 0 and fit != fits[at - 1]) for at, fit in enumerate(fits)]
    return list(accumulate(changes))


def _spread(order: Sequence[_Ranked]) -> list[_Ranked]:
    """The same order, but what a peer has beyond CANDIDATES_PER_PEER stands after all others."""
    counts: Counter[PeerId] = Counter()
    first: list[_Ranked] = []
    rest: list[_Ranked] = []
    for each in order:
        counts[each.offer.peer] += 1
        (first if counts[each.offer.peer] <= CANDIDATES_PER_PEER else rest).append(each)
    return first + rest


def _at(peer: str, offers: Sequence[Offer]) -> list[Offer]:
    """Those at one peer. Its id comes before its short id, and both before a name, which anybody may
    give itself: also one that is another peer's id."""
    names: tuple[Callable[[Offer], str], ...] = (
        lambda offer: offer.peer,
        lambda offer: short(offer.peer),
        lambda offer: offer.peer_name,
    )
    for name_of in names:
        found = [offer for offer in offers if name_of(offer) == peer]
        if found:
            return found
    return []


def _candidate(ranked: _Ranked, tier: int, health: Health, now: float) -> Candidate:
    offer = ranked.offer
    return Candidate(
        peer=offer.peer,
        peer_name=offer.peer_name,
        skill=offer.skill.id,
        model=offer.skill.model,
        is_general=offer.skill.is_general,
        score=ranked.score,
        reasons=(*ranked.reasons, *reasons.circumstances(offer, health, now)),
        is_idempotent=offer.skill.is_idempotent,
        tier=tier,
        seconds=health.expected_seconds(*_key_of(offer)),
        load=offer.load,
        slots=offer.skill.slots,
    )


def _narrow(match: Match, best: float, best_general: float) -> _Ranked:
    """Replicas of one skill stand together, behind the skill's best match."""
    offer = match.offer
    why = [reasons.alikeness(match)]
    if best_general > 0:
        why.append(f"general skills match {best_general:.2f}")
    return _Ranked(offer, match.score, (0, -best, offer.skill.id), tuple(why))


def _general(offer: Offer, score: float) -> _Ranked:
    count = offer.model.parameter_count if offer.model is not None else 0
    why = ("general skill", *reasons.size(offer))
    return _Ranked(offer, score, (1, -count), why)


def _fixed(match: Match) -> _Ranked:
    why = (f"skill {match.offer.skill.id!r} was asked for",)
    return _Ranked(match.offer, match.score, (), why)


def _by_load(offer: Offer, health: Health) -> tuple[float | str, ...]:
    """Least loaded, then quickest (an unmeasured peer is tried first), then by name, for good."""
    seconds = health.standing(*_key_of(offer)).seconds or 0.0
    return (offer.load, seconds, offer.peer, offer.skill.model)


def _unfit(score: float, best_general: float) -> str:
    if score < NARROW_THRESHOLD:
        return f"{score:.2f} alike, {NARROW_THRESHOLD:.2f} is needed"
    if score < best_general + NARROW_MARGIN:
        return f"{score:.2f} alike, general skills {best_general:.2f}"
    return ""


def _can_call_tools(offer: Offer) -> bool:
    return offer.model is not None and "tools" in offer.model.features


def _one_skill_each(offers: Iterable[Offer]) -> list[Offer]:
    """One offer for each model at each peer: the general one, where there is one."""
    chosen: dict[tuple[PeerId, str], Offer] = {}
    for offer in offers:
        key = (offer.peer, offer.skill.model)
        if key not in chosen or (offer.skill.is_general and not chosen[key].skill.is_general):
            chosen[key] = offer
    return list(chosen.values())


def _unknown(alias: str, peer: str | None, served: Iterable[Offer]) -> str:
    known = sorted({offer.skill.model for offer in served})
    where = f" at {peer[:64]!r}" if peer is not None else ""
    refusal = f"the model {alias[:128]!r} is not served{where}"
    if not known:
        return f"{refusal}: no model is served in this mesh"
    more = f" and {len(known) - _KNOWN_MODELS_SHOWN} more" if len(known) > _KNOWN_MODELS_SHOWN else ""
    return f"{refusal}; known are {', '.join(known[:_KNOWN_MODELS_SHOWN])}{more}"


def _permitted(items: Iterable[_T], label: Label) -> tuple[list[_T], list[tuple[Offer, str]]]:
    """What may be asked under this label, and what may not."""
    seen: list[_T] = []
    filtered: list[tuple[Offer, str]] = []
    for item in items:
        offer = item.offer if isinstance(item, Match) else item
        if may_see(label, offer.label):
            seen.append(item)
        else:
            filtered.append((offer, f"a {label!r} request is not for {offer.label!r} peers"))
    return seen, filtered


def _key(ranked: _Ranked) -> tuple[PeerId, str]:
    return _key_of(ranked.offer)


def _key_of(offer: Offer) -> tuple[PeerId, str]:
    return offer.peer, offer.skill.id
