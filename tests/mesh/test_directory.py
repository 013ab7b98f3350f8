"""Directories that meet over the memory transport. The clock of silence is the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from monai_node.mesh.directory import Directory, DirectoryOptions, Pulse, open_directory
from monai_node.mesh.identity import Identity
from monai_node.registry.advert import Advert, Beacon, Signed, digest_of, seal
from monai_node.registry.errors import MonaiError, PeerLost, PeerRefused, PeerUnreachable
from monai_node.registry.ids import PeerId
from monai_node.registry.membership import Change
from monai_node.registry.secret import Mesh, new_mesh, new_nonce
from monai_node.registry.transport import (
    ConnectionListener,
    Handler,
    MemoryNetwork,
    MemoryTransport,
    Stream,
    open_memory_transport,
)
from monai_node.registry.wire import (
    ADVERT_PROTOCOL,
    GONE_AFTER_SECONDS,
    HELLO_PROTOCOL,
    PEERS_PER_HELLO_MAX,
    PROBE_PROTOCOL,
    SUSPECT_AFTER_SECONDS,
    AdvertPull,
    Hello,
    HelloProof,
    HelloRefused,
    Introduction,
    Probe,
    decode,
    encode,
)

SECONDS = 5.0  # for anything that takes milliseconds
STEP = 0.25  # of the clock, between two checks: well below a stall
TASK = "/monai/test-task/1.0.0"
MESH = Mesh(b"a secret, a mesh")


# --- a world of nodes -----------------------------------------------------------------------------
class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Voice:
    """What a node says of itself; `renamed` changes its advert."""

    def __init__(self, identity: Identity, addrs: list[str]) -> None:
        self.identity = identity
        self.addrs = addrs
        self.name = "before"
        self.seq = 0
        self.names_another_digest = False
        self.adverts_given = 0

    def signed(self) -> Signed:
        advert = Advert(peer=self.identity.peer_id, name=self.name, addrs=self.addrs)
        envelope = seal(advert, self.identity.sign)
        return Signed(advert, envelope, digest_of(envelope))

    def advert(self) -> Signed:
        self.adverts_given += 1
        return self.signed()

    def beacon(self) -> bytes:
        self.seq += 1
        digest = b"\xff" * 32 if self.names_another_digest else self.signed().digest
        beacon = Beacon(peer=self.identity.peer_id, seq=self.seq, advert_digest=digest)
        return seal(beacon, self.identity.sign)


class FreezableStream:
    """Sends and receives nothing while the node is frozen, as a stopped process does."""

    def __init__(self, inner: Stream, is_running: asyncio.Event) -> None:
        self._inner = inner
        self._is_running = is_running

    @property
    def peer(self) -> PeerId:
        return self._inner.peer

    async def send(self, frame: bytes) -> None:
        await self._is_running.wait()
        await self._inner.send(frame)

    async def receive(self) -> bytes:
        frame = await self._inner.receive()
        await self._is_running.wait()
        return frame

    @property
    def has_frame(self) -> bool:
        return self._inner.has_frame

    async def close(self) -> None:
        await self._inner.close()

    def reset(self) -> None:
        self._inner.reset()


class FreezableTransport:
    """A memory transport whose node can be frozen, and thawed, with its connections open."""

    def __init__(self, inner: MemoryTransport) -> None:
        self.inner = inner
        self.is_running = asyncio.Event()
        self.is_running.set()

    @property
    def peer_id(self) -> PeerId:
        return self.inner.peer_id

    @property
    def addrs(self) -> list[str]:
        return self.inner.addrs

    def handle(self, protocol: str, handler: Handler) -> None:
        async def serve(stream: Stream) -> None:
            await handler(FreezableStream(stream, self.is_running))

        self.inner.handle(protocol, serve)

    def listen_connections(self, listener: ConnectionListener) -> None:
        self.inner.listen_connections(listener)

    async def connect(self, addr: str, timeout_seconds: float) -> PeerId:
        return await self.inner.connect(addr, timeout_seconds)

    async def open(self, peer: PeerId, protocol: str, timeout_seconds: float) -> Stream:
        return FreezableStream(await self.inner.open(peer, protocol, timeout_seconds), self.is_running)

    def is_connected(self, peer: PeerId) -> bool:
        return self.inner.is_connected(peer)

    async def disconnect(self, peer: PeerId) -> None:
        await self.inner.disconnect(peer)


@dataclass
class Node:
    transport: FreezableTransport
    directory: Directory
    voice: Voice
    clock: Clock
    changes: list[Change] = field(default_factory=list[Change])

    @property
    def peer(self) -> PeerId:
        return self.transport.peer_id

    @property
    def addr(self) -> str:
        return self.transport.addrs[0]

    def name_of(self, other: Node) -> str | None:
        record = self.directory.membership.get(other.peer)
        return record.advert.name if record is not None and record.advert is not None else None

    def silence(self, seconds: float) -> None:
        """Time passes in which this node hears nothing, though it listens."""
        for _ in range(round(seconds / STEP)):
            self.clock.now += STEP
            self.directory.check()


class World:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.network = MemoryNetwork()

    async def transport(self, identity: Identity) -> MemoryTransport:
        return await self._stack.enter_async_context(open_memory_transport(identity.peer_id, self.network))

    async def node(self, mesh: Mesh = MESH, *, is_gateway: bool = False, probe_seconds: float = 0.01) -> Node:
        identity, clock = Identity.generate(), Clock()
        transport = FreezableTransport(await self.transport(identity))
        voice = Voice(identity, transport.addrs)
        options = DirectoryOptions(probe_seconds=probe_seconds, wants_peers=is_gateway)
        directory = await self._stack.enter_async_context(
            open_directory(transport, mesh, Pulse(voice.advert, voice.beacon), options, clock)
        )
        node = Node(transport, directory, voice, clock)
        directory.listen(node.changes.append)
        return node


@asynccontextmanager
async def world() -> AsyncGenerator[World]:
    async with AsyncExitStack() as stack:
        yield World(stack)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():
            await asyncio.sleep(0.002)


async def end_of(stream: Stream) -> BaseException:
    """How a stream ends, whatever comes before that."""
    async with asyncio.timeout(SECONDS):
        try:
            while True:
                await stream.receive()
        except (EOFError, MonaiError) as error:
            return error


# --- hello ----------------------------------------------------------------------------------------
def test_a_hello_makes_each_a_member_that_knows_the_other() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node()
            assert await one.directory.join(two.addr) == two.peer
            await until(lambda: two.directory.liveness(one.peer) == "alive")
            for here, there in ((one, two), (two, one)):
                assert here.directory.is_member(there.peer)
                assert here.directory.liveness(there.peer) == "alive"
                assert [record.peer for record in here.directory.membership.alive()] == [there.peer]
                assert here.name_of(there) == "before"
                assert here.changes[0].after == "alive"
                assert here.directory.remembered() == [there.addr]

    run(test)


def test_a_node_is_a_member_and_alive_to_itself() -> None:
    async def test() -> None:
        async with world() as w:
            one = await w.node()
            assert one.directory.is_member(one.peer)
            assert one.directory.liveness(one.peer) == "alive"
            stranger = Identity.generate().peer_id
            assert not one.directory.is_member(stranger)
            assert one.directory.liveness(stranger) == "gone"

    run(test)


@pytest.mark.parametrize(
    ("mine", "theirs", "sentence"),
    [
        (new_mesh(), MESH, "wrong mesh secret: this node belongs to another mesh"),
        (MESH, Mesh(None), "this is an open mesh; join it with the line"),
        (Mesh(None), MESH, "this is a private mesh; join it with the whole line"),
    ],
    ids=["another secret", "private into open", "open into private"],
)
def test_another_mesh_refuses_at_once_and_says_why(mine: Mesh, theirs: Mesh, sentence: str) -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(mine), await w.node(theirs)
            async with asyncio.timeout(1.0):
                with pytest.raises(PeerRefused, match=sentence):
                    await one.directory.join(two.addr)
            for here, there in ((one, two), (two, one)):
                assert not here.directory.is_member(there.peer)
                assert here.directory.membership.get(there.peer) is None

    run(test)


def test_members_of_an_open_mesh_meet_without_a_secret() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(Mesh(None)), await w.node(Mesh(None))
            await one.directory.join(two.addr)
            await until(lambda: two.directory.is_member(one.peer))
            assert one.directory.liveness(two.peer) == "alive"

    run(test)


def test_nobody_at_an_address_is_said_so() -> None:
    async def test() -> None:
        async with world() as w:
            one = await w.node()
            with pytest.raises(PeerUnreachable):
                await one.directory.join(f"/memory/p2p/{Identity.generate().peer_id}")

    run(test)


def test_a_peer_that_never_completes_the_hello_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_node.mesh.directory.HELLO_SECONDS", 0.05)

    async def silent(_: Stream) -> None:
        await asyncio.Event().wait()

    async def short(stream: Stream) -> None:
        await stream.receive()

    async def test() -> None:
        async with world() as w:
            one = await w.node()
            for handler in (silent, short):
                other = await w.transport(Identity.generate())
                other.handle(HELLO_PROTOCOL, handler)
                with pytest.raises(PeerUnreachable, match="did not complete the hello"):
                    await one.directory.join(other.addrs[0])
                assert not one.directory.is_member(other.peer_id)

    run(test)


# --- hostile hellos -------------------------------------------------------------------------------
@dataclass
class Stranger:
    """A node of the test's own hand, which says hello as the test wants."""

    identity: Identity
    transport: MemoryTransport

    @staticmethod
    async def enter(w: World) -> Stranger:
        identity = Identity.generate()
        return Stranger(identity, await w.transport(identity))

    def introduction(self, speaker: Identity | None = None, signer: Identity | None = None) -> Introduction:
        """Of `speaker` (the stranger itself), signed by `signer` (the speaker)."""
        voice = Voice(speaker or self.identity, [])
        signer = signer or voice.identity
        advert = voice.signed()
        beacon = Beacon(peer=voice.identity.peer_id, seq=1, advert_digest=advert.digest)
        return Introduction(advert=seal(advert.advert, signer.sign), beacon=seal(beacon, signer.sign))

    async def hello(self, to: Node, knows: Mesh) -> Stream:
        """A stream on which this stranger has given its proof."""
        stream = await self.transport.open(to.peer, HELLO_PROTOCOL, SECONDS)
        mine = new_nonce()
        await stream.send(encode(Hello(mesh=MESH.id, nonce=mine)))
        answer = decode(await stream.receive(), HelloProof)
        nonces = (mine, answer.nonce)
        assert MESH.is_proof(answer.proof, "accepter", self.transport.peer_id, to.peer, nonces)
        proof = knows.prove("opener", self.transport.peer_id, to.peer, nonces)
        await stream.send(encode(HelloProof(nonce=mine, proof=proof)))
        return stream


