"""The arms of the router's benchmark, what they find in a set, and the figures of that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from router_data import Set, StoredEmbedder, offers_of, place_of, with_examples
from router_figures import Numbers, auroc, calibration_error, interval, rounded

from monai_node.registry.advert import Skill
from monai_node.router.compare import Comparison, Likeness
from monai_node.router.embed import Vector
from monai_node.router.index import SkillIndex
from monai_node.router.sparse import counted
from monai_node.router.texts import SPELLING_CHARS_MAX, cleaned, texts_of

EXAMPLES: tuple[int | None, ...] = (0, 1, 3, 5, None)
RANKED_MAX = 32


@dataclass(frozen=True, slots=True)
class Found:
    """What one request was matched with: places of skills, best first, and two chances."""

    ranked: list[int]
    fit: float
    none: float
    seconds: float


# --- arms ------------------------------------------------------------------------------------------
async def fused(skills: Sequence[Skill], texts: Sequence[str], embedder: StoredEmbedder) -> list[Found]:
    """What a gateway does."""
    index, found = SkillIndex(embedder), list[Found]()
    await index.update(offers_of(skills))
    for text in texts:
        started = time.thread_time()
        matches = await index.match(text)
        seconds = time.thread_time() - started
        ranked = [place_of(offer.skill) for match in matches.best for offer in match.offers]
        found.append(Found(ranked, matches.best[0].fit, matches.none, seconds))
    return found


async def dense(skills: Sequence[Skill], texts: Sequence[str], embedder: StoredEmbedder) -> list[Found]:
    return await _by(lambda likeness: likeness.nearest, skills, texts, embedder)


async def sparse(skills: Sequence[Skill], texts: Sequence[str], embedder: StoredEmbedder) -> list[Found]:
    return await _by(lambda likeness: likeness.sparse, skills, texts, embedder)


async def _by(
    score: Callable[[Likeness], Vector],
    skills: Sequence[Skill],
    texts: Sequence[str],
    embedder: StoredEmbedder,
) -> list[Found]:
    """By one likeness, which is taken for a chance as well."""
    mine = [texts_of(skill) for skill in skills]
    new = list(dict.fromkeys(text for skill in mine for text in skill.texts))
    comparison = Comparison().changed_to(list(dict.fromkeys(mine)), new, await embedder.embed(new))
    columns = [comparison.place_of[skill] for skill in mine]
    found: list[Found] = []
    for text in texts:
        (vector,) = await embedder.embed([cleaned(text)])
        started = time.thread_time()
        likeness = comparison.likeness(vector, counted(cleaned(text)[:SPELLING_CHARS_MAX]))
        scores = score(likeness)[columns]
        ranked = np.argsort(-scores, kind="stable")[:RANKED_MAX].tolist()
        highest = float(np.clip(scores[ranked[0]], 0.0, 1.0))
        found.append(Found(ranked, highest, 1 - highest, time.thread_time() - started))
    return found


ARMS = {"dense": dense, "sparse": sparse, "fused": fused}


# --- figures ---------------------------------------------------------------------------------------
def figures(whole: Set, found: Sequence[Found]) -> dict[str, Any]:
    gold = [request.gold for request in whole.requests]
    places = [_place(each.ranked, right) for each, right in zip(found, gold, strict=True)]
    has_gold = np.array([bool(right) for right in gold])
    mine = np.array(places, np.float64)[has_gold]
    is_right = np.array(places) == 1
    none, fit = (np.array([getattr(each, name) for each in found]) for name in ("none", "fit"))
    is_none = (~has_gold).astype(np.float64)

    def share(most: int) -> Callable[[NDArray[np.intp]], float]:
        return lambda at: 100 * float((mine[at] <= most).mean())

    return rounded(
        {
            "requests": len(found),
            "top1": share(1)(np.arange(len(mine))),
            "top1_95": interval(len(mine), share(1)),
            "top3": share(3)(np.arange(len(mine))),
            "top3_95": interval(len(mine), share(3)),
            "mrr": float((1 / mine).mean()),
            "auroc": auroc(none, is_none),
            "auroc_95": _auroc_interval(none, is_none),
            "ece": calibration_error(none, is_none),
            "ece_fit": calibration_error(fit, is_right.astype(np.float64)),
            "p95_ms": 1000 * float(np.percentile([each.seconds for each in found], 95)),
        }
    )


def _place(ranked: Sequence[int], right: frozenset[int]) -> float:
    """From 1, of the first right one; infinite where there is none."""
    return next((at for at, place in enumerate(ranked, 1) if place in right), np.inf)


def _auroc_interval(none: Numbers, is_none: Numbers) -> list[float] | None:
    if not 0 < is_none.sum() < len(is_none):
        return None
    return interval(len(none), lambda at: auroc(none[at], is_none[at]))


# --- runs ------------------------------------------------------------------------------------------
async def measure(
    whole: Set, examples: Sequence[int | None], embedder: StoredEmbedder, out: Path | None = None
) -> dict[str, Any]:
    texts = [request.text for request in whole.requests]
    await embedder.embed([cleaned(text) for text in texts])
    await embedder.embed([text for skill in whole.skills for text in texts_of(skill).texts])
    arms: dict[str, dict[str, Any]] = {name: {} for name in ARMS}
    last: list[Found] = []
    for count in examples:
        skills = [with_examples(skill, count) for skill in whole.skills]
        for name, arm in ARMS.items():
            last = await arm(skills, texts, embedder)
            arms[name]["all" if count is None else str(count)] = figures(whole, last)
    if out is not None:
        _write(out, whole, last)
    most = "all" if examples[-1] is None else str(examples[-1])
    return {"summary": {"examples": most, **arms["fused"][most]}, "arms": arms}


def _write(out: Path, whole: Set, found: Sequence[Found]) -> None:
    lines = (
        json.dumps({"id": row, "ranked": [whole.ids[place] for place in each.ranked], "p_none": each.none})
        for row, each in enumerate(found)
    )
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
