"""Which peers are asked for a task, in which order, and why. Pure: values in, values out.

What cannot be given the task is filtered first: policy, types, room, tools, price. Then come narrow skills
that fit the text, then general ones; what is cooling down comes last of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monai_node.registry.errors import NoProvider, Unsupported
from monai_node.registry.ids import short
from monai_node.router import reasons
from monai_node.router.calibration import NARROW_FIT, RIVAL_FIT
from monai_node.router.candidate import Candidate as Candidate
from monai_node.router.candidate import Ranking, Standing, candidate_of
from monai_node.router.choice import in_order, tiers
from monai_node.router.delay import read_chars
from monai_node.router.demand import ABILITIES, Demand, Sieve, eligible, is_able
from monai_node.router.embed import Vector
from monai_node.router.health import Health
from monai_node.router.match import Match, Matches
from monai_node.router.offer import Offer, one_per_model
from monai_node.router.policy import may_see, nobody_allowed
from monai_node.router.worth import SHORTLIST_MAX, Kind, Knowledge, Option, shortlisted, weigh

CANDIDATES_MAX = 6


def rank(
    matches: Matches,
    sieve: Sieve,
    knowledge: Knowledge,
    now: float,
    offers: Callable[[], Sequence[Offer]] = tuple,
) -> Ranking:
    """The order for a task in words, of those that `matches` names. What `sieve` has let pass already, as
    the index does, is not looked at again. `offers` lists all that is offered, and is called only when
    nobody is left.

    NoProvider, naming what is missing, when something is offered to such a request, and nothing that does
    the task; Unsupported when policy, price or the task's own needs leave nobody."""
    demand = sieve.demand
    options: list[Option] = []
    general: list[Offer] = []
    fits: dict[int, float] = {}  # of general offers, by their identity
    for match in matches.best:
        if match.skill.is_general:
            able = shortlisted(match.offers, sieve, knowledge, now)
            general += able
            fits.update(dict.fromkeys(map(id, able), match.fit))
        elif (fit := _narrow_fit(match)) < NARROW_FIT:
            why_not = f"fits {match.fit:.2f}, {NARROW_FIT:.2f} is needed"
            for offer in match.offers:
                sieve.note(offer, why_not)
        elif len(options) < SHORTLIST_MAX:  # the matches after them fit less
            why = (reasons.fit(match), reasons.alikeness(match))
            for offer in shortlisted(match.offers, sieve, knowledge, now):
                options.append(weigh(offer, "narrow", fit, why, demand, knowledge, now))
    for offer in shortlisted(general, sieve, knowledge, now):
        options.append(weigh(offer, "general", fits[id(offer)], _general(offer), demand, knowledge, now))
    if not options:
        _refuse(matches, demand, offers())
    return _ranking(options, sieve, demand, knowledge, now, matches)


def rank_general(offers: Sequence[Offer], demand: Demand, knowledge: Knowledge, now: float) -> Ranking:
    """The order for a whole conversation that names no model: the strongest general model first. A raw prompt
    is any model's to go on with.

    Unsupported when there are such models that may see the request, and none can be given it."""
    if "completion" in demand.features:
        general = one_per_model(offer for offer in offers if offer.model is not None)
    else:
        general = [offer for offer in offers if offer.skill.is_general]
    return _one_kind(general, "general", "", demand, knowledge, now)


def rank_named(
    offers: Sequence[Offer], why: str, demand: Demand, knowledge: Knowledge, now: float
) -> Ranking:
    """The order of offers that the caller named, by skill or by model; `why` is the reason told of each.

    Unsupported when some of them may see the request, and none can be given it."""
    return _one_kind(offers, "named", why, demand, knowledge, now)


def _one_kind(
    offers: Sequence[Offer], kind: Kind, why: str, demand: Demand, knowledge: Knowledge, now: float
) -> Ranking:
    sieve = Sieve(demand)
    able = shortlisted(offers, sieve, knowledge, now)
    if not able and (refusal := _refusal(offers, demand)):
        raise Unsupported(refusal, param=_missing(offers, demand))
    options = [
        weigh(offer, kind, 1.0, (why,) if why else _general(offer), demand, knowledge, now) for offer in able
    ]
    return _ranking(options, sieve, demand, knowledge, now)


