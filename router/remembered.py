"""The outcomes that are remembered: bounded, in arrays, shared fairly between peers. No I/O.

A full memory forgets the oldest outcome of the peer that has most in it. A busy or hostile peer so
replaces only outcomes of its own, and whoever has few keeps them.
"""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_node.registry.ids import PeerId
from monai_node.router.drift import Drift
from monai_node.router.embed import Vector, Vectors
from monai_node.router.outcome import Outcome

_ROWS_MIN = 256

Floats = NDArray[np.float32]
Indexes = NDArray[np.intp]


class GroupKey(NamedTuple):
    """Whose outcomes belong together: one model ("" for an agent) at one skill of one peer."""

    peer: PeerId
    skill: str
    digest: str


@dataclass(slots=True)
class Group:
    """The rows of one key. `index` is what the column `group` holds for them."""

    key: GroupKey
    index: int
    drift: Drift = field(default_factory=Drift)
    queue: deque[int] = field(default_factory=deque[int])
    _rows: Indexes | None = None

    def push(self, row: int) -> None:
        self.queue.append(row)
        self._rows = None

    def pop(self) -> None:
        self.queue.popleft()
        self._rows = None

    @property
    def rows(self) -> Indexes:
        if self._rows is None:
            self._rows = np.fromiter(self.queue, np.intp, len(self.queue))
        return self._rows


