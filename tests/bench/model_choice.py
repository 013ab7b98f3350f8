"""Which model is asked, by outcomes of earlier queries: what that gains over one model for everything.

    python tests/bench/model_choice.py --json --outcomes FILE [--limit N] [--folds N] [--seed N]
    python tests/bench/model_choice.py --json

FILE holds rows {"query": text, "score": {model: 0 to 1}, "cost": {model: number}}, as JSON lines or a JSON
list, optionally with "dataset" and "split" (train and test; else 5 folds). Prints one JSON line. A train row
with the words of a test row is left out.

Without FILE, outcomes are made up for CLINC150's requests ($MONAI_BENCH_DATA, default ../shared/bench beside
the repository; without them the line says `skipped`): the line says `is_synthetic`, and its figures say only
that the code works.

Arms, in percent of the score: `random`; `best_single`, the model with the best average of the test rows
themselves, and `best_trained`, of the train rows; `knn`, the project's estimates, which take the highest
chance; `knn_plain`, the average of the 100 nearest train rows; `dataset_oracle`, the best model of each
dataset, and `oracle`, of each query. `summary.headroom_share` is what part of the way from best_single to
oracle `knn` goes; `gain_interval` is the 95 % bootstrap interval of its points over best_single.

`cost`: chance less λ times a model's average cost, over all λ; `area` lies under the hull of the points
(cost, score), over the range of the single models' costs (RouterBench's AIQ), `area_single` under the hull of
the single models.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from model_choice_rows import Row, read_rows, synthetic
from numpy.typing import NDArray

from monai_node.mesh.embedders import open_sentence_embedder
from monai_node.registry.ids import PeerId
from monai_node.router.embed import Vectors
from monai_node.router.estimate import Estimates
from monai_node.router.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
NEAREST = 100  # as in the estimates; chosen before anything was measured here
TRAIN_MAX = 4000  # rows of one fold that are learnt: more cost time and tell little more
TRIED_SHARE = 0.9  # a model that fewer rows tried is left out, rather than the rows
LAMBDAS = (0.0, *(float(value) for value in np.logspace(-3, 2, 41)))
RESAMPLES = 1000
SKILL = "choice"

Matrix = NDArray[np.float64]


@dataclass(slots=True)
class Told:
    """What each arm reached, one number a test row; `chances` are of every model."""

    rows: list[Row] = field(default_factory=list[Row])
    chances: list[Matrix] = field(default_factory=list[Matrix])
    knn: list[float] = field(default_factory=list[float])
    plain: list[float] = field(default_factory=list[float])
    trained: list[float] = field(default_factory=list[float])
    costs: list[Matrix] = field(default_factory=list[Matrix])  # of the models, as the train rows say
    duplicates: int = 0


def folds_of(rows: Sequence[Row], count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Train and test indexes: the file's own split where it has one."""
    train = [at for at, row in enumerate(rows) if row.split.startswith("train")]
    if 0 < len(train) < len(rows):
        test = [at for at, row in enumerate(rows) if row.split and not row.split.startswith("train")]
        return [(train, test)]
    order = list(range(len(rows)))
    Random(seed).shuffle(order)
    parts = [order[at::count] for at in range(count)]
    return [([at for other in parts if other is not part for at in other], part) for part in parts]


def measure(rows: Sequence[Row], vectors: Vectors, folds: int, seed: int) -> dict[str, Any]:
    """All figures, of the models that most rows tried and the rows that tried all of these."""
    tried = Counter(model for row in rows for model in row.score)
    models = sorted(model for model, count in tried.items() if count >= TRIED_SHARE * len(rows))
    rows, kept = _complete(rows, models)
    told = Told()
    for train, test in folds_of(rows, folds, seed):
        _fold(told, rows, vectors[kept], models, train, test, seed)
    return _figures(told, models)


def _complete(rows: Sequence[Row], models: Sequence[str]) -> tuple[list[Row], list[int]]:
    """Rows on which every model was tried: others cannot be compared."""
    kept = [at for at, row in enumerate(rows) if set(models) <= set(row.score)]
    if not models or not kept:
        raise SystemExit("no row has a score of every model")
    return [rows[at] for at in kept], kept


