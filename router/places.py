"""What the tasks of this node share on their way to peers: the places that each peer has for them, and
turns to open a stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from monai_node.registry.ids import PeerId
from monai_node.registry.wire import TASKS_PER_PEER_MAX

# Streams opened at once, in all and at one peer. A stream takes both sides some 10 ms of processor time to
# open: five hundred that share the processors are all opened at the end of five seconds, or too late, and
# those behind one another are not. Few at one peer, so that a frozen one holds up nobody else.
OPENINGS_MAX = 16
OPENINGS_PER_PEER_MAX = 4

_Place = asyncio.Future[PeerId]


class Places:
    """How many tasks of this node are at each peer; it turns away whoever has `per_peer_max` there.

    Who finds no place waits until one gets free, in the order of coming.
    """

    def __init__(self, per_peer_max: int = TASKS_PER_PEER_MAX) -> None:
        self._per_peer_max = per_peer_max
        self._taken: Counter[PeerId] = Counter()
        self._waiting: dict[_Place, Sequence[PeerId]] = {}  # the longest waiting first

    async def take(self, peers: Sequence[PeerId], seconds: float) -> PeerId:
        """Take a place at the first of `peers` that has one, else at that where one gets free first, which
        is to be given back (`leave`). TimeoutError when there is none within `seconds`."""
        for peer in peers:
            if self._taken[peer] < self._per_peer_max:
                self._taken[peer] += 1
                return peer
        return await self._wait(peers, seconds)

    def leave(self, peer: PeerId) -> None:
        """Give the place on, or keep it free."""
        for place, peers in self._waiting.items():
            if peer in peers and not place.done():
                place.set_result(peer)
                return
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]

    async def _wait(self, peers: Sequence[PeerId], seconds: float) -> PeerId:
        place: _Place = asyncio.get_running_loop().create_future()
        self._waiting[place] = peers
        try:
            async with asyncio.timeout(seconds):
                return await place
        except BaseException:
            if place.done() and not place.cancelled():  # it was given the place as it went
                self.leave(place.result())
            raise
        finally:
            self._waiting.pop(place, None)


class Openings:
    """Turns to open a stream: `at_once` in all, `per_peer` at one peer."""

    def __init__(self, at_once: int = OPENINGS_MAX, per_peer: int = OPENINGS_PER_PEER_MAX) -> None:
        self._per_peer = per_peer
        self._all = asyncio.Semaphore(at_once)
        # As long as somebody has a turn there, or waits for one.
        self._at: WeakValueDictionary[PeerId, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, peer: PeerId) -> AsyncGenerator[None]:
        """Entered when it is one's turn, in the order of coming at each peer."""
        here = self._at.get(peer)
        if here is None:
            here = self._at[peer] = asyncio.Semaphore(self._per_peer)
        async with here, self._all:
            yield