def test_whoever_knows_the_name_of_a_mesh_but_not_its_secret_is_no_member() -> None:
    async def test() -> None:
        async with world() as w:
            node, stranger = await w.node(), await Stranger.enter(w)
            stream = await stranger.hello(node, knows=new_mesh())
            assert isinstance(await end_of(stream), PeerLost)
            assert not node.directory.is_member(stranger.identity.peer_id)

    run(test)


def test_a_proof_that_was_seen_elsewhere_opens_nothing() -> None:
    """A stranger in the middle hands the proof of a real member on, as its own."""

    async def test() -> None:
        async with world() as w:
            victim, stranger = await w.node(), await Stranger.enter(w)
            stolen: list[bytes] = []
            stream = await stranger.transport.open(victim.peer, HELLO_PROTOCOL, SECONDS)
            mine = new_nonce()
            await stream.send(encode(Hello(mesh=MESH.id, nonce=mine)))
            theirs = decode(await stream.receive(), HelloProof)

            async def man_in_the_middle(from_member: Stream) -> None:
                hello = decode(await from_member.receive(), Hello)
                await from_member.send(encode(HelloProof(nonce=theirs.nonce, proof=theirs.proof)))
                assert hello.nonce != mine
                stolen.append(await from_member.receive())

            stranger.transport.handle(HELLO_PROTOCOL, man_in_the_middle)
            member = await w.node()
            with pytest.raises(PeerRefused, match="does not know the secret"):
                await member.directory.join(stranger.transport.addrs[0])
            assert stolen == [], "a member gives its proof only to one that gave its own"
            await stream.send(encode(HelloProof(nonce=mine, proof=theirs.proof)))
            assert isinstance(await end_of(stream), PeerLost)
            assert not victim.directory.is_member(stranger.identity.peer_id)

    run(test)


