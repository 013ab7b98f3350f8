"""Which peers are asked for a task, in which order, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from monai_node.registry.ids import PeerId


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer that may be asked for a task. `reasons` says in words why it stands where it stands."""

    peer: PeerId
    peer_name: str
    skill: str
    model: str  # alias; "" for an agent
    is_general: bool
    score: float
    reasons: tuple[str, ...]
    is_idempotent: bool = True  # may be started again elsewhere when nobody knows how far it came
