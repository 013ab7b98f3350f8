"""One skill at one peer: what can be asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId

PeerLabel = Literal["self", "trusted", "open"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One skill at one peer, with the load that its last beacon told, and when, on the monotonic clock (for
    this node's own it is always true). `model` is None for an agent."""

    peer: PeerId
    peer_name: str
    label: PeerLabel
    skill: Skill
    model: ModelInfo | None = None
    running: int = 0
    queued: int = 0
    load_told_at: float = math.inf

    @property
    def load(self) -> int:
        return self.running + self.queued


def one_per_model(offers: Iterable[Offer]) -> list[Offer]:
    """One offer for each model at each peer: its general skill, where it has one."""
    chosen: dict[tuple[PeerId, str], Offer] = {}
    for offer in offers:
        key = (offer.peer, offer.skill.model)
        if key not in chosen or (offer.skill.is_general and not chosen[key].skill.is_general):
            chosen[key] = offer
    return list(chosen.values())