class Remembered:
    """Columns of outcomes, one row each, of which the first `len()` are in use.

    `weight` says how much an outcome counts, `is_local` that it counts only for texts like its own.
    `half` divides the texts in two by chance: outcomes at one text are in the same. The vector is 0 where
    an outcome has none, or one of another length than the first.
    """

    def __init__(self, rows_max: int) -> None:
        if rows_max < 1:
            raise ValueError(f"a memory of {rows_max} outcomes would never learn")
        self._rows_max = rows_max
        self._count = 0
        self.vectors: Vectors = np.zeros((0, 0), np.float32)
        self.value: Floats = np.zeros(0, np.float32)
        self.weight: Floats = np.zeros(0, np.float32)
        self.at: NDArray[np.float64] = np.zeros(0)
        self.is_local: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.half: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.group: Indexes = np.zeros(0, np.intp)
        self._groups: dict[GroupKey, Group] = {}
        self.peer_hash: NDArray[np.int64] = np.zeros(0, np.int64)  # by group: equal where the peer is
        # By index; that of an empty one waits in `_free` for another.
        self._group_of: list[Group] = []
        self._free: list[int] = []
        self._rows_of: defaultdict[PeerId, deque[int]] = defaultdict(deque)
        self._members: dict[tuple[str, ...], dict[int, None]] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def group_count(self) -> int:
        """One more than the highest index of a group."""
        return len(self._group_of)

    def rows_of(self, index: int) -> Indexes:
        """The rows of one group, oldest first."""
        return self._group_of[index].rows

    def group_at(self, peer: PeerId, skill: str, digest: str) -> Group | None:
        return self._groups.get(GroupKey(peer, skill, digest))

    def of_skill(self, skill: str) -> Indexes:
        """The groups of a skill, at all peers."""
        return self._indexes((skill,))

    def of_digest(self, skill: str, digest: str) -> Indexes:
        """The groups of one model at a skill, at all peers."""
        return self._indexes((skill, digest))

    def of_peer(self, peer: PeerId, skill: str) -> Collection[int]:
        """The groups of a peer at a skill, whichever model it had."""
        return self._members.get((skill, peer, ""), {}).keys()

    def add(self, outcome: Outcome, weight: float, is_local: bool) -> Group:
        """Remember an outcome whose value and time are finite; the group that it went to."""
        row = self._row(outcome.peer)
        group = self._groups.get(key := GroupKey(outcome.peer, outcome.skill, outcome.digest))
        group = group or self._open(key)
        self._write_vector(row, outcome.vector)
        self.value[row], self.weight[row] = outcome.value, weight
        self.at[row], self.is_local[row] = outcome.at, is_local
        self.group[row] = group.index
        group.push(row)
        self._rows_of[outcome.peer].append(row)
        return group

    def counts(self) -> dict[PeerId, int]:
        """How many of each peer there are."""
        return {peer: len(rows) for peer, rows in self._rows_of.items()}

    def forget(self, outcome: Outcome) -> None:
        """It counts no more from here on; no error when it is not remembered, or not any more."""
        group = self.group_at(outcome.peer, outcome.skill, outcome.digest)
        if group is None:
            return
        rows = group.rows
        is_it = (self.at[rows] == outcome.at) & (self.value[rows] == np.float32(outcome.value))
        self.weight[rows[is_it & (self.weight[rows] > 0)][-1:]] = 0.0

    def _row(self, peer: PeerId) -> int:
        """A row that is free, or that the peer with most of them gives up; this one at a tie."""
        if self._count < self._rows_max:
            if self._count == len(self.value):
                self._grow(min(self._rows_max, max(_ROWS_MIN, 2 * self._count)))
            self._count += 1
            return self._count - 1
        most = max(map(len, self._rows_of.values()))
        if len(self._rows_of.get(peer, ())) < most:
            peer = next(each for each, rows in self._rows_of.items() if len(rows) == most)
        row = self._rows_of[peer].popleft()
        if not self._rows_of[peer]:
            del self._rows_of[peer]
        # The oldest row of a peer is the oldest of its group, too.
        group = self._group_of[int(self.group[row])]
        group.pop()
        if not group.queue:
            self._close(group)
        return row

    def _grow(self, rows: int) -> None:
        more = rows - len(self.value)
        self.vectors = np.concatenate([self.vectors, np.zeros((more, self.vectors.shape[1]), np.float32)])
        self.value = np.concatenate([self.value, np.zeros(more, np.float32)])
        self.weight = np.concatenate([self.weight, np.zeros(more, np.float32)])
        self.at = np.concatenate([self.at, np.zeros(more)])
        self.is_local = np.concatenate([self.is_local, np.zeros(more, np.bool_)])
        self.half = np.concatenate([self.half, np.zeros(more, np.bool_)])
        self.group = np.concatenate([self.group, np.zeros(more, np.intp)])

    def _write_vector(self, row: int, vector: Vector | None) -> None:
        if vector is not None and not self.vectors.shape[1] and vector.ndim == 1:
            self.vectors = np.zeros((len(self.value), len(vector)), np.float32)
        fits = (
            vector is not None and vector.shape == self.vectors.shape[1:] and bool(np.isfinite(vector).all())
        )
        self.vectors[row] = vector if fits else 0.0
        self.half[row] = zlib.crc32(self.vectors[row].tobytes()) % 2

    def _open(self, key: GroupKey) -> Group:
        if not self._free:
            self._free.append(len(self._group_of))
            self._group_of.append(_NOBODY)
            if len(self.peer_hash) < len(self._group_of):
                self.peer_hash = np.resize(self.peer_hash, 2 * len(self._group_of))
        group = self._groups[key] = Group(key, self._free.pop())
        self._group_of[group.index] = group
        self.peer_hash[group.index] = hash(key.peer)
        for name in _names(key):
            self._members.setdefault(name, {})[group.index] = None
        return group

    def _close(self, group: Group) -> None:
        del self._groups[group.key]
        self._group_of[group.index] = _NOBODY
        self._free.append(group.index)
        for name in _names(group.key):
            del self._members[name][group.index]
            if not self._members[name]:
                del self._members[name]

    def _indexes(self, name: tuple[str, ...]) -> Indexes:
        members = self._members.get(name, {})
        return np.fromiter(members, np.intp, len(members))


_NOBODY = Group(GroupKey(PeerId(""), "", ""), -1)


def _names(key: GroupKey) -> tuple[tuple[str, ...], ...]:
    """Under what a group is found: its skill, its model there, its peer there."""
    return (key.skill,), (key.skill, key.digest), (key.skill, key.peer, "")