def test_a_node_says_nothing_of_itself_before_the_other_proved_the_secret() -> None:
    heard: list[bytes] = []

    async def impostor(stream: Stream) -> None:
        heard.append(await stream.receive())
        await stream.send(encode(HelloProof(nonce=new_nonce(), proof=bytes(32))))
        heard.append(await stream.receive())

    async def test() -> None:
        async with world() as w:
            node, stranger = await w.node(), await Stranger.enter(w)
            stranger.transport.handle(HELLO_PROTOCOL, impostor)
            with pytest.raises(PeerRefused, match="does not know the secret of this mesh"):
                await node.directory.join(stranger.transport.addrs[0])
            assert len(heard) == 1
            assert decode(heard[0], Hello).mesh == MESH.id
            assert not node.directory.is_member(stranger.identity.peer_id)

    run(test)


def test_the_refusal_of_a_stranger_is_one_frame_of_text_and_no_proof() -> None:
    async def test() -> None:
        async with world() as w:
            node, stranger = await w.node(), await Stranger.enter(w)
            stream = await stranger.transport.open(node.peer, HELLO_PROTOCOL, SECONDS)
            await stream.send(encode(Hello(mesh="another", nonce=new_nonce())))
            assert decode(await stream.receive(), HelloRefused).message
            assert isinstance(await end_of(stream), EOFError)

    run(test)


