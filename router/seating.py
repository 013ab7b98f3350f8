"""Which task of a run is given to which peer, and when: list scheduling by earliest finish. Pure.

A task whose peers are all taken waits, or goes to the next one when it would be done there sooner.
Only candidates of the first tier are chosen among: a peer that does a task less well is asked when the
others have failed, not because they are busy. Nothing is given out beyond a peer's slots, so that a run
fills no peer's queue and a task goes to whoever is free first, not to whoever looked free earlier.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from monai_node.registry.ids import PeerId
from monai_node.router.candidate import Candidate
from monai_node.router.delay import LOAD_MAX, slots_of

# A task that has run for longer than expected is expected to run for this share of its time again:
# times are skewed to the right, and what is late tends to stay late.
_LATE_SHARE = 0.3
# A task that waits for a quick peer while a slower one is idle is thought over no sooner than after this:
# an agent's seconds may be so few that thinking it over again and again would hold the event loop.
_RECHECK_SECONDS_MIN = 0.05
# Less is nothing to a person.
_SLACK_TOLD_SECONDS = 0.1
# A peer whose task ended so recently may still be announced as having it.
_BEACON_LAG_SECONDS = 1.0

SeatId = tuple[PeerId, str]  # a peer and the model there, which is what has slots


@dataclass(frozen=True, slots=True)
class Need:
    """What hangs on a task: the expected seconds of the longest chain that begins with it, and how many
    it may take longer than expected without delaying the run.

    Slack is told to people and not spent: times vary, and leaving a quicker peer to a task with less of
    it lengthened runs, by 3 % where half of it was spent and by 0.5 % for a quarter (TaskBench's graphs,
    simulated, log-normal times with sigma 0.8, one slot a peer).
    """

    path_seconds: float
    slack_seconds: float


@dataclass(frozen=True, slots=True)
class Seated:
    """A task to send now, and whom to ask in which order; the first candidate's slot is taken."""

    key: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class _Wish:
    """A task that waits. `seconds` are expected of each candidate of the first tier."""

    candidates: tuple[Candidate, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Work:
    seat: SeatId
    started: float
    seconds: float

    def residual(self, now: float) -> float:
        elapsed = now - self.started
        return max(self.seconds - elapsed, elapsed * _LATE_SHARE)


@dataclass(frozen=True, slots=True)
class _Option:
    """One candidate of a wish, with when it would be done there."""

    at: int
    finish: float
    has_room: bool


class Seating:
    """The tasks of one run that wait for a peer, and those that peers work on.

    At most `width` work at a time, and at each peer no more than its slots. Tasks with more seconds
    behind them choose first; one that waits for a slot holds it against those after it.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"a run of width {width} would never send a task")
        self._width = width
        self._waiting: dict[str, _Wish] = {}
        self._working: dict[str, _Work] = {}
        self._left: dict[PeerId, list[float]] = {}
        self._others: dict[PeerId, int] = {}  # tasks that each peer has from elsewhere
        self._coming: set[str] = set()
        self.recheck_seconds: float | None = None

    def wait(self, key: str, candidates: Sequence[Candidate], guess_seconds: float, now: float) -> None:
        """A task to be given to one of `candidates`, which are not empty, best first. `guess_seconds` are
        expected where nothing was measured."""
        # Now, not when it is given out: a load that was told before tells of tasks that have ended since.
        own = self._own_tasks(now)
        self._others.update({each.peer: _load_of_others(each, own[each.peer]) for each in candidates})
        seconds = _expected_seconds(_first_tier(candidates), guess_seconds)
        self._coming.discard(key)
        self._waiting[key] = _Wish(tuple(candidates), seconds)

    def announce(self, keys: Collection[str]) -> None:
        """Tasks that will wait in a moment: until then none with less behind them is given out. A slot
        that a task has left would else go to whoever waits, ahead of the task that needs its result."""
        self._coming.update(keys)

    def leave(self, key: str, now: float) -> None:
        """The task has ended, or is given up; no error when it is unknown."""
        self._coming.discard(key)
        self._waiting.pop(key, None)
        work = self._working.pop(key, None)
        if work is not None:
            self._left.setdefault(work.seat[0], []).append(now)

    def moved(self, key: str, candidate: Candidate, now: float) -> None:
        """The task was sent to this candidate, whichever it was meant for."""
        work = self._working.get(key)
        if work is not None and work.seat != _seat_of(candidate):
            seconds = work.seconds if candidate.seconds is None else candidate.seconds
            self._working[key] = _Work(_seat_of(candidate), now, seconds)

    def assign(self, now: float, need: Callable[[str], Need]) -> list[Seated]:
        """The tasks to send now. `recheck_seconds` says after how long to ask again even if nothing has
        ended by then, None when that would change nothing."""
        self.recheck_seconds = None
        given: list[Seated] = []
        booking = _Booking(self._working, self._others, now)
        needs = {key: need(key) for key in (*self._waiting, *self._coming)}
        for key in sorted(needs, key=lambda key: -needs[key].path_seconds):
            if len(self._working) >= self._width or key in self._coming:
                break
            wish = self._waiting[key]
            options = self._options(wish, booking)
            chosen = min(options, key=lambda option: option.finish)
            candidate, seconds = wish.candidates[chosen.at], wish.seconds[chosen.at]
            booking.take(candidate, chosen.finish)
            if chosen.has_room:
                del self._waiting[key]
                self._working[key] = _Work(_seat_of(candidate), now, seconds)
                given.append(Seated(key, _in_order(wish, options, chosen, needs[key].slack_seconds)))
            elif any(option.has_room for option in options):
                pause = max(seconds * _LATE_SHARE, _RECHECK_SECONDS_MIN)
                self.recheck_seconds = min(pause, self.recheck_seconds or pause)
        return given

    def _options(self, wish: _Wish, booking: _Booking) -> list[_Option]:
        return [
            _Option(at, booking.free_at(candidate, seconds) + seconds, self._has_room(candidate))
            for at, (candidate, seconds) in enumerate(zip(wish.candidates, wish.seconds, strict=False))
        ]

    def _has_room(self, candidate: Candidate) -> bool:
        seat = _seat_of(candidate)
        return sum(work.seat == seat for work in self._working.values()) < _slots(candidate)

    def _own_tasks(self, now: float) -> Counter[PeerId]:
        """How many tasks of this run each peer may say that it has."""
        for times in self._left.values():
            times[:] = [time for time in times if now - time < _BEACON_LAG_SECONDS]
        own = Counter(work.seat[0] for work in self._working.values())
        own.update({peer: len(times) for peer, times in self._left.items()})
        return own


class _Booking:
    """When the slots of each peer are expected to be free, as the tasks before have left it."""

    def __init__(self, working: dict[str, _Work], others: dict[PeerId, int], now: float) -> None:
        self._now = now
        self._others = others
        self._own: dict[SeatId, list[float]] = defaultdict(list)
        for work in working.values():
            self._own[work.seat].append(now + work.residual(now))
        self._free: dict[SeatId, list[float]] = {}

    def free_at(self, candidate: Candidate, seconds: float) -> float:
        """When a task that takes `seconds` there could begin."""
        return self._slots_of(candidate, seconds)[0]

    def take(self, candidate: Candidate, finish: float) -> None:
        heapq.heapreplace(self._free[_seat_of(candidate)], finish)

    def _slots_of(self, candidate: Candidate, seconds: float) -> list[float]:
        seat = _seat_of(candidate)
        if seat not in self._free:
            free = [self._now] * _slots(candidate)
            for end in self._own[seat]:
                heapq.heapreplace(free, end)
            for _ in range(self._others.get(candidate.peer, 0)):
                heapq.heapreplace(free, free[0] + seconds)
            self._free[seat] = free
        return self._free[seat]


def seconds_for(candidates: Sequence[Candidate], guess_seconds: float, count: int = 1) -> float:
    """What `count` tasks of one kind are expected to take, given to the first tier of `candidates` (which
    are not empty) at once: as many rounds of the quickest as their slots need."""
    tier = _first_tier(candidates)
    rounds = math.ceil(count / sum(map(_slots, tier)))
    return rounds * min(_expected_seconds(tier, guess_seconds))


def _expected_seconds(candidates: Sequence[Candidate], guess_seconds: float) -> tuple[float, ...]:
    """What a task is expected to take at each. One that was never measured counts as the quickest of
    the others, so that it is tried; where none was, `guess_seconds` is taken."""
    measured = [each.seconds for each in candidates if each.seconds is not None]
    unknown = min(measured, default=guess_seconds)
    return tuple(unknown if each.seconds is None else each.seconds for each in candidates)


def _first_tier(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [each for each in candidates if each.tier == candidates[0].tier]


def _in_order(
    wish: _Wish, options: Sequence[_Option], chosen: _Option, slack_seconds: float
) -> tuple[Candidate, ...]:
    """The chosen candidate, its equals by expected finish, the rest as they were ranked."""
    equals = sorted((option for option in options if option is not chosen), key=lambda option: option.finish)
    first = wish.candidates[chosen.at]
    reason = _reason(options, wish.seconds[chosen.at], slack_seconds)
    named = replace(first, reasons=(*first.reasons, reason)) if reason else first
    rest = wish.candidates[len(options) :]
    return (named, *(wish.candidates[option.at] for option in equals), *rest)


def _reason(options: Sequence[_Option], seconds: float, slack_seconds: float) -> str:
    if len(options) < 2:
        return ""
    said = f"done first of {len(options)} that do it alike, in about {seconds:.1f} s"
    return f"{said}; {slack_seconds:.1f} s to spare" if slack_seconds >= _SLACK_TOLD_SECONDS else said


def _seat_of(candidate: Candidate) -> SeatId:
    return candidate.peer, candidate.model


def _slots(candidate: Candidate) -> int:
    return slots_of(candidate.slots)


def _load_of_others(candidate: Candidate, own: int) -> int:
    return min(max(0, candidate.load - own), LOAD_MAX)
