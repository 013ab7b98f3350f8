"""One skill at one peer: what can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.router.policy import PeerLabel


@dataclass(frozen=True, slots=True)
class Offer:
    """One skill at one peer, with the load that its last beacon told. `model` is None for an agent."""

    peer: PeerId
    peer_name: str
    label: PeerLabel
    skill: Skill
    model: ModelInfo | None = None
    running: int = 0
    queued: int = 0

    @property
    def load(self) -> int:
        return self.running + self.queued