def _fold(
    told: Told,
    rows: Sequence[Row],
    vectors: Vectors,
    models: Sequence[str],
    train: list[int],
    test: list[int],
    seed: int,
) -> None:
    asked = {rows[at].text for at in test}
    fresh = [at for at in train if rows[at].text not in asked]
    told.duplicates += len(train) - len(fresh)
    Random(seed).shuffle(fresh)
    fresh = fresh[:TRAIN_MAX]
    scores = np.array([[rows[at].score[model] for model in models] for at in fresh])
    costs = np.array([[rows[at].cost.get(model, 0.0) for model in models] for at in fresh]).mean(axis=0)
    usual = scores.mean(axis=0)
    estimates = learnt(scores, vectors[fresh], models)
    for at in test:
        row, vector = rows[at], vectors[at]
        view = estimates.view(vector, 0.0)
        chances = np.array([view.of(PeerId(model), SKILL, model).chance for model in models])
        likeness = vectors[fresh] @ vector
        nearest = np.argsort(-likeness)[:NEAREST]
        told.rows.append(row)
        told.chances.append(chances)
        told.costs.append(costs)
        told.knn.append(row.score[models[_best(chances, usual)]])
        told.plain.append(row.score[models[_best(scores[nearest].mean(axis=0), usual)]])
        told.trained.append(row.score[models[int(usual.argmax())]])


def learnt(scores: Matrix, vectors: Vectors, models: Sequence[str]) -> Estimates:
    """Estimates that saw what every model made of every row: each is a peer of its own."""
    estimates = Estimates(outcomes_max=scores.size)
    for values, vector in zip(scores, vectors, strict=True):
        for model, value in zip(models, values, strict=True):
            estimates.learn(Outcome(PeerId(model), SKILL, model, float(value), "contract", 0.0, vector))
    return estimates


def _best(chances: Matrix, usual: Matrix) -> int:
    """Of equals the one that is better on the whole."""
    return int(np.lexsort((usual, chances.round(6)))[-1])


