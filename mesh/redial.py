"""Dials peers again for as long as they are worth it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from monai_node.registry.errors import MonaiError, PeerRefused
from monai_node.registry.ids import PeerId, public_key_of, short
from monai_node.registry.tasks import TaskScope

_log = logging.getLogger(__name__)

# Seconds between two dials: quick at first, since a restarted peer should be back within two seconds.
_PAUSES = (0.3, 0.5, 0.5, 1.0, 1.0, 2.0, 5.0, 15.0, 30.0)
# Dials in a row, most of them 30 s apart, after which a peer that we were not told to keep is given up:
# it has moved or is gone for good, and it dials us if it returns.
_FAILURES_MAX = 40
# The same for one that we only heard of: whoever told of it may have made it up, and has us knock at
# a stranger's door.
_HEARSAY_FAILURES_MAX = 4
# Addresses dialled at once because others told of them: a peer must not make us dial the whole world.
_VISITED_MAX = 64


class Redialler:
    """Calls `meet` for each address whenever `is_met` says that its peer is not there."""

    def __init__(
        self,
        me: PeerId,
        meet: Callable[[str], Awaitable[PeerId]],
        is_met: Callable[[PeerId], bool],
        scope: TaskScope,
    ) -> None:
        self._me = me
        self._meet = meet
        self._is_met = is_met
        self._scope = scope
        self._dialled: set[str] = set()  # addresses with a task of their own
        self._kept: set[str] = set()  # those among them that are never given up
        self._hearsay: set[str] = set()  # those among them that we only heard of
        self._is_over = False

    def keep(self, addr: str) -> None:
        """Dial `addr` until the scope ends, whenever its peer is not there."""
        peer = peer_in(addr)
        if peer is not None and peer != self._me:
            self._kept.add(addr)
            self._start(addr, peer)

    def revisit(self, addr: str) -> None:
        """As `keep`, until it has not answered for long; nothing while too many are dialled already."""
        peer = peer_in(addr)
        if peer is not None and peer != self._me and len(self._dialled) < _VISITED_MAX:
            self._start(addr, peer)

    def visit(self, addr: str) -> None:
        """As `revisit`, but given up soon, and at one address of a peer at a time."""
        peer = peer_in(addr)
        if peer is not None and peer not in map(peer_in, self._dialled):
            self._hearsay.add(addr)
            self.revisit(addr)

    def leave(self) -> None:
        """Start nothing any more."""
        self._is_over = True

    def _start(self, addr: str, peer: PeerId) -> None:
        if addr not in self._dialled and not self._is_over:
            self._dialled.add(addr)
            self._scope.start(self._redial(addr, peer), name=f"redial {short(peer)}")

    async def _redial(self, addr: str, peer: PeerId) -> None:
        failures = 0
        while failures < self._failures_max(addr) or addr in self._kept:
            if self._is_met(peer):
                failures = 0
                self._hearsay.discard(addr)
            else:
                failures = await self._dial(addr, peer, failures)
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
        self._dialled.discard(addr)
        self._hearsay.discard(addr)

    def _failures_max(self, addr: str) -> int:
        return _HEARSAY_FAILURES_MAX if addr in self._hearsay else _FAILURES_MAX

    async def _dial(self, addr: str, peer: PeerId, failures: int) -> int:
        """Dial once; how many dials in a row have failed now."""
        try:
            await self._meet(addr)
        except PeerRefused as error:
            _log.warning("%s refused this node: %s", short(peer), error)
            return max(failures + 1, len(_PAUSES))  # it will not change its mind soon
        except MonaiError as error:
            _log.debug("dialling %s: %s", short(peer), error)
            return failures + 1
        return 0


def peer_in(addr: str) -> PeerId | None:
    """The peer that a multiaddr names at its end; None when it names none."""
    _, mark, name = addr.rpartition("/p2p/")
    try:
        public_key_of(PeerId(name))
    except ValueError:
        return None
    return PeerId(name) if mark else None
