"""How much peers differ from task to task, beyond chance: learnt from their outcomes. Pure.

Where they do not differ, a choice by the outcomes of similar tasks is a choice by luck, and loses to the
model that is best on the whole. So the average near a text counts as empirical Bayes has it: against the
peer's average at large, which weighs as many outcomes as their noise is larger than the true variation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Before anything was seen: models of one pool differ by 0.1 from data set to data set, more than on average.
_VARIANCE_PRIOR = 0.01
_PRIOR_TEXTS = 20.0
_TEXTS_MAX = 500.0  # the last of which count
# What an average at large counts for, in outcomes.
_OUTCOMES_MIN = 5.0
_OUTCOMES_MAX = 1000.0
_NEAR_MIN = 5.0
# p (1 - p) of chances of 0.85 or 0.15.
_NOISE = 0.125

Doubles = NDArray[np.float64]


@dataclass(slots=True)
class Locality:
    """The variance, over texts, of how a peer differs from its average more than the others do."""

    texts: float = _PRIOR_TEXTS
    variance: float = _VARIANCE_PRIOR

    @property
    def prior_outcomes(self) -> float:
        """As how many outcomes a peer's average at large counts against those near a text."""
        least = _NOISE / _OUTCOMES_MAX
        return max(_NOISE / max(self.variance, least), _OUTCOMES_MIN)

    def see(self, near: tuple[Doubles, Doubles], deviation: tuple[Doubles, Doubles]) -> None:
        """Take what was seen near one text, by peer, in two halves of the outcomes there: their weight,
        and how far their average is from that of all of the half. What both halves agree on is no noise.

        No text is to be in both. Peers with little there say nothing, and one alone cannot be told from
        the text being hard."""
        known = np.minimum(*near) >= _NEAR_MIN
        count = int(known.sum())
        if count < 2:
            return
        one, other = (each[known] - each[known].mean() for each in deviation)
        found = float(one @ other) / (count - 1)
        self.texts = min(self.texts + 1.0, _TEXTS_MAX)
        self.variance += (found - self.variance) / self.texts
