"""How well a task was done, as this node found out: what the router learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from monai_node.registry.ids import PeerId
from monai_node.router.embed import Vector

# What an outcome rests on, from the surest to the least sure.
Source = Literal["canary", "contract", "feedback", "abstained", "error"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task at one peer. `value` is 0 for badly done to 1 for well done; `at` is wall-clock seconds
    (outcomes outlive the process); `digest` is the model's ("" for an agent); `vector` is the embedding
    of the task's words, of length 1, None when it was not embedded. Holds no text."""

    peer: PeerId
    skill: str
    digest: str
    value: float
    source: Source
    at: float
    vector: Vector | None = field(default=None, compare=False, repr=False)
