"""How good an order of skills and a chance are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_BINS = 10
_RESAMPLES = 1000


def auroc(chance: Numbers, is_true: Numbers) -> float | None:
    """The chance that a true one is given a higher number than a false one; None without one of both."""
    true, false = chance[is_true > 0], chance[is_true == 0]
    if not len(true) or not len(false):
        return None
    ordered = np.sort(false)
    below = np.searchsorted(ordered, true, "left") + np.searchsorted(ordered, true, "right")
    return float(below.mean() / 2 / len(false))


def calibration_error(chance: Numbers, is_true: Numbers, weights: Numbers | None = None) -> float:
    """Expected calibration error over ten bins of equal width: by how much chance and frequency differ."""
    weight = np.ones(len(chance)) if weights is None else weights
    bins = np.minimum((chance * _BINS).astype(int), _BINS - 1)
    differences = np.bincount(bins, weight * (chance - is_true), minlength=_BINS)
    return float(np.abs(differences).sum() / weight.sum())


def interval(count: int, figure: Callable[[NDArray[np.intp]], float | None]) -> list[float] | None:
    """The 95 % bootstrap interval of a figure of the requests at some places."""
    rng = np.random.default_rng(0)
    found = [figure(rng.integers(count, size=count)) for _ in range(_RESAMPLES)]
    known = [each for each in found if each is not None]
    return [round(float(end), 3) for end in np.percentile(known, [2.5, 97.5])] if known else None


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(each, 4) if isinstance(each, float) else each for key, each in figures.items()}
