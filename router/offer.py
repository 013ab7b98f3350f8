"""One skill at one peer: what can be asked for."""

from __future__ import annotations

import math
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
