"""Averages over peers, each of which has a voice: robust against some that lie. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What the average one level up counts for, in voices or outcomes.
LEVEL_PRIOR = 1.0
# Mean distance from the midmean beyond which peers have nothing in common: replicas of one model that do
# 90 % of their tasks well are 0.1 apart after nine tasks each, half of them lying 0.4.
_APART_MAX = 0.25

Doubles = NDArray[np.float64]


def averaged(values: Doubles, voices: Doubles, above: float) -> float:
    """The midmean, shrunk to the level above: the more so, the fewer voices there are and the less they
    agree. Peers that contradict each other do not have in common what they claim."""
    middle = midmean(values, voices)
    total = float(voices.sum())
    if total > 0:
        apart = float(voices @ np.abs(values - middle)) / total
        total *= max(0.0, 1.0 - apart / _APART_MAX)
    return (total * middle + LEVEL_PRIOR * above) / (total + LEVEL_PRIOR)


def midmean(values: Doubles, voices: Doubles) -> float:
    """The mean of the middle half of the voices: a quarter that lies on either side moves nothing."""
    total = float(voices.sum())
    if total <= 0:
        return 0.0
    order = np.argsort(values)
    upper = np.cumsum(voices[order])
    lower = upper - voices[order]
    middle = np.clip(upper, total / 4, total * 3 / 4) - np.clip(lower, total / 4, total * 3 / 4)
    return float(middle @ values[order]) / (total / 2)
