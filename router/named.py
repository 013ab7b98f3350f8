"""The model that a request names: who serves it, and why nobody does. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from monai_node.registry.errors import NotFound, Unsupported
from monai_node.registry.ids import short
from monai_node.router.candidate import Ranking
from monai_node.router.demand import Demand
from monai_node.router.offer import Offer, one_per_model
from monai_node.router.policy import may_see
from monai_node.router.rank import rank_named
from monai_node.router.worth import Knowledge

_KNOWN_MODELS_SHOWN = 10


def rank_models(
    offers: Sequence[Offer],
    alias: str,
    peer: str | None,
    demand: Demand,
    knowledge: Knowledge,
    now: float,
) -> Ranking:
    """The order for a request that names its model: `alias`, everywhere or at one peer (its id, its
    name, or the last 8 characters of its id). One that announces `alias@peer` as an alias is no such peer.

    NotFound (`model_not_found`) when nobody serves it; Unsupported when only peers that may not see
    the request do, or none that can be given it."""
    served = [offer for offer in offers if offer.model is not None and offer.skill.model == offer.model.alias]
    named = [offer for offer in served if offer.skill.model == alias]
    if peer is not None:
        named = _at(peer, named)
    if not named:
        raise NotFound(_unknown(alias, peer, served), code="model_not_found", param="model")
    one_each = one_per_model(named)
    if not any(may_see(demand.label, offer.label) for offer in one_each):
        raise Unsupported(
            f"the model {alias!r} is served only by peers that may not see a {demand.label!r} request",
            param="model",
        )
    return rank_named(one_each, f"serves {alias}", demand, knowledge, now)


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


def _unknown(alias: str, peer: str | None, served: Iterable[Offer]) -> str:
    known = sorted({offer.skill.model for offer in served})
    where = f" at {peer[:64]!r}" if peer is not None else ""
    refusal = f"the model {alias[:128]!r} is not served{where}"
    if not known:
        return f"{refusal}: no model is served in this mesh"
    more = f" and {len(known) - _KNOWN_MODELS_SHOWN} more" if len(known) > _KNOWN_MODELS_SHOWN else ""
    return f"{refusal}; known are {', '.join(known[:_KNOWN_MODELS_SHOWN])}{more}"