@pytest.mark.parametrize("forgery", ["signed by another key", "of another peer", "beacon of another peer"])
def test_an_introduction_that_is_forged_makes_no_member(forgery: str) -> None:
    async def test() -> None:
        async with world() as w:
            node, stranger, victim = await w.node(), await Stranger.enter(w), Identity.generate()
            own = stranger.introduction()
            forged = {
                "signed by another key": stranger.introduction(signer=victim),
                "of another peer": stranger.introduction(speaker=victim),
                "beacon of another peer": Introduction(
                    advert=own.advert, beacon=stranger.introduction(speaker=victim).beacon
                ),
            }[forgery]
            stream = await stranger.hello(node, knows=MESH)
            await stream.send(encode(forged))
            assert isinstance(await end_of(stream), PeerLost)
            for peer in (stranger.identity.peer_id, victim.peer_id):
                assert not node.directory.is_member(peer)
                assert node.directory.membership.get(peer) is None

            stream = await stranger.hello(node, knows=MESH)
            await stream.send(encode(own))
            await until(lambda: node.directory.liveness(stranger.identity.peer_id) == "alive")

    run(test)


@pytest.mark.parametrize("frame", [b"", b"\xff", b"\xa0", encode(Probe(n=1))], ids=repr)
def test_garbage_instead_of_a_hello_costs_that_stream_alone(frame: bytes) -> None:
    async def test() -> None:
        async with world() as w:
            node, stranger = await w.node(), await Stranger.enter(w)
            stream = await stranger.transport.open(node.peer, HELLO_PROTOCOL, SECONDS)
            await stream.send(frame)
            assert isinstance(await end_of(stream), PeerLost)
            honest = await w.node()
            await honest.directory.join(node.addr)

    run(test)


