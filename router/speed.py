"""How quick each model at each peer is, by this node's own clock. Pure: time is passed in.

Kept in seconds per character, because characters are counted here: what a peer says of tokens and
milliseconds is used only to tell waiting from reading, within the time that went by here. So a peer that
lies of its speed is believed until its first task has ended. The first task after a long pause is kept
apart: it pays for what the system has put away since, or for loading the model, and says nothing of the
tasks after it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from monai_node.registry.ids import AttemptId, PeerId
from monai_node.registry.wire import RUN_SECONDS_MAX
from monai_node.router.candidate import Candidate
from monai_node.router.health import NEWEST_WEIGHT, moved
from monai_node.router.outcome import Ending, Ledger, NoLedger

# After so long without a task a model may have been unloaded, or its weights pushed out of memory:
# Ollama unloads after 5 minutes.
COLD_AFTER_SECONDS = 300.0
# Fewer characters measure the path and not the model.
_READ_CHARS_MIN = 200
_WRITE_CHARS_MIN = 40
# A result that came in the last twentieth of its time was not streamed: reading and writing cannot be told
# apart, and all of it counts as writing.
_STREAMED_SHARE_MIN = 0.05
# Peers times models; the ones unused for longest are forgotten.
PACES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Measured:
    """One model at one peer. Seconds; for a character where `_char` says so; None: not measured yet.

    `write_char` is per task, by how many tasks were there at once: under 1 alone, 2 for two or three, 3 for
    four to seven and so on. `cold` is what a first task takes longer. `at` is when the last one ended.
    """

    at: float
    path: float | None = None
    read_char: float | None = None
    write_char: Mapping[int, float] = field(default_factory=dict[int, float])
    cold: float | None = None

    def is_cold(self, now: float) -> bool:
        return now - self.at > COLD_AFTER_SECONDS


class Speeds:
    """What completed tasks took at each peer and model, and what this node has under way there."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[PeerId, str], Measured] = OrderedDict()
        self._quickest: OrderedDict[str, PeerId] = OrderedDict()  # by model, who writes quickest
        self._under_way: Counter[tuple[PeerId, str]] = Counter()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, peer: PeerId, model: str) -> Measured | None:
        """None when no task of this model was completed there lately."""
        return self._known.get((peer, model))

    def elsewhere(self, model: str) -> Measured | None:
        """Of a model of this name at the quickest peer: a better guess for others who serve it than any by
        its size. A slower one's would leave them untried, and the slow one with all the work."""
        peer = self._quickest.get(model)
        return None if peer is None else self.of(peer, model)

    def under_way(self, peer: PeerId, model: str) -> int:
        """Tasks of this node that are there now. A peer tells its load once a second only: whoever went by
        that alone would send all requests of a moment to the same one."""
        return self._under_way[peer, model]

    def began(self, candidate: Candidate) -> None:
        self._under_way[candidate.peer, candidate.model] += 1

    def ended(self, candidate: Candidate) -> None:
        """Once for every `began`."""
        key = (candidate.peer, candidate.model)
        self._under_way[key] -= 1
        if self._under_way[key] <= 0:
            del self._under_way[key]

    def completed(self, candidate: Candidate, ending: Ending, now: float) -> None:
        """Learn from an attempt that was completed; attempts at agents, which have no model, say nothing."""
        if not candidate.model or not 0 < ending.seconds <= RUN_SECONDS_MAX:
            return
        key = (candidate.peer, candidate.model)
        before = self._known.get(key)
        known = before or Measured(now)
        sample = _split(candidate, ending)
        if before is None or before.is_cold(now):
            excess = _excess(known, sample, candidate.read_chars)
            known = replace(known, cold=moved(known.cold, excess, NEWEST_WEIGHT))
        else:
            known = replace(known, path=moved(known.path, sample.path, NEWEST_WEIGHT))
            if candidate.read_chars >= _READ_CHARS_MIN and sample.is_streamed:
                per_char = sample.read / candidate.read_chars
                known = replace(known, read_char=moved(known.read_char, per_char, NEWEST_WEIGHT))
        if ending.chars >= _WRITE_CHARS_MIN:
            level = level_of(min(candidate.load + 1, max(candidate.slots, 1)))
            per_char = sample.write / ending.chars
            pace = {**known.write_char, level: moved(known.write_char.get(level), per_char, NEWEST_WEIGHT)}
            known = replace(known, write_char=pace)
        self._known[key] = replace(known, at=now)
        self._known.move_to_end(key)
        self._compare(*key)
        while len(self._known) > PACES_MAX:
            self._known.popitem(last=False)

    def _compare(self, peer: PeerId, model: str) -> None:
        former = self._quickest.get(model)
        rival = None if former is None else self.of(former, model)
        if rival is None or _quickest(self._known[peer, model]) < _quickest(rival):
            self._quickest[model] = peer
        self._quickest.move_to_end(model)
        while len(self._quickest) > PACES_MAX:
            self._quickest.popitem(last=False)


class SpeedLedger:
    """Tells `speeds` of every attempt that begins, ends or was completed, and `rest` of everything."""

    def __init__(self, speeds: Speeds, clock: Callable[[], float], rest: Ledger | None = None) -> None:
        self._speeds = speeds
        self._clock = clock
        self._rest = rest or NoLedger()

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        self._speeds.began(candidates[0])
        self._rest.decided(run, task, attempt, candidates)

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        self._speeds.ended(candidate)
        if not ending.code:
            self._speeds.completed(candidate, ending, self._clock())
        self._rest.ended(run, task, attempt, candidate, ending)


def _quickest(measured: Measured) -> float:
    """Seconds to write a character, with as many tasks at once as it was quickest with."""
    return min(measured.write_char.values(), default=math.inf)


def level_of(streams: int) -> int:
    """Of how many tasks at once the speed is kept together: 1, 2 to 3, 4 to 7, … are 1, 2, 3, …"""
    return max(1, streams).bit_length()


@dataclass(frozen=True, slots=True)
class _Sample:
    """How the seconds of one attempt were spent; queueing is left out."""

    path: float
    read: float
    write: float
    is_streamed: bool


def _split(candidate: Candidate, ending: Ending) -> _Sample:
    """The peer says how it spent the time until the first text; what it says never exceeds that time. That
    it had queued the task is believed as far as the tasks that it spoke of before may explain it."""
    first = min(ending.first_text_seconds or ending.seconds, ending.seconds)
    load = max(0, candidate.load)
    queue = min(ending.timings.queue_ms / 1000, first * load / (load + 1))
    read = min(ending.timings.prefill_ms / 1000, first - queue)
    path = first - queue - read
    writing = ending.seconds - first
    if writing >= _STREAMED_SHARE_MIN * ending.seconds or ending.chars < _WRITE_CHARS_MIN:
        return _Sample(path, read, writing, is_streamed=True)
    generate = min(ending.timings.generate_ms / 1000 or ending.seconds, ending.seconds - queue)
    return _Sample(min(path, ending.seconds - queue - generate), 0.0, generate, is_streamed=False)


def _excess(known: Measured, sample: _Sample, read_chars: int) -> float:
    """By how much a first task took longer to begin than a warm one would have."""
    warm = (known.path or 0.0) + (known.read_char or 0.0) * read_chars
    return max(0.0, sample.path + sample.read - warm)
