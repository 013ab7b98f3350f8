"""One peer that may be asked for a task, and a list of them with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from monai_node.registry.ids import PeerId
from monai_node.router.embed import Vector
from monai_node.router.offer import Offer


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer that may be asked for a task. `reasons` says in words why it stands where it stands, and
    `terms` in numbers; `vector` is the embedding of the task's words, None where nobody needed it.

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
    seconds: float | None = None  # what this task is expected to take there, once it runs; None: not known
    load: int = 0  # tasks that its last beacon said it has
    slots: int = 0  # tasks it does at once; 0: it does not say
    digest: str = ""  # of the model; "" for an agent, or while it is not known
    read_chars: int = 0  # what it has to read before it writes; less than the prompt where it knows a part
    terms: Mapping[str, float] = field(default_factory=dict[str, float], compare=False, repr=False)
    vector: Vector | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one candidate stands, and what is expected of it there."""

    score: float
    reasons: tuple[str, ...]
    tier: int = 0
    seconds: float | None = None
    read_chars: int = 0
    terms: Mapping[str, float] = field(default_factory=dict[str, float])


def candidate_of(offer: Offer, standing: Standing, vector: Vector | None = None) -> Candidate:
    """The candidate that an offer makes."""
    return Candidate(
        peer=offer.peer,
        peer_name=offer.peer_name,
        skill=offer.skill.id,
        model=offer.skill.model,
        is_general=offer.skill.is_general,
        score=standing.score,
        reasons=standing.reasons,
        is_idempotent=offer.skill.is_idempotent,
        tier=standing.tier,
        seconds=standing.seconds,
        load=offer.load,
        slots=offer.skill.slots,
        digest=offer.model.digest if offer.model is not None else "",
        read_chars=standing.read_chars,
        terms=standing.terms,
        vector=vector,
    )


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first, and what was passed over with the reason in words (some of it, where that
    is much).

    `decision` is "route" when a skill made for such tasks comes first, "fallback" when a general one
    does, "none" when nobody can be asked. `none` is the calibrated chance, 0 to 1, that no narrow skill fits;
    None where no skills were compared.
    """

    candidates: Sequence[Candidate]
    filtered: Sequence[tuple[Offer, str]]
    decision: Literal["route", "fallback", "none"] = "route"
    none: float | None = None
