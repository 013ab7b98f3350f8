"""How likely a peer does a task well, from outcomes of tasks like it. Pure: time is passed in.

A chance is a chain of averages, in each of which the one before counts as a few outcomes: prior → skill
at all peers → model (by digest) at all peers → this peer at this skill → this peer at texts like this one
(its `NEIGHBOURS_MAX` nearest outcomes). Averages over peers are midmeans with at most one voice a peer, so
that a few that lie neither raise themselves nor harm those who serve the same model. How much harder or
easier texts like this one are is handed down the same chain. How much the nearest outcomes count is learnt
(`router.locality`).

A digest and a skill's name are claims: what is inherited through them is bounded, and a few outcomes of
a peer's own outweigh it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_node.registry.ids import PeerId
from monai_node.router.embed import Vector
from monai_node.router.locality import Locality
from monai_node.router.outcome import Outcome, Source
from monai_node.router.remembered import Indexes, Remembered
from monai_node.router.voices import LEVEL_PRIOR, averaged

# 12.6 MB of vectors with 384 dimensions, which one core reads in about a millisecond.
OUTCOMES_MAX = 8192
# Peers change hands, load and quantisation within weeks; a week ago counts half.
HALF_LIFE_SECONDS = 7 * 86400.0
# Of so many outcomes one is looked at for how much peers differ near it, which takes a millisecond or two.
_LOOKED_AT_EVERY = 4
# Of one peer at one skill. Few neighbours are bad at choosing between models: in the pool of RouterDC,
# k = 1 loses 4 points to the best single model, k = 20 gains 1.5, k = 100 2.7.
NEIGHBOURS_MAX = 100
# What an average one level up counts for, in outcomes.
OWN_PRIOR = 4.0
# Abstaining from so many texts like this one halves the chance.
ABSTAINED_PRIOR = 10.0
# What outcomes at other texts add to the weight of an estimate, at most.
WEIGHT_AT_LARGE_MAX = 20.0
# As many outcomes give a peer half a voice in the averages over peers.
_VOICE_OUTCOMES = 4.0
# Nothing known: peers are reachable because they serve, so most tasks are done.
PRIOR_CHANCE = 0.7
# What nobody has shown yet is not believed to be better than this, whatever is claimed.
CLAIM_CHANCE_MAX = 0.75
# Nor does a digest move a chance further from that of all peers, up or down: liars may be most of those
# who announce it, to rise with its honest replicas or to drag them down.
_CLAIM_DIFFERENCE_MAX = 0.15
# Of outcomes under another digest of the same peer: a bad record is not shed by naming a new model.
_OTHER_DIGEST_WEIGHT = 0.25
# Of outcomes from before a peer turned (`router.drift`).
_TURNED_WEIGHT = 0.02
# The answer to a canary is known, while most contracts see the form only; more than twice would keep a liar
# that recognises canaries in favour (simulated: 7 % of requests instead of 3 %). Errors are counted by
# `router.health` as well. A skill's owner knows best what it is not made for.
_WEIGHT: dict[Source, float] = {
    "canary": 2.0,
    "contract": 1.0,
    "feedback": 1.0,
    "abstained": 4.0,
    "error": 0.5,
}
# Cosines of all-MiniLM-L6-v2 between CLINC150's requests: two of different intents have less than 0.26 in
# 95 % of cases and 0.39 in 99 %, two of one intent 0.52 in the median; 0.28 is the 100th of 3,000.
_NEAR_COSINE = 0.5  # counts whole; less in proportion
# Abstaining says what a text is not, which a merely related one does not share.
_ABSTAINED_COSINES = (0.35, 0.65)

# Of all tasks, those that may go to a peer for the sake of knowing it.
EXPLORATION_SHARE = 0.03
# Outcomes after which a peer is known well enough.
_EXPLORED_WEIGHT = 8.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The chance, 0 to 1, that a task is done well. `spread` is its standard deviation, `weight` the outcomes
    of the peer itself that it rests on (at most WEIGHT_AT_LARGE_MAX of all its others), `near` those at texts
    like this one."""

    chance: float
    spread: float
    weight: float
    near: float


@dataclass(frozen=True, slots=True)
class _Record:
    """The sums over a peer's outcomes at a skill: of their weights, of their weighted values, the same near
    this text, and the weight of its abstaining from texts like this one."""

    weight: float = 0.0
    total: float = 0.0
    near: float = 0.0
    near_total: float = 0.0
    abstained: float = 0.0


@dataclass(frozen=True, slots=True)
class _Level:
    """An average over peers, and by how much it is higher for texts like this one."""

    chance: float
    shift: float


