"""The table of known peers: who is there, what they announce, whether they may be given work.

Pure: values in, values out, time is passed in (seconds of one monotonic clock). The shell that talks
to the network is `mesh.directory`.

A peer is `alive` while it is connected and was heard within SUSPECT_AFTER_SECONDS; `suspect` when it
is connected and silent (no new tasks); `gone` when its connection ended or it was silent for
GONE_AFTER_SECONDS. Only direct contact brings a gone peer back: a hello, or a frame on a connection
that outlived the silence; what others say of it does not. Anything received from a peer counts as
hearing it: a busy machine must not look dead. Silence while *we* were stalled is not held against
anybody (`tick`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from monai_node.registry.advert import Advert, Beacon, Signed
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import GONE_AFTER_SECONDS, SUSPECT_AFTER_SECONDS

Liveness = Literal["alive", "suspect", "gone"]

# A node that did not run its own tick for longer cannot tell silence from its own absence. Well below
# SUSPECT_AFTER_SECONDS: up to here, a gap between two ticks does count as silence.
STALL_SECONDS = 0.7
# Peers remembered at once: an open mesh must not grow our memory without bound.
PEERS_MAX = 4096


@dataclass(slots=True)
class PeerRecord:
    """One peer, as this node knows it. `heard_at` is on our clock."""

    peer: PeerId
    advert: Advert | None = None
    advert_digest: bytes | None = None
    beacon: Beacon | None = None
    heard_at: float = 0.0
    is_connected: bool = False
    liveness: Liveness = "gone"
    addrs: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Change:
    """A peer's liveness or advert changed; `before` equals `after` for a new advert."""

    peer: PeerId
    before: Liveness
    after: Liveness


class Membership:
    """All peers but ourselves."""

    def __init__(self) -> None:
        self._records: dict[PeerId, PeerRecord] = {}
        self._ticked_at: float | None = None

    def get(self, peer: PeerId) -> PeerRecord | None:
        return self._records.get(peer)

    def records(self) -> Iterable[PeerRecord]:
        return self._records.values()

    def alive(self) -> list[PeerRecord]:
        """Peers that may be given new tasks, in order of peer id."""
        found = [r for r in self._records.values() if r.liveness == "alive" and r.advert is not None]
        return sorted(found, key=lambda record: record.peer)

    def heard(self, peer: PeerId, now: float) -> Change | None:
        """Something authentic was received from a connected peer."""
        record = self._records.get(peer)
        if record is None or not record.is_connected:
            return None
        record.heard_at = max(record.heard_at, now)
        return self._settle(record, now)

    def connected(self, peer: PeerId, now: float) -> Change | None:
        """Direct contact: a hello was completed with this peer.

        Its beacon is forgotten, for the hello brings one that is fresh whatever its `seq`: a peer that
        lost its state counts from the beginning again.
        """
        record = self._records.get(peer)
        if record is None:
            self._make_room()
            record = self._records[peer] = PeerRecord(peer)
        record.is_connected = True
        record.beacon = None
        record.heard_at = now
        return self._settle(record, now)

    def disconnected(self, peer: PeerId, now: float) -> Change | None:
        record = self._records.get(peer)
        if record is None:
            return None
        record.is_connected = False
        return self._settle(record, now)

    def observe_advert(self, signed: Signed) -> Change | None:
        """Keep a verified advert of a known peer."""
        record = self._records.get(PeerId(signed.advert.peer))
        if record is None or record.advert_digest == signed.digest:
            return None
        record.advert, record.advert_digest = signed.advert, signed.digest
        record.addrs = list(signed.advert.addrs)
        return Change(record.peer, record.liveness, record.liveness)

    def observe_beacon(self, beacon: Beacon) -> bool:
        """Keep a verified beacon if it is newer than what is known; says whether it was."""
        record = self._records.get(PeerId(beacon.peer))
        if record is None or (record.beacon is not None and beacon.seq <= record.beacon.seq):
            return False
        record.beacon = beacon
        return True

    def lacks_advert(self, peer: PeerId) -> bytes | None:
        """The digest of an advert that the peer's beacon names and we do not hold."""
        record = self._records.get(peer)
        if record is None or record.beacon is None:
            return None
        wanted = record.beacon.advert_digest
        return None if wanted == record.advert_digest else wanted

    def tick(self, now: float) -> list[Change]:
        """Re-judge everyone; call it at least every STALL_SECONDS / 2."""
        if self._ticked_at is not None and now - self._ticked_at > STALL_SECONDS:
            # Our loop stood still, and answers may wait unread: that time is nobody's silence. Only
            # what exceeds the usual is forgiven, or a machine that is always late would never notice.
            stalled = now - self._ticked_at - STALL_SECONDS
            for record in self._records.values():
                record.heard_at = min(now, record.heard_at + stalled)
        self._ticked_at = now
        changes = [self._settle(record, now) for record in self._records.values()]
        return [change for change in changes if change is not None]

    def _settle(self, record: PeerRecord, now: float) -> Change | None:
        before, record.liveness = record.liveness, _judge(record, now)
        if before == record.liveness:
            return None
        return Change(record.peer, before, record.liveness)

    def _make_room(self) -> None:
        if len(self._records) < PEERS_MAX:
            return
        gone = [r for r in self._records.values() if r.liveness == "gone"]
        victim = min(gone or self._records.values(), key=lambda record: record.heard_at)
        del self._records[victim.peer]


def _judge(record: PeerRecord, now: float) -> Liveness:
    silence = now - record.heard_at
    if not record.is_connected or silence > GONE_AFTER_SECONDS:
        return "gone"
    return "suspect" if silence > SUSPECT_AFTER_SECONDS else "alive"