# --- what members may do, and others not ----------------------------------------------------------
def test_a_task_stream_before_the_hello_is_refused_and_after_it_served() -> None:
    served: list[PeerId] = []

    async def serve(stream: Stream) -> None:
        served.append(stream.peer)
        await stream.send(b"served")

    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node()
            two.transport.handle(TASK, two.directory.for_members(serve))
            stream = await one.transport.open(two.peer, TASK, SECONDS)
            assert isinstance(await end_of(stream), PeerLost)
            assert served == []
            await one.directory.join(two.addr)
            stream = await one.transport.open(two.peer, TASK, SECONDS)
            assert await stream.receive() == b"served"
            assert served == [one.peer]

    run(test)


@pytest.mark.parametrize("protocol", [PROBE_PROTOCOL, ADVERT_PROTOCOL])
def test_probes_and_adverts_are_for_members(protocol: str) -> None:
    async def test() -> None:
        async with world() as w:
            node, stranger = await w.node(), await Stranger.enter(w)
            stream = await stranger.transport.open(node.peer, protocol, SECONDS)
            ask = Probe(n=1) if protocol == PROBE_PROTOCOL else AdvertPull(digest=bytes(32))
            assert await answered(stream, encode(ask)) == []

    async def answered(stream: Stream, frame: bytes) -> list[bytes]:
        frames: list[bytes] = []
        try:
            async with asyncio.timeout(SECONDS):
                await stream.send(frame)
                while True:
                    frames.append(await stream.receive())
        except (EOFError, PeerLost):
            return frames

    run(test)


def test_membership_ends_with_the_connection() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node()
            await one.directory.join(two.addr)
            await until(lambda: two.directory.liveness(one.peer) == "alive")
            await two.transport.disconnect(one.peer)
            assert not two.directory.is_member(one.peer)
            assert not one.directory.is_member(two.peer)
            assert two.directory.liveness(one.peer) == one.directory.liveness(two.peer) == "gone"

    run(test)


# --- the pulse ------------------------------------------------------------------------------------
def test_probes_keep_a_peer_alive_however_much_time_passes() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node(probe_seconds=3600.0)
            await one.directory.join(two.addr)
            for _ in range(round(3 * SUSPECT_AFTER_SECONDS / STEP)):
                one.clock.now += STEP
                heard = two.voice.seq
                await until(lambda heard=heard: two.voice.seq >= heard + 2)
                one.directory.check()
                assert one.directory.liveness(two.peer) == "alive"

    run(test)


def test_a_frozen_peer_is_suspect_then_gone_and_its_connection_is_given_up() -> None:
    async def test() -> None:
        async with world() as w:
            gateway, provider = await w.node(), await w.node(probe_seconds=3600.0)
            await gateway.directory.join(provider.addr)
            provider.transport.is_running.clear()
            await until(lambda: gateway.changes[-1].after == "alive")
            gateway.silence(SUSPECT_AFTER_SECONDS + STEP)
            assert gateway.directory.liveness(provider.peer) == "suspect"
            assert gateway.directory.membership.alive() == []
            assert gateway.transport.is_connected(provider.peer), "a busy machine must not look dead"
            gateway.silence(GONE_AFTER_SECONDS - SUSPECT_AFTER_SECONDS)
            assert gateway.directory.liveness(provider.peer) == "gone"
            assert [change.after for change in gateway.changes[-2:]] == ["suspect", "gone"]
            await until(lambda: not gateway.transport.is_connected(provider.peer))

    run(test)


