"""The shell around the membership table: meets peers, proves membership, listens for their pulse.

A *hello* makes two connected nodes members for each other: each proves that it knows the mesh secret,
then hands over its signed advert and beacon. Until then no other protocol of ours answers. Every
member is probed on one open stream; the answer carries its beacon. Peers that we were told to join,
and members that we have met before, are dialled again for as long as we run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from monai_node.registry.advert import Signed, open_advert, open_beacon
from monai_node.registry.errors import (
    MonaiError,
    PeerError,
    PeerRefused,
    PeerUnreachable,
    ProtocolViolation,
)
from monai_node.registry.ids import PeerId, short
from monai_node.registry.membership import Change, Liveness, Membership, PeerRecord
from monai_node.registry.secret import Mesh, new_nonce
from monai_node.registry.tasks import TaskScope, task_scope
from monai_node.registry.transport import Handler, Stream, Transport
from monai_node.registry.wire import (
    ADVERT_PROTOCOL,
    DIAL_SECONDS,
    GONE_AFTER_SECONDS,
    HELLO_PROTOCOL,
    HELLO_SECONDS,
    PEERS_PER_HELLO_MAX,
    PROBE_PROTOCOL,
    SEND_SECONDS,
    AdvertAnswer,
    AdvertPull,
    Hello,
    HelloProof,
    HelloRefused,
    Introduction,
    Probe,
    ProbeAnswer,
    decode,
    encode,
)

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
# Dialling again: quick at first, since a restarted peer should be back within two seconds.
_REDIAL_SECONDS = (0.3, 0.5, 0.5, 1.0, 1.0, 2.0, 5.0, 15.0, 30.0)
_REMEMBERED_PEERS_MAX = 64

Listener = Callable[[Change], None]


class Pulse:
    """What this node says of itself at this moment: its advert, and a fresh beacon for each probe."""

    def __init__(self, advert: Callable[[], Signed], beacon: Callable[[], bytes]) -> None:
        self.advert = advert
        self.beacon = beacon


@dataclass(frozen=True, slots=True)
class DirectoryOptions:
    """`probe_seconds` is short for a gateway, which gives out work, and long for a provider."""

    probe_seconds: float
    wants_peers: bool  # dial the members that others tell of: a gateway wants to know providers


class Directory:
    """Made by `open_directory`. `membership` is the table it keeps."""

    def __init__(
        self,
        transport: Transport,
        mesh: Mesh,
        pulse: Pulse,
        options: DirectoryOptions,
        clock: Callable[[], float],
        scope: TaskScope,
    ) -> None:
        self.membership = Membership()
        self._transport = transport
        self._mesh = mesh
        self._pulse = pulse
        self._options = options
        self._clock = clock
        self._scope = scope
        self._members: set[PeerId] = set()
        self._kept: set[str] = set()
        self._probed: set[PeerId] = set()
        self._listeners: list[Listener] = []
        transport.listen_connections(self._on_connection)
        transport.handle(HELLO_PROTOCOL, self._accept_hello)
        transport.handle(PROBE_PROTOCOL, self.for_members(self._answer_probes))
        transport.handle(ADVERT_PROTOCOL, self.for_members(self._answer_pull))
        scope.start(self._tick(), name="directory tick")

    # --- what others use --------------------------------------------------------------------------
    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever a peer's liveness or advert changed."""
        self._listeners.append(listener)

    def is_member(self, peer: PeerId) -> bool:
        return peer == self._transport.peer_id or peer in self._members

    def liveness(self, peer: PeerId) -> Liveness:
        if peer == self._transport.peer_id:
            return "alive"
        record = self.membership.get(peer)
        return record.liveness if record is not None else "gone"

    def heard(self, peer: PeerId) -> None:
        """Something authentic came from a peer on some other stream."""
        self._tell(self.membership.heard(peer, self._clock()))

    def for_members(self, handler: Handler) -> Handler:
        """`handler`, refused to peers that have not proved membership on this connection."""

        async def guarded(stream: Stream) -> None:
            if not self.is_member(stream.peer):
                raise PeerRefused(f"{short(stream.peer)} used a protocol before its hello")
            await handler(stream)

        return guarded

    async def join(self, addr: str) -> PeerId:
        """Dial, prove membership, and keep dialling whenever the connection is lost.

        PeerUnreachable when nobody answers, PeerRefused when it is another mesh.
        """
        peer = await self._meet(addr)
        self.keep(addr)
        return peer

    def keep(self, addr: str) -> None:
        """Dial `addr` for as long as this node runs, whenever it is not connected."""
        if addr not in self._kept and not addr.endswith(self._transport.peer_id):
            self._kept.add(addr)
            self._scope.start(self._redial(addr), name=f"redial {addr[-8:]}")

    def remembered(self) -> list[str]:
        """Addresses worth dialling at the next start, the most recently heard peers first."""
        records = sorted(self.membership.records(), key=lambda r: r.heard_at, reverse=True)
        return [addr for record in records for addr in record.addrs[:1]][:_REMEMBERED_PEERS_MAX]

    # --- hello ------------------------------------------------------------------------------------
    async def _meet(self, addr: str) -> PeerId:
        peer = await self._transport.connect(addr, DIAL_SECONDS)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                stream = await self._transport.open(peer, HELLO_PROTOCOL, HELLO_SECONDS)
                try:
                    await self._say_hello(stream)
                except BaseException:
                    stream.reset()
                    raise
                await stream.close()
        except (TimeoutError, EOFError):
            raise PeerUnreachable(f"{addr} answers, but did not complete the hello") from None
        return peer

    async def _say_hello(self, stream: Stream) -> None:
        me, them, mine = self._transport.peer_id, stream.peer, new_nonce()
        await stream.send(encode(Hello(mesh=self._mesh.id, nonce=mine)))
        answer = decode(await stream.receive(), HelloProof, HelloRefused)
        if isinstance(answer, HelloRefused):
            raise PeerRefused(answer.message)
        nonces = (mine, answer.nonce)
        if not self._mesh.is_proof(answer.proof, "accepter", me, them, nonces):
            raise PeerRefused("the peer does not know the secret of this mesh")
        proof = self._mesh.prove("opener", me, them, nonces)
        await stream.send(encode(HelloProof(nonce=mine, proof=proof)))
        self._members.add(them)
        await stream.send(encode(self._introduce()))
        self._introduced(them, decode(await stream.receive(), Introduction))

    async def _accept_hello(self, stream: Stream) -> None:
        me, them = self._transport.peer_id, stream.peer
        async with asyncio.timeout(HELLO_SECONDS):
            hello = decode(await stream.receive(), Hello)
            if hello.mesh != self._mesh.id:
                await stream.send(encode(HelloRefused(message=self._refusal(hello.mesh))))
                return
            mine = new_nonce()
            nonces = (hello.nonce, mine)
            proof = self._mesh.prove("accepter", them, me, nonces)
            await stream.send(encode(HelloProof(nonce=mine, proof=proof)))
            answer = decode(await stream.receive(), HelloProof)
            if not self._mesh.is_proof(answer.proof, "opener", them, me, nonces):
                raise PeerRefused(f"{short(them)} does not know the secret of this mesh")
            self._members.add(them)
            introduction = decode(await stream.receive(), Introduction)
            await stream.send(encode(self._introduce()))
            self._introduced(them, introduction)

    def _refusal(self, theirs: str) -> str:
        if self._mesh.is_open:
            return "this is an open mesh; join it with the line that its nodes print (ending in #open)"
        return (
            "wrong mesh secret: this node belongs to another mesh; copy the whole join line that it printed"
        )

    def _introduce(self) -> Introduction:
        alive = [record.addrs[0] for record in self.membership.alive() if record.addrs]
        return Introduction(
            advert=self._pulse.advert().envelope,
            beacon=self._pulse.beacon(),
            peers=alive[:PEERS_PER_HELLO_MAX],
        )

    def _introduced(self, peer: PeerId, introduction: Introduction) -> None:
        signed = open_advert(introduction.advert, peer)
        beacon = open_beacon(introduction.beacon, peer)
        change = self.membership.connected(peer, self._clock())
        self.membership.observe_beacon(beacon)
        self._tell(change)
        self._tell(self.membership.observe_advert(signed))
        if peer not in self._probed:
            self._probed.add(peer)
            self._scope.start(self._probe(peer), name=f"probe {short(peer)}")
        if self._options.wants_peers:
            self._keep_all(introduction.peers)

    def _keep_all(self, addrs: Iterable[str]) -> None:
        for addr in addrs:
            known = self.membership.get(PeerId(addr.rpartition("/p2p/")[2]))
            if known is None and len(self._kept) < _REMEMBERED_PEERS_MAX:
                self.keep(addr)

    # --- the pulse of others ------------------------------------------------------------------------
    async def _probe(self, peer: PeerId) -> None:
        """Ask one member for its beacon, period by period, until its connection is gone."""
        try:
            while self._transport.is_connected(peer):
                try:
                    await self._probe_stream(peer)
                except (PeerError, EOFError, TimeoutError) as error:
                    _log.debug("probe stream of %s ended: %s", short(peer), error)
                    await asyncio.sleep(self._options.probe_seconds)
        finally:
            self._probed.discard(peer)

    async def _probe_stream(self, peer: PeerId) -> None:
        stream = await self._transport.open(peer, PROBE_PROTOCOL, GONE_AFTER_SECONDS)
        try:
            for number in range(2**62):
                # No shorter deadline than "gone": silence is judged by the table, and a thawed peer
                # answers on this same stream.
                async with asyncio.timeout(GONE_AFTER_SECONDS):
                    await stream.send(encode(Probe(n=number)))
                    answer = decode(await stream.receive(), ProbeAnswer)
                if answer.n != number:
                    raise ProtocolViolation(f"{short(peer)} answered another probe")
                self._take_beacon(peer, answer.beacon)
                await self._pull_advert(peer)
                await asyncio.sleep(self._options.probe_seconds)
        finally:
            stream.reset()

    def _take_beacon(self, peer: PeerId, envelope: bytes) -> None:
        beacon = open_beacon(envelope, peer)
        self.membership.observe_beacon(beacon)
        self.heard(peer)

    async def _pull_advert(self, peer: PeerId) -> None:
        digest = self.membership.lacks_advert(peer)
        if digest is None:
            return
        stream = await self._transport.open(peer, ADVERT_PROTOCOL, DIAL_SECONDS)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await stream.send(encode(AdvertPull(digest=digest)))
                answer = decode(await stream.receive(), AdvertAnswer)
            self._tell(self.membership.observe_advert(open_advert(answer.advert, peer)))
        finally:
            stream.reset()

    async def _answer_probes(self, stream: Stream) -> None:
        with suppress(EOFError):
            while True:
                probe = decode(await stream.receive(), Probe)
                self.heard(stream.peer)
                await stream.send(encode(ProbeAnswer(n=probe.n, beacon=self._pulse.beacon())))

    async def _answer_pull(self, stream: Stream) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            decode(await stream.receive(), AdvertPull)
            await stream.send(encode(AdvertAnswer(advert=self._pulse.advert().envelope)))

    # --- time and connections -----------------------------------------------------------------------
    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for change in self.membership.tick(self._clock()):
                self._tell(change)
                if change.after == "gone" and self._transport.is_connected(change.peer):
                    await self._transport.disconnect(change.peer)

    def _on_connection(self, peer: PeerId, is_up: bool) -> None:
        if is_up:
            return  # a connection alone proves nothing: the hello makes a member
        self._members.discard(peer)
        self._tell(self.membership.disconnected(peer, self._clock()))
        record = self.membership.get(peer)
        if record is not None and record.addrs:
            self._keep_all_of(record)

    def _keep_all_of(self, record: PeerRecord) -> None:
        if self._options.wants_peers and len(self._kept) < _REMEMBERED_PEERS_MAX:
            self.keep(record.addrs[0])

    async def _redial(self, addr: str) -> None:
        peer, failures = PeerId(addr.rpartition("/p2p/")[2]), 0
        while True:
            if self._transport.is_connected(peer) and peer in self._members:
                failures = 0
            else:
                try:
                    await self._meet(addr)
                except PeerRefused as error:
                    _log.warning("%s refused this node: %s", short(peer), error)
                    failures = len(_REDIAL_SECONDS)
                except MonaiError as error:
                    _log.debug("dialling %s: %s", short(peer), error)
                    failures += 1
            await asyncio.sleep(_REDIAL_SECONDS[min(failures, len(_REDIAL_SECONDS) - 1)])

    def _tell(self, change: Change | None) -> None:
        if change is None:
            return
        if change.before != change.after:
            _log.info("peer %s is %s", short(change.peer), change.after)
        for listener in self._listeners:
            listener(change)


@asynccontextmanager
async def open_directory(
    transport: Transport,
    mesh: Mesh,
    pulse: Pulse,
    options: DirectoryOptions,
    clock: Callable[[], float],
) -> AsyncGenerator[Directory]:
    """Serve hello, probe and advert on `transport`, and watch members until left."""
    async with task_scope() as scope:
        yield Directory(transport, mesh, pulse, options, clock, scope)
