"""Fit the numbers of router/calibration.py, and say how they do where they were not fitted.

    python tests/bench/router_fit.py --json

Prints one JSON line: `strength` and `none` as they would stand in the module, and `held_out`, what the
numbers that stand there now come to on what these were not fitted on.

Of CLINC150 and MetaTool one half of the skills is fitted on, with the requests for them (CLINC150's
requests for nothing are divided as well); of Seal-Tools, whose requests need several skills, every other
request. Skills have 0, 1, 3, 5 examples or a mixture. The sets weigh the same, but Seal-Tools a quarter in
`strength`: a gateway divides such requests before anybody asks for their skills.

`strength`: the conditional logit of the right skill among all, for requests that have one.
`none`: the logit of no skill being right, on lists of 1 to all skills of a half, drawn at random. Requests
whose skill was not drawn, requests of the other sets, and CLINC150's requests for nothing have none; all of
these together are given the weight of `prior`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from router_data import (
    NAMES,
    Request,
    Set,
    data_folder,
    files_of,
    open_stored_embedder,
    place_of,
    read_set,
    with_examples,
)
from router_figures import auroc, calibration_error, rounded

from monai_node.registry.advert import Skill
from monai_node.router.calibration import (
    NONE,
    STRENGTH,
    absence,
    chances_of_none,
    evidence,
    shares,
    strengths,
)
from monai_node.router.compare import Comparison, Likeness
from monai_node.router.embed import Vector
from monai_node.router.sparse import counted
from monai_node.router.texts import SPELLING_CHARS_MAX, cleaned, texts_of

Table = NDArray[np.float64]

SEED = 7
EXAMPLES: tuple[int | None, ...] = (0, 1, 3, 5, None)  # None: a mixture
WEIGHTS = {"seal-tools": 0.25}
# Lists drawn for each number of skills in them.
DRAWN = {1: 20, 2: 15, 3: 10, 5: 8, 10: 5, 30: 3}
# Of a drawn list, for each of the two kinds of requests.
REQUESTS_DRAWN = 24
_STRENGTHS_KEPT = 32
_NEWTON_STEPS = 12
_STEP_MAX = 5.0
_RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Half:
    """Skills of one set, and the requests that none but these, or none at all, are right for."""

    name: str
    skills: tuple[Skill, ...]
    requests: tuple[Request, ...]


def halves(name: str, whole: Set) -> tuple[Half, Half]:
    if name == "seal-tools":
        first, second = (Half(name, whole.skills, whole.requests[start::2]) for start in (0, 1))
        return first, second
    order = np.random.default_rng(SEED).permutation(len(whole.skills))
    unanswerable = [request for request in whole.requests if not request.gold]
    found: list[Half] = []
    for start in (0, 1):
        places: frozenset[int] = frozenset(order[start::2].tolist())
        mine = [request for request in whole.requests if request.gold and request.gold <= places]
        skills = tuple(whole.skills[place] for place in sorted(places))
        found.append(Half(name, skills, (*mine, *unanswerable[start::2])))
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of skills, and where each skill of the set stands in it."""

    comparison: Comparison
    place_of: dict[int, int]
    vectors: dict[str, Vector]

    def likeness(self, text: str) -> Likeness:
        asked = cleaned(text)
        return self.comparison.likeness(self.vectors[asked], counted(asked[:SPELLING_CHARS_MAX]))

    def right(self, request: Request) -> list[int]:
        """Where the skills stand that are right for it."""
        return [self.place_of[place] for place in request.gold if place in self.place_of]


def listed(skills: Sequence[Skill], examples: int | None, vectors: dict[str, Vector]) -> Listed:
    rng = np.random.default_rng(SEED)
    counts = [int(rng.integers(6)) if examples is None else examples for _ in skills]
    texts = [texts_of(with_examples(skill, count)) for skill, count in zip(skills, counts, strict=True)]
    new = list(dict.fromkeys(text for skill in texts for text in skill.texts))
    comparison = Comparison().changed_to(
        list(dict.fromkeys(texts)), new, np.stack([vectors[text] for text in new])
    )
    places = {place_of(skill): comparison.place_of[each] for skill, each in zip(skills, texts, strict=True)}
    return Listed(comparison, places, vectors)