def test_a_peer_that_thaws_is_alive_again_on_the_same_connection() -> None:
    async def test() -> None:
        async with world() as w:
            gateway, provider = await w.node(), await w.node(probe_seconds=3600.0)
            await gateway.directory.join(provider.addr)
            provider.transport.is_running.clear()
            gateway.silence(SUSPECT_AFTER_SECONDS + STEP)
            assert gateway.directory.liveness(provider.peer) == "suspect"
            provider.transport.is_running.set()
            await until(lambda: gateway.directory.liveness(provider.peer) == "alive")
            assert "gone" not in [change.after for change in gateway.changes]

    run(test)


def test_what_is_heard_on_another_stream_counts_as_a_sign_of_life() -> None:
    async def test() -> None:
        async with world() as w:
            gateway, provider = await w.node(), await w.node(probe_seconds=3600.0)
            await gateway.directory.join(provider.addr)
            provider.transport.is_running.clear()
            gateway.silence(SUSPECT_AFTER_SECONDS + STEP)
            gateway.directory.heard(provider.peer)
            assert gateway.directory.liveness(provider.peer) == "alive"

    run(test)


def test_a_changed_advert_is_pulled_and_told() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node()
            await one.directory.join(two.addr)
            one.changes.clear()
            two.voice.name = "after"
            await until(lambda: one.name_of(two) == "after")
            assert Change(two.peer, "alive", "alive") in one.changes

    run(test)


def test_a_peer_that_never_hands_over_the_advert_it_names_is_asked_for_it_once() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node(probe_seconds=3600.0)
            two.voice.names_another_digest = True
            await one.directory.join(two.addr)
            probes = two.voice.seq
            await until(lambda: two.voice.seq >= probes + 10)
            introductions, pulls = 1, 1
            assert two.voice.adverts_given == introductions + pulls
            assert one.directory.liveness(two.peer) == "alive"

    run(test)


def test_a_beacon_of_somebody_else_does_not_count_as_a_sign_of_life() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node(probe_seconds=3600.0)
            await one.directory.join(two.addr)
            before = one.directory.membership.get(two.peer)
            assert before is not None
            two.voice.identity = Identity.generate()
            forged = two.voice.seq
            await until(lambda: two.voice.seq >= forged + 2)
            one.silence(SUSPECT_AFTER_SECONDS + STEP)
            assert one.directory.liveness(two.peer) == "suspect"

    run(test)


# --- who is dialled -------------------------------------------------------------------------------
def test_a_peer_that_we_joined_is_dialled_again_when_its_connection_is_lost() -> None:
    async def test() -> None:
        async with world() as w:
            one, two = await w.node(), await w.node()
            await one.directory.join(two.addr)
            await until(lambda: two.directory.liveness(one.peer) == "alive")
            await two.transport.disconnect(one.peer)
            assert one.directory.liveness(two.peer) == "gone"
            await until(lambda: one.directory.liveness(two.peer) == "alive")
            await until(lambda: two.directory.is_member(one.peer))
            assert [change.after for change in one.changes if change.before != change.after] == [
                "alive",
                "gone",
                "alive",
            ]

    run(test)


def test_a_gateway_learns_providers_from_another_member_and_a_provider_dials_nobody() -> None:
    async def test() -> None:
        async with world() as w:
            first = await w.node(is_gateway=True)
            providers = [await w.node() for _ in range(2)]
            for provider in providers:
                await provider.directory.join(first.addr)
            await until(lambda: len(first.directory.membership.alive()) == 2)
            second = await w.node(is_gateway=True)
            await second.directory.join(first.addr)
            await until(lambda: len(second.directory.membership.alive()) == 3)
            assert not providers[0].transport.is_connected(providers[1].peer)

    run(test)


def test_addresses_that_name_somebody_else_are_not_dialled_as_a_peers_own() -> None:
    async def test() -> None:
        async with world() as w:
            gateway, liar = await w.node(is_gateway=True), await w.node()
            victim = await w.node()
            liar.voice.addrs = [victim.addr, "/ip4/192.0.2.1/tcp/1", "nonsense", liar.addr]
            await gateway.directory.join(liar.addr)
            assert gateway.directory.remembered() == [liar.addr]

    run(test)