def _figures(told: Told, models: Sequence[str]) -> dict[str, Any]:
    scores = np.array([[row.score[model] for model in models] for row in told.rows])
    single = scores.mean(axis=0)
    best, oracle = float(single.max()), float(scores.max(axis=1).mean())
    knn = statistics.mean(told.knn)
    gain = np.array(told.knn) - scores[:, int(single.argmax())]
    arms = {
        "random": _percent(float(scores.mean())),
        "best_single": _percent(best),
        "best_trained": _percent(statistics.mean(told.trained)),
        "knn": _percent(knn),
        "knn_plain": _percent(statistics.mean(told.plain)),
        "dataset_oracle": _dataset_oracle(told.rows, scores),
        "oracle": _percent(oracle),
    }
    return {
        "models": dict(zip(models, (_percent(float(value)) for value in single), strict=True)),
        "test_rows": len(told.rows),
        "train_duplicates_removed": told.duplicates,
        "arms": arms,
        "calibration_error": _calibration_error(np.array(told.chances), scores),
        "cost": _cost(told, scores, models),
        "summary": {
            "accuracy": arms["knn"],
            "best_single": arms["best_single"],
            "oracle": arms["oracle"],
            "headroom_share": round((knn - best) / (oracle - best), 4) if oracle > best else None,
            "gain": round(100 * float(gain.mean()), 2),
            "gain_interval": _interval(gain),
        },
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _dataset_oracle(rows: Sequence[Row], scores: Matrix) -> float | None:
    if not any(row.dataset for row in rows):
        return None
    of: defaultdict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        of[row.dataset].append(at)
    return _percent(float(sum(scores[at].sum(axis=0).max() for at in of.values())) / len(rows))


def _interval(gain: Matrix) -> list[float]:
    draws = np.random.default_rng(0).integers(0, len(gain), (RESAMPLES, len(gain)))
    low, high = np.percentile(gain[draws].mean(axis=1), (2.5, 97.5))
    return [round(100 * float(low), 2), round(100 * float(high), 2)]


def _calibration_error(chances: Matrix, scores: Matrix) -> float:
    """Of all models' chances, in ten bins."""
    bins = np.minimum((chances * 10).astype(int), 9)
    apart = [
        abs(float(chances[bins == each].mean() - scores[bins == each].mean())) * float((bins == each).mean())
        for each in range(10)
        if (bins == each).any()
    ]
    return round(sum(apart), 4)


def _cost(told: Told, scores: Matrix, models: Sequence[str]) -> dict[str, Any] | None:
    """None where a cost is missing."""
    if any(not set(models) <= set(row.cost) for row in told.rows):
        return None
    costs = np.array([[row.cost[model] for model in models] for row in told.rows])
    single = list(zip(costs.mean(axis=0).tolist(), scores.mean(axis=0).tolist(), strict=True))
    low, high = min(cost for cost, _ in single), max(cost for cost, _ in single)
    if high <= low:
        return None
    chances, expected = np.array(told.chances), np.array(told.costs) / high
    points: list[tuple[float, float]] = []
    rows = np.arange(len(scores))
    for weight in LAMBDAS:
        chosen = (chances - weight * expected).argmax(axis=1)
        points.append((float(costs[rows, chosen].mean()), float(scores[rows, chosen].mean())))
    return {
        "area": round(hull_area([*points, *single], low, high), 4),
        "area_knn_alone": round(hull_area(points, low, high), 4),
        "area_single": round(hull_area(single, low, high), 4),
        "points": [[round(cost, 6), round(score, 4)] for cost, score in sorted(set(points))],
    }


def hull_area(points: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """The average height, from `low` to `high`, of the non-decreasing upper hull of points (cost, score);
    0 left of the cheapest."""
    hull: list[tuple[float, float]] = []
    for cost, score in sorted(points):
        if hull and score <= hull[-1][1]:
            continue
        while hull and hull[-1][0] == cost:
            hull.pop()
        while len(hull) > 1 and _is_below(hull[-2], hull[-1], (cost, score)):
            hull.pop()
        hull.append((cost, score))
    grid = np.linspace(low, high, 2001)
    xs, ys = [cost for cost, _ in hull], [score for _, score in hull]
    return float(np.interp(grid, xs, ys, left=0.0).mean())


def _is_below(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> bool:
    rise = (right[1] - left[1]) * (middle[0] - left[0])
    return (middle[1] - left[1]) * (right[0] - left[0]) <= rise


async def embedded(texts: Sequence[str]) -> Vectors:
    async with open_sentence_embedder() as embedder:
        return await embedder.embed(texts)


def requests_of(path: Path) -> list[str]:
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in told if row["gold"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="which model is asked")
    parser.add_argument("--json", action="store_true", help="print one JSON line (always)")
    parser.add_argument("--outcomes", type=Path, metavar="FILE")
    parser.add_argument("--limit", type=int, default=10_000, help="at most so many rows, drawn by the seed")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    line: dict[str, Any] = {
        "bench": "model_choice",
        "host": platform.machine(),
        "seed": options.seed,
        "is_synthetic": options.outcomes is None,
        "neighbours": NEAREST,
    }
    if options.outcomes:
        rows = read_rows(options.outcomes)
        if len(rows) > options.limit:
            rows = Random(options.seed).sample(rows, options.limit)
        vectors = asyncio.run(embedded([row.text for row in rows]))
    else:
        data = Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench"))
        path = data / "dispatch" / "clinc150-queries.jsonl"
        if not path.is_file():
            print(json.dumps({**line, "skipped": f"no data in {data}"}))
            return
        texts = requests_of(path)[: options.limit]
        vectors = asyncio.run(embedded(texts))
        rows = synthetic(texts, vectors, models=7, spread=0.1, seed=options.seed)
    print(json.dumps({**line, "rows": len(rows), **measure(rows, vectors, options.folds, options.seed)}))


if __name__ == "__main__":
    main()