# --- strength --------------------------------------------------------------------------------------
def fit_strength(fitted: Sequence[Half], vectors: dict[str, Vector]) -> Table:
    """Newton's method on the mean log-likelihood of the right skill, every half weighing the same."""
    cases = [_evidence(half, examples, vectors) for half in fitted for examples in _examples_of(half)]
    weights: Table = np.zeros(len(STRENGTH))
    for _ in range(_NEWTON_STEPS):
        gradient, curvature = -_RIDGE * weights, _RIDGE * np.eye(len(STRENGTH))
        for case, weight in cases:
            for table, right in case:
                first, second = _choice(table, right, weights)
                gradient += weight * first
                curvature += weight * second
        weights = weights + _step(curvature, gradient)
    return weights


def _evidence(
    half: Half, examples: int | None, vectors: dict[str, Vector]
) -> tuple[list[tuple[Table, list[int]]], float]:
    """What is known of each request and skill, which skills are right, and the weight of a request."""
    skills = listed(half.skills, examples, vectors)
    case = [
        (evidence(skills.likeness(request.text)), skills.right(request))
        for request in half.requests
        if request.gold
    ]
    return case, WEIGHTS.get(half.name, 1.0) / (len(case) * len(_examples_of(half)))


def _choice(table: Table, right: list[int], weights: Table) -> tuple[Table, Table]:
    """Gradient and negative curvature of ln(chance that one of `right` is chosen)."""
    scores = table @ weights
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    mean = chances @ table
    mine = np.exp(scores[right] - scores[right].max())
    mine /= mine.sum()
    spread = (table.T * chances) @ table - np.outer(mean, mean)
    return mine @ table[right] - mean, spread


def _examples_of(half: Half) -> tuple[int | None, ...]:
    return EXAMPLES if any(len(skill.examples) > 1 for skill in half.skills) else (0,)


# --- none ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Absences:
    """A row a request and list: what the chance is made of, whether no skill is right, its weight."""

    known: Table
    is_none: Table
    weight: Table


def prior(count: int) -> float:
    """How often none of so many skills is right: as often as not of one, of 150 once in seven times
    (CLINC150's share), of 4,000 once in sixteen."""
    return 0.5 * count**-0.25


def absences(all_halves: Sequence[Half], vectors: dict[str, Vector]) -> Absences:
    rng = np.random.default_rng(SEED)
    rows = [
        row
        for half in all_halves
        for examples in _examples_of(half)
        for size in (*DRAWN, len(half.skills))
        for _ in range(DRAWN.get(size, 1))
        for row in _drawn(half, all_halves, examples, size, rng, vectors)
    ]
    return Absences(
        np.array([known for known, _, _ in rows]),
        np.array([float(is_none) for _, is_none, _ in rows]),
        np.array([weight for _, _, weight in rows]),
    )


