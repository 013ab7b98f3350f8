"""Notices that a peer does its tasks worse than it did: Page's test (CUSUM). Pure.

For as long as a peer does as before, the logarithm of how much likelier its last outcomes are from one
that is half as good falls; it is never let below 0. When it reaches `ALARM`, the peer has turned. Tasks
and canaries are each watched for themselves, and what both say is added: whoever recognises canaries, and
does them well, does not clear itself of what it did to tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# At least e^12, about 160,000, outcomes lie between two false alarms (Lorden's bound), while a peer of
# whose tasks 95 % were done well is caught at the sixth that is not, in a row.
ALARM = 12.0
# A single failure of one that hardly ever failed, or two soon after each other of one that seldom did.
_SUSPECT = 2.0
# Before so many outcomes nobody can say what a peer usually does.
_USUAL_MIN = 10
# Where the usual value is thought to lie: a single failure of one that never failed proves nothing.
_USUAL_RANGE = (0.2, 0.95)
_TURNED_FACTOR = 0.5


@dataclass(slots=True)
class Drift:
    """The outcomes of one peer at one skill since it last turned, in the order in which they came."""

    count: int = 0
    total: float = 0.0
    by_tasks: float = 0.0  # suspicion, a logarithm
    by_canaries: float = 0.0
    run_count: int = 0  # outcomes of the run that made it suspicious
    run_total: float = 0.0

    @property
    def is_suspect(self) -> bool:
        """Whether it did worse lately than it usually does: not enough to say that it turned, but to look."""
        return self._suspicion >= _SUSPECT

    @property
    def _suspicion(self) -> float:
        return self.by_tasks + self.by_canaries

    def add(self, value: float, *, is_canary: bool = False) -> int | None:
        """Take the next value, 0 to 1. When the peer has turned: how many of the newest outcomes, this
        one included, show what it is like now; else None."""
        if self.count >= _USUAL_MIN:
            usual = min(max(self.total / self.count, _USUAL_RANGE[0]), _USUAL_RANGE[1])
            change = _likelier_turned(value, usual)
            if is_canary:
                self.by_canaries = max(0.0, self.by_canaries + change)
            else:
                self.by_tasks = max(0.0, self.by_tasks + change)
            is_clear = self._suspicion == 0.0
            self.run_count = 0 if is_clear else self.run_count + 1
            self.run_total = 0.0 if is_clear else self.run_total + value
        self.count += 1
        self.total += value
        if self._suspicion < ALARM:
            return None
        newest = self.run_count
        self.count, self.total = newest, self.run_total
        self.by_tasks, self.by_canaries, self.run_count, self.run_total = 0.0, 0.0, 0, 0.0
        return newest


def _likelier_turned(value: float, usual: float) -> float:
    """The logarithm of the likelihood ratio of one outcome; a value between 0 and 1 counts as that share
    of a success and the rest of a failure."""
    turned = usual * _TURNED_FACTOR
    return value * math.log(turned / usual) + (1 - value) * math.log((1 - turned) / (1 - usual))