def test_a_gateway_learns_of_a_provider_that_joined_elsewhere_after_their_hello(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monai_node.mesh.directory._ASK_AROUND_SECONDS", 0.02)

    async def test() -> None:
        async with world() as w:
            first, second = await w.node(is_gateway=True), await w.node(is_gateway=True)
            await second.directory.join(first.addr)
            provider = await w.node()
            await provider.directory.join(first.addr)
            await until(lambda: second.directory.liveness(provider.peer) == "alive")
            assert second.name_of(provider) == "before"

    run(test)


def test_hearsay_is_bounded_and_what_is_no_address_is_passed_over() -> None:
    dialled: list[str] = []

    async def test() -> None:
        async with world() as w:
            gateway = await w.node(is_gateway=True)
            real_connect = gateway.transport.inner.connect

            async def connect(addr: str, timeout_seconds: float) -> PeerId:
                dialled.append(addr)
                return await real_connect(addr, timeout_seconds)

            gateway.transport.connect = connect
            for _ in range(3):
                gossip = await Stranger.enter(w)
                told = [f"/memory/p2p/{Identity.generate().peer_id}" for _ in range(PEERS_PER_HELLO_MAX - 4)]
                told += [gateway.addr, gossip.transport.addrs[0], "nonsense", "/memory/p2p/x"]
                stream = await gossip.hello(gateway, knows=MESH)
                await stream.send(encode(gossip.introduction().model_copy(update={"peers": told})))
                await until(
                    lambda gossip=gossip: gateway.directory.liveness(gossip.identity.peer_id) == "alive"
                )
            await asyncio.sleep(0)
            assert 32 <= len(set(dialled)) <= 64
            assert not {gateway.addr, "nonsense", "/memory/p2p/x"} & set(dialled)

    run(test)


# --- the end --------------------------------------------------------------------------------------
def test_connections_that_end_after_a_directory_was_left_start_nothing() -> None:
    async def test() -> None:
        async with world() as w:
            other = await w.node()
            async with AsyncExitStack() as inner:
                leaving = World(inner)
                leaving.network = w.network
                gateway = await leaving.node(is_gateway=True)
                await other.directory.join(gateway.addr)
                await until(lambda: gateway.directory.liveness(other.peer) == "alive")
            assert other.directory.liveness(gateway.peer) == "gone"

    run(test)


def test_a_hello_that_is_completed_after_a_directory_was_left_starts_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        async with world() as w:
            stranger, identity = await Stranger.enter(w), Identity.generate()
            transport = FreezableTransport(await w.transport(identity))
            voice = Voice(identity, transport.addrs)
            options = DirectoryOptions(probe_seconds=0.01, wants_peers=True)
            pulse = Pulse(voice.advert, voice.beacon)
            async with open_directory(transport, MESH, pulse, options, Clock()) as directory:
                stream = await stranger.hello(Node(transport, directory, voice, Clock()), knows=MESH)
            told = stranger.introduction().model_copy(update={"peers": [stranger.transport.addrs[0]]})
            await stream.send(encode(told))
            assert isinstance(await end_of(stream), EOFError), "the handler itself has not failed"

    run(test)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_leaving_while_a_hello_is_under_way_ends() -> None:
    async def test() -> None:
        async with world() as w:
            stranger = await Stranger.enter(w)
            is_asked = asyncio.Event()

            async def silent(stream: Stream) -> None:
                await stream.receive()
                is_asked.set()
                await asyncio.Event().wait()

            stranger.transport.handle(HELLO_PROTOCOL, silent)
            async with AsyncExitStack() as inner:
                leaving = World(inner)
                leaving.network = w.network
                node = await leaving.node()
                node.directory.keep(stranger.transport.addrs[0])
                await is_asked.wait()

    run(test)
