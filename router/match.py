"""How alike a text and the announced skills are: what the index finds and the ranking reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from monai_node.registry.advert import Skill
from monai_node.router.embed import Vector
from monai_node.router.offer import Offer


@dataclass(frozen=True, slots=True)
class Match:
    """One skill against a text, and everyone who offers it in exactly these words.

    `fit` is the calibrated chance, 0 to 1, that this skill is what the text asks for; that of a general one
    is the chance that no narrow one is. Skills in almost the same words take nothing from each other's, so
    that fits may add up to more than 1. `alone` is the chance that it fits if no likelier skill were there,
    and never more than that of a likelier one: several may do the same in words that are not much alike,
    and then it stays high where `fit` does not. `dense` is the highest cosine of its texts, `sparse` its
    likeness in words, `best_example` the nearest example ("" when the description was nearer). `offers` is
    never empty.
    """

    offers: tuple[Offer, ...]
    fit: float
    dense: float
    sparse: float
    best_example: str
    alone: float = 0.0

    @property
    def skill(self) -> Skill:
        return self.offers[0].skill


@dataclass(frozen=True, slots=True)
class Matches:
    """What a text was compared with: the likeliest narrow skills and every general one, best first.

    `none` is the calibrated chance, 0 to 1, that no narrow skill fits: 1 where there is none. `vector` is
    the embedding of the text.
    """

    best: tuple[Match, ...]
    none: float
    vector: Vector | None = field(default=None, compare=False, repr=False)