def _ranking(
    options: Sequence[Option],
    sieve: Sieve,
    demand: Demand,
    knowledge: Knowledge,
    now: float,
    matches: Matches | None = None,
) -> Ranking:
    """Cut to CANDIDATES_MAX; the best general candidate is kept in any case, because it may answer what
    the others abstain from."""
    order = in_order(options, demand, knowledge.draw)
    kept, over = order[:CANDIDATES_MAX], order[CANDIDATES_MAX:]
    if not any(each.kind == "general" for each in kept):
        fallback = next((at for at, each in enumerate(over) if each.kind == "general"), None)
        if fallback is not None:
            kept[-1], over[fallback] = over[fallback], kept[-1]
    for each in over:
        sieve.note(each.offer, f"{CANDIDATES_MAX} others stand before it")
    vector = matches.vector if matches is not None else None
    found = [
        _candidate(each, tier, demand, knowledge.health, now, vector)
        for each, tier in zip(kept, tiers(kept), strict=True)
    ]
    decision = "none" if not kept else "fallback" if kept[0].kind == "general" else "route"
    return Ranking(found, sieve.filtered, decision, matches.none if matches is not None else None)


def _candidate(
    option: Option, tier: int, demand: Demand, health: Health, now: float, vector: Vector | None
) -> Candidate:
    offer, delay = option.offer, option.delay
    why = (*option.why, *reasons.evidence(option), *reasons.circumstances(offer, health, now))
    standing = Standing(
        score=option.fit,
        reasons=why,
        tier=tier,
        seconds=delay.work if delay.is_known else None,
        read_chars=read_chars(offer, demand),
        terms=option.terms,
    )
    return candidate_of(offer, standing, vector)


def _narrow_fit(match: Match) -> float:
    """How well a narrow skill fits. Beside a likelier one half of what it is alone counts: what was learnt
    of the two can then put the other one first, and little else does."""
    beside = (match.fit + match.alone) / 2 if match.alone >= RIVAL_FIT else 0.0
    return max(match.fit, beside)


def _general(offer: Offer) -> tuple[str, ...]:
    return ("general skill", *reasons.size(offer))


def _refuse(matches: Matches, demand: Demand, offers: Sequence[Offer]) -> None:
    offered = offers or [offer for match in matches.best for offer in match.offers]
    if refusal := _refusal(offered, demand):
        raise Unsupported(refusal)
    able = [match for match in matches.best if any(not eligible(offer, demand) for offer in match.offers)]
    if able:
        nearest = max(able, key=lambda match: match.fit)
        raise NoProvider(
            f"no skill that is offered does this, and {_no_general(offered, demand)}; the nearest is"
            f" {nearest.skill.id!r}, which fits {nearest.fit:.2f} where {NARROW_FIT:.2f} is needed"
        )


def _no_general(offers: Sequence[Offer], demand: Demand) -> str:
    """Why no general model is asked, where there is none that can be given the task."""
    seen = (it for it in offers if it.skill.is_general and may_see(demand.label, it.label))
    first = next(seen, None)
    if first is None:
        return "no general model can be reached"
    return f"no general model may be asked ({_named(first)}: {eligible(first, demand)})"


def _named(offer: Offer) -> str:
    return offer.peer_name or short(offer.peer)


def _refusal(offers: Sequence[Offer], demand: Demand) -> str:
    """Why none of these offers can be given the task, though some may see it; "" otherwise."""
    visible = [offer for offer in offers if may_see(demand.label, offer.label)]
    if not visible:
        return ""
    if nobody := nobody_allowed(visible, demand.policy):
        return nobody
    first = eligible(visible[0], demand)
    if not first or any(not eligible(offer, demand) for offer in visible):
        return ""
    if missing := _missing(visible, demand):
        return f"no model that can be reached is able to {ABILITIES[missing]}"
    return f"nobody that can be reached can be given this task: {_named(visible[0])}: {first}"


def _missing(offers: Sequence[Offer], demand: Demand) -> str | None:
    """What the task needs and none of these offers is able to do."""
    visible = [offer for offer in offers if may_see(demand.label, offer.label)]
    for feature in ABILITIES:
        if feature in demand.features and not any(is_able(offer, feature) for offer in visible):
            return feature
    return None