def _drawn(
    half: Half,
    all_halves: Sequence[Half],
    examples: int | None,
    size: int,
    rng: np.random.Generator,
    vectors: dict[str, Vector],
) -> Iterator[tuple[Table, bool, float]]:
    places: list[int] = rng.permutation(len(half.skills))[:size].tolist()
    drawn = [half.skills[place] for place in places]
    skills = listed(drawn, examples, vectors)
    right = [request for request in half.requests if skills.right(request)]
    foreign = [request for other in all_halves if other is not half for request in other.requests]
    wrong = [request for request in half.requests if not skills.right(request)]
    wrong = _some(wrong, REQUESTS_DRAWN, rng) + _some(foreign, REQUESTS_DRAWN // 4, rng)
    right = right if size == len(half.skills) else _some(right, REQUESTS_DRAWN, rng)
    for requests, share in ((right, 1 - prior(size)), (wrong, prior(size))):
        for request in requests:
            likeness = skills.likeness(request.text)
            strongest = int(np.argmax(strengths(likeness)))
            weight = share * np.sqrt(len(right)) / len(requests)
            yield absence(likeness, [strongest], size)[0], requests is wrong, float(weight)


def _some(requests: Sequence[Request], count: int, rng: np.random.Generator) -> list[Request]:
    chosen: list[int] = rng.permutation(len(requests))[:count].tolist()
    return [requests[place] for place in chosen]


def fit_none(rows: Absences) -> Table:
    """Newton's method on the weighted log-likelihood."""
    weights: Table = np.zeros(len(NONE))
    share = rows.weight / rows.weight.sum()
    for _ in range(_NEWTON_STEPS):
        chance: Table = 1 / (1 + np.exp(-(rows.known @ weights)))
        gradient: Table = rows.known.T @ (share * (rows.is_none - chance)) - _RIDGE * weights
        curvature: Table = (rows.known.T * (share * chance * (1 - chance))) @ rows.known
        weights = weights + _step(curvature + _RIDGE * np.eye(len(NONE)), gradient)
    return weights


def _step(curvature: Table, gradient: Table) -> Table:
    """Newton's, but no longer than _STEP_MAX."""
    step: Table = np.linalg.solve(curvature, gradient).astype(np.float64)
    return step * min(1.0, _STEP_MAX / float(np.linalg.norm(step)))


# --- what the shipped numbers come to --------------------------------------------------------------
def held_out(half: Half, examples: int | None, vectors: dict[str, Vector]) -> dict[str, Any]:
    skills = listed(half.skills, examples, vectors)
    none, fit, is_right, is_none = np.zeros((4, len(half.requests)))
    for row, request in enumerate(half.requests):
        likeness = skills.likeness(request.text)
        strength = strengths(likeness)
        order = np.argsort(-strength)[:_STRENGTHS_KEPT]
        none[row] = chances_of_none(likeness, [int(order[0])], len(half.skills))[0]
        share = shares(strength[order], skills.comparison.centres(order.tolist()))
        fit[row] = (1 - none[row]) * share[0]
        is_right[row], is_none[row] = order[0] in skills.right(request), not request.gold
    return rounded(
        {
            "requests": len(none),
            "top1": 100 * float(is_right.sum() / (1 - is_none).sum()),
            "auroc": auroc(none, is_none),
            "ece_none": calibration_error(none, is_none),
            "ece_fit": calibration_error(fit, is_right),
        }
    )


async def measure() -> dict[str, Any]:
    sets = {name: read_set(*files_of(name)) for name in NAMES}
    async with open_stored_embedder() as embedder:
        for whole in sets.values():
            texts = [text for skill in whole.skills for text in texts_of(skill).texts]
            await embedder.embed(texts + [cleaned(request.text) for request in whole.requests])
        vectors = embedder.vectors
    pairs = [halves(name, whole) for name, whole in sets.items()]
    fitted, others = [first for first, _ in pairs], [second for _, second in pairs]
    strength, none = fit_strength(fitted, vectors), fit_none(absences(fitted, vectors))
    return {
        "strength": [round(float(weight), 2) for weight in strength],
        "none": [round(float(weight), 2) for weight in none],
        "held_out": {
            half.name: {str(examples): held_out(half, examples, vectors) for examples in _examples_of(half)}
            for half in others
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the router's numbers; prints one JSON line.")
    parser.add_argument("--json", action="store_true", help="one JSON line (the default, and only, form)")
    parser.parse_args()
    line: dict[str, Any] = {
        "bench": "router_fit",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    if all(path.is_file() for name in NAMES for path in files_of(name)):
        line |= asyncio.run(measure())
    else:
        line["skipped"] = f"no data in {data_folder()}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
