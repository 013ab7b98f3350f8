"""Rows of what several models made of one query: reading them, and making some up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast

from monai_node.router.embed import Vectors

DOMAINS = 6

_TEXTS = ("query", "text", "question", "prompt")
_SCORES = ("score", "scores", "outcomes", "results", "models")
_COSTS = ("cost", "costs")


@dataclass(frozen=True, slots=True)
class Row:
    """A query, and by model how well it did (0 to 1) and what it cost. `dataset` and `split` are "" where
    the file does not say."""

    text: str
    score: dict[str, float]
    cost: dict[str, float]
    dataset: str = ""
    split: str = ""


def read_rows(path: Path) -> list[Row]:
    """Of JSON lines, or of one JSON list. Rows without a text or a score are passed over; ValueError when
    none is left."""
    text = path.read_text(encoding="utf-8")
    told: list[Any] = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    rows = [row for row in map(row_of, told) if row is not None]
    if not rows:
        raise ValueError(f"{path} holds no row with a query and scores")
    return rows


def row_of(told: dict[str, Any]) -> Row | None:
    """A row in any of its spellings: scores and costs as {model: number}, or both as a list of
    {"model", "score", "cost"}. Scores are cut to 0 to 1; what is no finite number is left out."""
    text = _first(told, _TEXTS)
    scores, costs = _first(told, _SCORES), _first(told, _COSTS)
    if isinstance(scores, list):
        listed = cast("list[dict[str, Any]]", scores)
        scores = {each["model"]: each.get("score") for each in listed}
        costs = costs or {each["model"]: each.get("cost") for each in listed}
    score = {model: min(max(value, 0.0), 1.0) for model, value in _numbers(scores).items()}
    if not isinstance(text, str) or not score:
        return None
    dataset, split = told.get("dataset") or "", told.get("split") or ""
    return Row(text, score, _numbers(costs), str(dataset), str(split))


def synthetic(
    texts: Sequence[str], vectors: Vectors, *, models: int, spread: float, seed: int, luck: float = 0.35
) -> list[Row]:
    """Made-up outcomes of real texts. Those nearest to one of DOMAINS texts drawn by chance are a domain, as
    if each came from a data set of its own. A model's chance is its own average, plus what it is better or
    worse at in a domain (deviation `spread`), plus the luck of the text, which all models share. Costs go
    with the averages."""
    random = Random(seed)
    centres = vectors[random.sample(range(len(texts)), DOMAINS)]
    domains: list[int] = (vectors @ centres.T).argmax(axis=1).tolist()
    usual = [0.45 + 0.15 * at / max(1, models - 1) for at in range(models)]
    skew = [[random.gauss(0, spread) for _ in range(DOMAINS)] for _ in range(models)]
    rows: list[Row] = []
    for text, domain in zip(texts, domains, strict=True):
        hard = random.gauss(0, luck)
        chances = [usual[at] + skew[at][domain] + hard for at in range(models)]
        score = {f"m{at}": float(random.random() < chance) for at, chance in enumerate(chances)}
        cost = {f"m{at}": 10 ** (at / models) * random.uniform(0.8, 1.2) for at in range(models)}
        rows.append(Row(text, score, cost, f"domain {domain}"))
    return rows


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _first(told: dict[str, Any], names: Iterable[str]) -> Any:
    return next((told[name] for name in names if told.get(name) is not None), None)


def _numbers(values: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    told = cast("dict[str, object]", values if isinstance(values, dict) else {})
    for model, value in told.items():
        if isinstance(value, int | float) and math.isfinite(value):
            found[str(model)] = float(value)
    return found
