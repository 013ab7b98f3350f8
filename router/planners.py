"""Which models of the mesh may plan for others, in which order, and why. Pure.

Small models do not plan: they write shorter plans than rules find. So a model is asked when its size, as
computed from its tensors, says that it can, or when its owner says so of a model whose size nobody sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monai_node.registry.ids import PeerId
from monai_node.router import reasons
from monai_node.router.candidate import Candidate, Standing, candidate_of
from monai_node.router.health import Health
from monai_node.router.offer import Offer, one_per_model
from monai_node.router.policy import Policy, verdict

# Models of 3 to 4 thousand million parameters are the first whose plans beat planning without a model:
# TaskBench's multimedia set, edge F1 27.6 at 3B and 46.4 at 4B, against 36 without one.
PLANNING_PARAMETERS_MIN = 3_000_000_000
# What a model announces among its features when its owner offers it for planning.
PLANNER_FEATURE = "planner"

# Who plans: the peer, and the alias of the model there.
Writer = tuple[PeerId, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a model reached in our exam: `score` from 0 to 1 and the median of its seconds for a plan."""

    score: float
    seconds: float
    age_seconds: float = 0.0


def may_plan(offer: Offer) -> bool:
    """Whether the model behind an offer is one that may be asked for plans: for nothing, because nobody
    said what a plan may cost."""
    if offer.model is None or offer.skill.model != offer.model.alias or offer.skill.price:
        return False
    if PLANNER_FEATURE in offer.model.features:
        return True
    return offer.skill.is_general and offer.model.parameter_count >= PLANNING_PARAMETERS_MIN


def writer_of(offer: Offer) -> Writer:
    return offer.peer, offer.skill.model


def planners(
    offers: Sequence[Offer], marks: Mapping[Writer, Mark], *, policy: Policy, health: Health, now: float
) -> list[Candidate]:
    """The models that may plan a request under this policy: first those with the best marks, then those
    without any, largest first; what is cooling down comes last. One offer for each model."""
    placed = sorted(one_each(offers, policy), key=lambda offer: _place(offer, marks))
    cooling = {writer_of(offer) for offer in health.ejected(placed, _key, now)}
    ordered = [offer for offer in placed if writer_of(offer) not in cooling]
    ordered += [offer for offer in placed if writer_of(offer) in cooling]
    return [_candidate(offer, marks.get(writer_of(offer)), health, now) for offer in ordered]


def one_each(offers: Sequence[Offer], policy: Policy) -> list[Offer]:
    """For each model that may plan under this policy one offer: its general skill, where it has one."""
    return one_per_model(offer for offer in offers if may_plan(offer) and not verdict(offer, policy))


def _place(offer: Offer, marks: Mapping[Writer, Mark]) -> tuple[float | str, ...]:
    mark = marks.get(writer_of(offer))
    count = offer.model.parameter_count if offer.model is not None else 0
    score, seconds = (mark.score, mark.seconds) if mark is not None else (0.0, 0.0)
    return (mark is None, -score, seconds, -count, offer.load, offer.peer, offer.skill.model)


def _key(offer: Offer) -> tuple[PeerId, str]:
    return offer.peer, offer.skill.id


def _candidate(offer: Offer, mark: Mark | None, health: Health, now: float) -> Candidate:
    why = ("may plan", *reasons.size(offer), *_marked(mark), *reasons.circumstances(offer, health, now))
    return candidate_of(offer, Standing(mark.score if mark is not None else 0.0, why))


def _marked(mark: Mark | None) -> tuple[str, ...]:
    if mark is None:
        return ("took no exam yet",)
    days = mark.age_seconds / 86_400
    return (f"plans {mark.score:.2f} well in {mark.seconds:.1f} s, as an exam found {days:.0f} days ago",)
