"""How many runs go on here at once, and who waits for a place."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from monai_node.mesh.gateway.errors import Draining, TooManyRuns

_RUN_SECONDS_GUESS = 5.0  # until one was measured
_RUN_WEIGHT = 0.1  # of the last run in the moving average
_RETRY_SECONDS_MAX = 60.0
_BACK_SECONDS = 5.0  # in which another start, or another gateway, may have taken over

_Place = asyncio.Future[None]


class RunGate:
    """Holds `runs_max` places. Who finds none waits: at most `waiting_max` at once, `waiting_seconds` each.

    Places are shared fairly between callers, by the key that `admit` is given: a free place goes to the one
    who has the fewest, of those to who came first. In a full line whoever has many waiting makes room for
    whoever has few.
    """

    def __init__(
        self,
        runs_max: int,
        waiting_max: int = 0,
        waiting_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        queued: Callable[[float], None] | None = None,
    ) -> None:
        """`queued` is told how many seconds each waited that got its place."""
        self._runs_max = runs_max
        self._waiting_max = waiting_max
        self._waiting_seconds = waiting_seconds
        self._clock = clock
        self._queued = queued
        self._running: Counter[str] = Counter()
        self._lines: dict[str, deque[_Place]] = {}  # without empty ones; the longest waiting key first
        self._run_seconds = _RUN_SECONDS_GUESS
        self._left = asyncio.Event()  # somebody did, since it was looked at
        self.is_closed = False

    @property
    def running_count(self) -> int:
        return self._running.total()

    @property
    def waiting_count(self) -> int:
        return sum(map(len, self._lines.values()))

    def close(self) -> None:
        """Whoever comes from now on is turned away; who runs, or waits already, is not."""
        self.is_closed = True

    async def until_idle(self) -> None:
        """Return when nobody runs or waits."""
        while self.running_count or self.waiting_count:
            self._left.clear()
            await self._left.wait()

    @asynccontextmanager
    async def admit(self, key: str = "") -> AsyncGenerator[None]:
        """Holds one place; TooManyRuns, which says when to come back, when none could be had; Draining when
        the gate is closed."""
        if self.is_closed:
            raise Draining(
                "this gateway is about to stop and begins nothing new; try again in a moment",
                retry_after_seconds=_BACK_SECONDS,
            )
        came = self._clock()
        if self.running_count < self._runs_max:
            self._running[key] += 1
        else:
            await self._wait(key)
        began = self._clock()
        try:
            if self._queued is not None:
                self._queued(began - came)
            yield
        finally:
            self._run_seconds += _RUN_WEIGHT * (self._clock() - began - self._run_seconds)
            self._free(key)

    async def _wait(self, key: str) -> None:
        """Returns with a place held."""
        self._make_room(key)
        place: _Place = asyncio.get_running_loop().create_future()
        self._lines.setdefault(key, deque()).append(place)
        try:
            async with asyncio.timeout(self._waiting_seconds):
                await place
        except TimeoutError:
            if not _is_held(place):
                raise self._refusal(self._position(key, place)) from None
        except asyncio.CancelledError:
            if _is_held(place):
                self._free(key)
            raise
        finally:
            self._leave(key, place)

    def _make_room(self, key: str) -> None:
        if self.waiting_count < self._waiting_max:
            return
        position = self.waiting_count + 1
        longest = max(self._lines, key=lambda other: len(self._lines[other]), default=key)
        if len(self._lines.get(longest, ())) <= len(self._lines.get(key, ())) + 1:
            raise self._refusal(position)
        last = self._lines[longest].pop()
        if not last.done():
            last.set_exception(self._refusal(position - 1))

    def _position(self, key: str, place: _Place) -> int:
        """The place in a line that is left, from 1: as if of each key one were served in turn. 1 also when a
        free place was just offered to it, in the same turn of the loop in which its time was over."""
        line = self._lines.get(key, ())
        ahead = line.index(place) if place in line else 0
        others = (len(line) for other, line in self._lines.items() if other != key)
        return 1 + ahead + sum(min(length, ahead) for length in others)

    def _free(self, key: str) -> None:
        """Give the place on, or keep it free."""
        self._left.set()
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]
        while self._lines:
            next_key = min(self._lines, key=lambda waiting: self._running[waiting])
            line = self._lines.pop(next_key)
            place = line.popleft()
            if line:
                self._lines[next_key] = line  # behind the other keys
            if not place.done():  # else its client has just left
                place.set_result(None)
                self._running[next_key] += 1
                return

    def _leave(self, key: str, place: _Place) -> None:
        self._left.set()
        line = self._lines.get(key)
        if line is None:
            return
        with suppress(ValueError):  # it was served, or turned away
            line.remove(place)
        if not line:
            del self._lines[key]

    def _refusal(self, position: int) -> TooManyRuns:
        seconds = position * self._run_seconds / max(self.running_count, 1)
        seconds = min(max(seconds, 1.0), _RETRY_SECONDS_MAX)
        return TooManyRuns(
            f"{self._runs_max} requests are in flight here, and this one would be number {position} of those"
            f" that wait; try again in {seconds:.0f} s",
            position=position,
            retry_after_seconds=seconds,
        )


def _is_held(place: _Place) -> bool:
    return place.done() and not place.cancelled() and place.exception() is None
