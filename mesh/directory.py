"""The shell around the membership table: meets peers, proves membership, listens for their pulse.

A *hello* makes two connected nodes members for each other: each proves that it knows the mesh secret,
then hands over its signed advert and beacon. Until then no other protocol of ours answers. Every
member is probed on one open stream; the answer carries its beacon. Peers that we were told to join are
dialled again for as long as we run; those that we met or heard of, until they have not answered for long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from monai_node.mesh.redial import Redialler, peer_in
from monai_node.registry.advert import Signed, open_advert, open_beacon
from monai_node.registry.errors import (
    PeerError,
    PeerLost,
    PeerRefused,
    PeerUnreachable,
    ProtocolViolation,
)
from monai_node.registry.ids import PeerId, short
from monai_node.registry.membership import Change, Liveness, Membership, PeerRecord
from monai_node.registry.secret import OPEN_MESH, Mesh, new_nonce
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
# A connection on which no hello was completed for so long is given up: strangers must not hold the
# places of members.
STRANGER_SECONDS = 15.0
_REMEMBERED_PEERS_MAX = 64
# How often a gateway says hello again to its members: whom they met meanwhile, they tell in a hello only.
_ASK_AROUND_SECONDS = 10.0

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
        self._redialler = Redialler(transport.peer_id, self._meet, self._is_met, scope)
        self._is_over = False
        self._probed: set[PeerId] = set()
        self._strangers: dict[PeerId, float] = {}  # connected, not yet members: since when
        self._listeners: list[Listener] = []
        transport.listen_connections(self._on_connection)
        transport.handle(HELLO_PROTOCOL, self._accept_hello)
        transport.handle(PROBE_PROTOCOL, self.for_members(self._answer_probes))
        transport.handle(ADVERT_PROTOCOL, self.for_members(self._answer_pull))
        scope.start(self._tick(), name="directory tick")
        if options.wants_peers:
            scope.start(self._ask_around(), name="ask around")

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
        self._redialler.keep(addr)

    def revisit(self, addr: str) -> None:
        """As `keep`, until it has not answered for long."""
        self._redialler.revisit(addr)

    def remembered(self) -> list[str]:
        """Addresses worth dialling at the next start, the most recently heard peers first."""
        records = sorted(self.membership.records(), key=lambda r: r.heard_at, reverse=True)
        return [addr for record in records for addr in _own_addrs(record)[:1]][:_REMEMBERED_PEERS_MAX]

    def check(self) -> None:
        """Judge every peer by how long it was silent, and part from those that are gone or never
        became members.

        Called by the directory itself, several times in a second.
        """
        for change in self.membership.tick(self._clock()):
            self._tell(change)
            if change.after == "gone" and self._transport.is_connected(change.peer):
                self._scope.start(self._part(change.peer), name=f"part from {short(change.peer)}")
        for peer in self._overdue_strangers():
            self._scope.start(self._part(peer), name=f"part from {short(peer)}")

    def leave(self) -> None:
        """Start nothing any more: connections may still end while the transport is closed."""
        self._is_over = True
        self._redialler.leave()

    # --- hello ------------------------------------------------------------------------------------
    async def _meet(self, addr: str) -> PeerId:
        peer = await self._transport.connect(addr, DIAL_SECONDS)
        try:
            await self._greet(peer)
        except (TimeoutError, EOFError):
            raise PeerUnreachable(f"{addr} answers, but did not complete the hello") from None
        return peer

    async def _greet(self, peer: PeerId) -> None:
        """One whole hello on the connection to `peer`; TimeoutError or EOFError when it stays half."""
        async with asyncio.timeout(HELLO_SECONDS):
            stream = await self._transport.open(peer, HELLO_PROTOCOL, HELLO_SECONDS)
            try:
                await self._say_hello(stream)
            except BaseException:
                stream.reset()
                raise
            await stream.close()

    async def _ask_around(self) -> None:
        """Learn of peers that joined the mesh at another member, after our hello with that one."""
        while True:
            await asyncio.sleep(_ASK_AROUND_SECONDS)
            for record in self.membership.alive():
                try:
                    await self._greet(record.peer)
                except (PeerError, EOFError, TimeoutError) as error:
                    _log.debug("%s did not say whom it knows: %s", short(record.peer), error)

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
        with self._as_member(them):
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
            with self._as_member(them):
                introduction = decode(await stream.receive(), Introduction)
                await stream.send(encode(self._introduce()))
                self._introduced(them, introduction)

    @contextmanager
    def _as_member(self, peer: PeerId) -> Generator[None]:
        """A member from its proof on, for it may use our protocols as soon as it was introduced to us;
        not if the rest of the hello fails, unless it is met already."""
        self._members.add(peer)
        try:
            yield
        except BaseException:
            record = self.membership.get(peer)
            if record is None or not record.is_connected:
                self._members.discard(peer)
            raise

    def _refusal(self, theirs: str) -> str:
        if self._mesh.is_open:
            return "this is an open mesh; join it with the line that its nodes print (ending in #open)"
        if theirs == OPEN_MESH:
            return "this is a private mesh; join it with the whole line that its nodes print"
        return (
            "wrong mesh secret: this node belongs to another mesh; copy the whole join line that it printed"
        )

    def _introduce(self) -> Introduction:
        alive = [addr for record in self.membership.alive() for addr in _own_addrs(record)[:1]]
        return Introduction(
            advert=self._pulse.advert().envelope,
            beacon=self._pulse.beacon(),
            peers=alive[:PEERS_PER_HELLO_MAX],
        )

    def _introduced(self, peer: PeerId, introduction: Introduction) -> None:
        signed = open_advert(introduction.advert, peer)
        beacon = open_beacon(introduction.beacon, peer)
        if not self._transport.is_connected(peer):  # its last words were still in the stream
            raise PeerLost(f"{short(peer)} left during its hello")
        change = self.membership.connected(peer, self._clock())
        self.membership.observe_beacon(beacon)
        self._tell(change)
        self._tell(self.membership.observe_advert(signed))
        if peer not in self._probed and not self._is_over:
            self._probed.add(peer)
            self._scope.start(self._probe(peer), name=f"probe {short(peer)}")
        if self._options.wants_peers:
            self._learn(introduction.peers)

    def _learn(self, addrs: Iterable[str]) -> None:
        """Dial the members that another one told of, unless they are known already."""
        for addr in addrs:
            peer = peer_in(addr)
            if peer is not None and self.membership.get(peer) is None:
                self._redialler.visit(addr)

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
        pulled = None
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
                wanted = self.membership.lacks_advert(peer)
                if wanted is not None and wanted != pulled:
                    # Once for each digest: a peer that never hands over what it names is not asked for ever.
                    await self._pull_advert(peer, wanted)
                    pulled = wanted
                await asyncio.sleep(self._options.probe_seconds)
        finally:
            stream.reset()

    def _take_beacon(self, peer: PeerId, envelope: bytes) -> None:
        beacon = open_beacon(envelope, peer)
        self.membership.observe_beacon(beacon)
        self.heard(peer)

    async def _pull_advert(self, peer: PeerId, digest: bytes) -> None:
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
            self.check()

    async def _part(self, peer: PeerId) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_SECONDS):
                await self._transport.disconnect(peer)

    def _on_connection(self, peer: PeerId, is_up: bool) -> None:
        if is_up:
            # A connection alone proves nothing: the hello makes a member.
            self._strangers[peer] = self._clock()
            return
        self._strangers.pop(peer, None)
        self._members.discard(peer)
        self._tell(self.membership.disconnected(peer, self._clock()))
        record = self.membership.get(peer)
        if record is not None and self._options.wants_peers:
            for addr in _own_addrs(record)[:1]:
                self.revisit(addr)

    def _overdue_strangers(self) -> list[PeerId]:
        """Those whose time to say hello is over, each named once for a connection."""
        now = self._clock()
        overdue = [peer for peer, since in self._strangers.items() if now - since > STRANGER_SECONDS]
        for peer in overdue:
            del self._strangers[peer]
        return [peer for peer in overdue if peer not in self._members]

    def _is_met(self, peer: PeerId) -> bool:
        return self._transport.is_connected(peer) and peer in self._members

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
        directory = Directory(transport, mesh, pulse, options, clock, scope)
        try:
            yield directory
        finally:
            directory.leave()


def _own_addrs(record: PeerRecord) -> list[str]:
    """Where a peer says that it can be dialled; not what it says of others."""
    return [addr for addr in record.addrs if peer_in(addr) == record.peer]