class Estimates:
    """What this node learnt of its peers from outcomes, at most `outcomes_max` of them."""

    def __init__(self, outcomes_max: int = OUTCOMES_MAX) -> None:
        self._remembered = Remembered(outcomes_max)
        self._locality = Locality()
        self._learnt = 0

    def __len__(self) -> int:
        return len(self._remembered)

    def learn(self, outcome: Outcome) -> None:
        """Take one outcome, in the order in which they happened. Replaying stored ones restores what was
        known. One without a finite value and time is passed over; values beyond 0 and 1 count as these."""
        if not (math.isfinite(outcome.value) and math.isfinite(outcome.at)):
            return
        outcome = replace(outcome, value=min(max(outcome.value, 0.0), 1.0))
        is_local = outcome.source == "abstained"
        self._learnt += 1
        if self._learnt % _LOOKED_AT_EVERY == 0 and outcome.vector is not None:
            self.view(outcome.vector, outcome.at).look(outcome.skill)
        group = self._remembered.add(outcome, _WEIGHT[outcome.source], is_local)
        if is_local:
            return
        newest = group.drift.add(outcome.value, is_canary=outcome.source == "canary")
        if newest is not None:
            self._remembered.weight[group.rows[:-newest]] *= _TURNED_WEIGHT

    def is_suspect(self, peer: PeerId, skill: str, digest: str) -> bool:
        """Whether this peer lately did worse than it usually does, and so is worth a look. Any thread's."""
        group = self._remembered.group_at(peer, skill, digest)
        return group is not None and group.drift.is_suspect

    def counts(self) -> dict[PeerId, int]:
        """How many outcomes of each peer are remembered."""
        return self._remembered.counts()

    def forget(self, outcome: Outcome) -> None:
        """An outcome that was learnt counts no more, except for whether its peer turned."""
        self._remembered.forget(outcome)

    def view(self, vector: Vector | None, now: float) -> View:
        """What is known about a task with this vector (None: not embedded). `now` is wall-clock seconds;
        outcomes from after it count as new. To be used before the next `learn`."""
        return View(self._remembered, self._locality, vector, now)


