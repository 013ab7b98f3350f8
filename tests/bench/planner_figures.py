"""Figures over requests: micro-averaged F1 and shares in percent, with 95 % bootstrap intervals."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

DRAWS = 1000
_SEED = 1
Counts = tuple[int, int, int]  # found, predicted, gold
_T = TypeVar("_T")


def counts(predicted: set[_T], gold: set[_T]) -> Counts:
    return len(predicted & gold), len(predicted), len(gold)


def f1(rows: Sequence[Counts]) -> float:
    """Micro-averaged over requests, in percent; 100 where nothing was due and nothing was predicted."""
    found, total = sum(row[0] for row in rows), sum(row[1] + row[2] for row in rows)
    return 200 * found / total if total else 100.0


def share(rows: Sequence[bool]) -> float:
    """In percent; 100 of nothing."""
    return 100 * sum(rows) / len(rows) if rows else 100.0


def spread(rows: Sequence[_T], figure: Callable[[Sequence[_T]], float]) -> list[float]:
    """The ends of the 95 % interval of a figure, by drawing as many requests again, always the same."""
    draw = random.Random(_SEED)
    values = sorted(figure(draw.choices(rows, k=len(rows))) for _ in range(DRAWS)) if rows else []
    return [round(values[at], 1) for at in (DRAWS // 40, -1 - DRAWS // 40)] if values else []


@dataclass(frozen=True, slots=True)
class Row:
    """How one prediction compares with its gold plan."""

    nodes: Counts
    edges: Counts  # against the links that the gold's arguments draw
    links: Counts  # against the links that the gold lists
    is_exact: bool
    is_valid: bool
    is_fallback: bool


def summary(rows: Sequence[Row]) -> dict[str, float | list[float] | int]:
    figures: dict[str, Callable[[Sequence[Row]], float]] = {
        "node_f1": lambda some: f1([row.nodes for row in some]),
        "edge_f1": lambda some: f1([row.edges for row in some]),
        "edge_f1_links": lambda some: f1([row.links for row in some]),
        "exact": lambda some: share([row.is_exact for row in some]),
        "valid": lambda some: share([row.is_valid for row in some]),
        "fallback": lambda some: share([row.is_fallback for row in some]),
    }
    found: dict[str, float | list[float] | int] = {"requests": len(rows)}
    for name, figure in figures.items():
        found[name] = round(figure(rows), 1)
        if name in {"node_f1", "edge_f1", "edge_f1_links", "exact"}:
            found[f"{name}_95"] = spread(rows, figure)
    return found
