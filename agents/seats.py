"""Waiting for a peer within one run: the asynchronous side of `router.seating`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from monai_node.router.rank import Candidate
from monai_node.router.seating import Need, Seating

TASKS_AT_ONCE = 8  # of one run: more than most meshes have peers, and bounds what one request may take


class Seats:
    """Whoever took a seat must `leave` it, on every way out; others move up with the next `settle`.

    `needs` gives a function that says of a key what hangs on its task, at that moment; it is asked for
    keys that have not left.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        needs: Callable[[], Callable[[str], Need]],
        width: int = TASKS_AT_ONCE,
    ) -> None:
        self._clock = clock
        self._needs = needs
        self._seating = Seating(width)
        self._given: dict[str, asyncio.Future[tuple[Candidate, ...]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def take(
        self, key: str, candidates: Sequence[Candidate], guess_seconds: float
    ) -> tuple[Candidate, ...]:
        """Wait for a slot at one of `candidates`; whom to ask, in which order."""
        given = asyncio.get_running_loop().create_future()
        self._given[key] = given
        self._seating.wait(key, candidates, guess_seconds, self._clock())
        self.settle()
        return await given

    def moved(self, key: str, candidate: Candidate) -> None:
        """It was sent to this candidate, whichever the first one was."""
        self._seating.moved(key, candidate, self._clock())

    def leave(self, key: str) -> None:
        """No error when it never came."""
        self._given.pop(key, None)
        self._seating.leave(key, self._clock())
        if self._timer is not None and not self._given:
            self._timer.cancel()

    def announce(self, keys: Collection[str]) -> None:
        """These are about to come: until they have taken a seat, or left, nobody with less behind them
        is seated."""
        self._seating.announce(keys)

    def settle(self) -> None:
        """Seat whoever can be seated now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for seated in self._seating.assign(self._clock(), self._needs()):
            given = self._given[seated.key]
            if not given.done():  # one that was cancelled is about to leave
                given.set_result(seated.candidates)
        if self._seating.recheck_seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seating.recheck_seconds, self.settle)