class View:
    """The outcomes weighed for one text. Made by `Estimates.view`."""

    def __init__(self, remembered: Remembered, locality: Locality, vector: Vector | None, now: float) -> None:
        self._remembered = remembered
        self._locality = locality
        self._near_prior = locality.prior_outcomes
        count = len(remembered)
        value, group = remembered.value[:count], remembered.group[:count]
        age = np.maximum(now - remembered.at[:count], 0.0)
        weight = remembered.weight[:count] * np.exp2(age * (-1.0 / HALF_LIFE_SECONDS))
        near = self._nearest(weight * self._likeness(vector, count))
        is_local = remembered.is_local[:count]
        far, abstained = np.where(is_local, 0.0, weight), np.where(is_local, near, 0.0)
        near = near - abstained
        self._near, self._far = near, far
        groups = remembered.group_count
        self._near_weight = _sums(group, near, groups)
        self._near_sum = _sums(group, near * value, groups)
        self._all_weight = _sums(group, far, groups)
        self._all_sum = _sums(group, far * value, groups)
        self._abstained = _sums(group, abstained, groups)
        self._skills: dict[str, _Level] = {}
        self._models: dict[tuple[str, str], _Level] = {}

    def of(self, peer: PeerId, skill: str, digest: str) -> Estimate:
        """The chance that this peer does the task well with the model of this digest ("" for an agent)."""
        record, above = self._record(peer, skill, digest), self._model(skill, digest)
        inherited = OWN_PRIOR * min(above.chance, CLAIM_CHANCE_MAX)
        usual = (record.total + inherited) / (record.weight + OWN_PRIOR)
        # What is inherited about texts like this one is a claim as well.
        proven = record.weight / (record.weight + OWN_PRIOR)
        most = max(usual, CLAIM_CHANCE_MAX + (1 - CLAIM_CHANCE_MAX) * proven)
        here = min(max(usual + above.shift, 0.0), most)
        near = record.near + self._near_prior
        chance = (record.near_total + self._near_prior * here) / near
        chance *= ABSTAINED_PRIOR / (ABSTAINED_PRIOR + record.abstained)
        weight = record.near + record.abstained + min(record.weight, WEIGHT_AT_LARGE_MAX)
        return Estimate(chance, math.sqrt(chance * (1 - chance) / (weight + 2)), weight, record.near)

    def look(self, skill: str) -> None:
        """Learn from this text how much peers differ from text to text."""
        remembered, groups = self._remembered, self._remembered.of_skill(skill)
        near: list[Doubles] = []
        deviation: list[Doubles] = []
        for half in (True, False):
            rows = np.flatnonzero(remembered.half[: len(self._near)] == half)
            group, value, weights = remembered.group[rows], remembered.value[rows], (self._near, self._far)
            here, everywhere = (_sums(group, each[rows], remembered.group_count)[groups] for each in weights)
            of_here, of_all = (
                _sums(group, each[rows] * value, remembered.group_count)[groups] for each in weights
            )
            # Where most of a peer's outcomes are near, they cannot differ from its others.
            near.append(np.where(2 * here <= everywhere, here, 0.0))
            deviation.append(of_here / np.maximum(here, 1.0) - of_all / np.maximum(everywhere, 1.0))
        self._locality.see((near[0], near[1]), (deviation[0], deviation[1]))

    def _record(self, peer: PeerId, skill: str, digest: str) -> _Record:
        own = self._remembered.group_at(peer, skill, digest)
        record = _Record()
        for index in self._remembered.of_peer(peer, skill):
            share = 1.0 if own is not None and index == own.index else _OTHER_DIGEST_WEIGHT
            record = _Record(
                record.weight + share * float(self._all_weight[index]),
                record.total + share * float(self._all_sum[index]),
                record.near + share * float(self._near_weight[index]),
                record.near_total + share * float(self._near_sum[index]),
                record.abstained + share * float(self._abstained[index]),
            )
        return record

    def _likeness(self, vector: Vector | None, count: int) -> NDArray[np.floating[Any]]:
        """How much like this text that of each outcome is, 0 to 1."""
        remembered = self._remembered
        if vector is None or vector.shape != remembered.vectors.shape[1:]:
            return np.zeros(count)
        cosine = remembered.vectors[:count] @ vector
        likeness = np.clip(cosine / _NEAR_COSINE, 0.0, 1.0)
        low, high = _ABSTAINED_COSINES
        abstained = np.flatnonzero(remembered.is_local[:count])
        likeness[abstained] = np.clip((cosine[abstained] - low) / (high - low), 0.0, 1.0)
        return likeness

    def _nearest(self, near: Doubles) -> Doubles:
        """Without what is beyond the `NEIGHBOURS_MAX` outcomes of each group that say most."""
        remembered = self._remembered
        counts = np.bincount(remembered.group[: len(near)], minlength=remembered.group_count)
        for index in np.flatnonzero(counts > NEIGHBOURS_MAX):
            rows = remembered.rows_of(int(index))
            cut = len(rows) - NEIGHBOURS_MAX
            near[rows[np.argpartition(near[rows], cut)[:cut]]] = 0.0
        return near

    def _skill(self, skill: str) -> _Level:
        if skill not in self._skills:
            groups = self._remembered.of_skill(skill)
            self._skills[skill] = self._level(groups, _Level(PRIOR_CHANCE, 0.0))
        return self._skills[skill]

    def _model(self, skill: str, digest: str) -> _Level:
        """Of all who serve it; agents have no digest, and share no more than the skill's name."""
        above = self._skill(skill)
        if not digest:
            return above
        if (skill, digest) not in self._models:
            found = self._level(self._remembered.of_digest(skill, digest), above)
            chance = _within(found.chance, above.chance, _CLAIM_DIFFERENCE_MAX)
            shift = _within(found.shift, above.shift, _CLAIM_DIFFERENCE_MAX)
            self._models[skill, digest] = _Level(chance, shift)
        return self._models[skill, digest]

    def _level(self, groups: Indexes, above: _Level) -> _Level:
        if not len(groups):
            return above
        # However many models a peer had, it has one voice.
        _, at, counts = np.unique(self._remembered.peer_hash[groups], return_inverse=True, return_counts=True)
        share = 1.0 / counts[at]
        weight, near = self._all_weight[groups], self._near_weight[groups]
        chances = (self._all_sum[groups] + LEVEL_PRIOR * above.chance) / (weight + LEVEL_PRIOR)
        shifts = (self._near_sum[groups] - near * chances) / (near + self._near_prior)
        return _Level(
            averaged(chances, share * weight / (weight + _VOICE_OUTCOMES), above.chance),
            averaged(shifts, share * near / (near + _VOICE_OUTCOMES), above.shift),
        )


def explored(estimates: Sequence[Estimate], draw: float) -> int | None:
    """Which of the candidates to ask first for the sake of knowing it: one that is little known and could
    be better than the best. None mostly: `draw`, a random number from 0 to 1 of the caller, lets through
    at most `EXPLORATION_SHARE` of all tasks, however many newcomers there are."""
    if draw >= EXPLORATION_SHARE or not estimates:
        return None
    best = max(estimate.chance for estimate in estimates)
    hopeful = [
        at
        for at, estimate in enumerate(estimates)
        if estimate.weight < _EXPLORED_WEIGHT and estimate.chance + estimate.spread >= best
    ]
    if not hopeful:
        return None
    return hopeful[int(draw / EXPLORATION_SHARE * len(hopeful))]


def _within(value: float, middle: float, distance: float) -> float:
    return min(max(value, middle - distance), middle + distance)


def _sums(group: Indexes, weights: NDArray[np.floating[Any]], groups: int) -> Doubles:
    return np.bincount(group, weights, groups).astype(np.float64, copy=False)
