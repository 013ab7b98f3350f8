"""Opening a gateway: embedder, ledger, HTTP, and the file that tells this user's other commands where."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import ssl
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monai_node.mesh.config import GATEWAY_PORT, GatewayOptions, Tls
from monai_node.mesh.embeddings import Embeddings
from monai_node.mesh.front import Front
from monai_node.mesh.keys import KeyFile
from monai_node.mesh.ledger import open_ledger
from monai_node.mesh.node import Node, Say
from monai_node.mesh.planning import Labellers
from monai_node.mesh.recipes import RecipeFile
from monai_node.mesh.state import read_json, write_json
from monai_node.mesh.vectors import open_stored_embedder
from monai_node.registry.errors import SetupError
from monai_node.registry.tasks import task_scope

if TYPE_CHECKING:
    from fastapi import FastAPI

    from monai_node.mesh.gateway.access.access import Access
    from monai_node.mesh.gateway.gate import RunGate
    from monai_node.mesh.gateway.http.server import Address
    from monai_node.mesh.gateway.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Gateway:
    """A listening gateway."""

    url: str
    front: Front
    requires_key: bool
    gate: RunGate


@asynccontextmanager
async def open_gateway(node: Node, say: Say) -> AsyncGenerator[Gateway]:
    """Load the embedder, listen for HTTP, and tell this user's other commands where.

    SetupError when the port is taken, the gateway's packages are missing, or others could reach it and there
    is no key to ask them for.
    """
    from monai_node.mesh.embedders import open_embedder

    options = node.config.gateway or GatewayOptions()
    await asyncio.to_thread(_check, node, options)
    say("loading the embedder")
    async with open_embedder(options.embedder, node.state.node(node.config.name).path) as embedder:
        if not embedder.has_labeller:
            say("the embedder runs without torch, and so without the small labeller: rules divide requests")
        try:
            # Off the loop: these imports take seconds, in which peers probe us.
            await asyncio.to_thread(_import_heavy_packages)
        except ModuleNotFoundError as error:
            raise SetupError(
                f"a gateway needs the package {error.name}: pip install 'monai-node[gateway]'"
            ) from None
        from monai_node.mesh.gateway.metrics import Metrics

        recipes = RecipeFile(node.state.recipes_file) if options.has_recipes else None
        labellers = Labellers(small=embedder.label if embedder.has_labeller else None)
        state = node.state.node(node.config.name)
        async with (
            open_ledger(state.store_file, embedder.fingerprint, time.time) as ledger,
            open_stored_embedder(state.vectors_file, embedder, time.time) as announced,
            task_scope() as scope,
        ):
            metrics = Metrics()
            embeddings = Embeddings(embedder)
            front = Front(node, embedder, recipes, labellers, ledger, announced, embeddings, [metrics])
            async with (
                _faces(front, node, options, metrics) as (app, access, gate),
                _listen(app, options) as address,
            ):
                scope.start(metrics.keep_measuring_lag(), name="event loop lag")
                scope.start(front.routing.keep_indexed(), name="skill index")
                scope.start(front.keep_examined(), name="planners' exams")
                if options.has_canaries:
                    scope.start(front.keep_asking_canaries(), name="canaries")
                _tell_reach(options, say)
                key = access.owners_key() if access.requires_key else None
                with _announced_here(node, address.url, key):
                    yield Gateway(address.url, front, access.requires_key, gate)


@asynccontextmanager
async def _faces(
    front: Front, node: Node, options: GatewayOptions, metrics: Metrics
) -> AsyncGenerator[tuple[FastAPI, Access, RunGate]]:
    """What `front` shows to whom its keys and its owner's hook let in."""
    from monai_node.mesh.gateway.access.files import open_access
    from monai_node.mesh.gateway.app import create_app, run_gate
    from monai_node.mesh.gateway.config import GatewayConfig
    from monai_node.mesh.gateway.hook import load_hook

    hook = await asyncio.to_thread(load_hook, options.hook) if options.hook else None
    usage = node.state.node(node.config.name).usage_file
    async with open_access(node.state.keys_file, usage, requires_key=_requires_key(options)) as access:
        config = GatewayConfig(hosts=options.hosts)
        gate = run_gate(config, metrics)
        watchers = [node.traces] if node.traces is not None else []
        yield create_app(front, config, access, hook, metrics, gate, watchers), access, gate


def _check(node: Node, options: GatewayOptions) -> None:
    """Say what is wrong with an address, its keys or its certificate before anything is loaded, which takes
    seconds."""
    has_keys = bool(KeyFile(node.state.keys_file).keys())
    if options.requires_key and not has_keys:
        raise SetupError("--require-key: there is no key yet; make one with `monai-node keys create`")
    if options.tls is not None:
        _check_certificate(options.tls)
    with contextlib.suppress(ModuleNotFoundError):  # told later, with what to install
        from monai_node.mesh.gateway.http.server import listen

        listen(options.host, options.port or 0, asks_for_keys=has_keys).close()


def _check_certificate(tls: Tls) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password OpenSSL would ask for it at the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "see --tls-key"
        raise SetupError(
            f"{tls.certificate} with {tls.key} is no certificate and its unencrypted key ({reason})"
        ) from None


def _requires_key(options: GatewayOptions) -> bool:
    from monai_node.mesh.gateway.access.guard import is_loopback

    return options.requires_key or not is_loopback(options.host)


def _tell_reach(options: GatewayOptions, say: Say) -> None:
    from monai_node.mesh.gateway.access.guard import is_loopback

    if not is_loopback(options.host) and options.tls is None:
        say(
            f"the gateway is reached over {options.host}, and text and keys travel UNENCRYPTED: give"
            " --tls-cert and --tls-key, or put a VPN or a proxy that speaks TLS before it"
        )


def _import_heavy_packages() -> None:
    for module in ("langgraph.graph", "monai_node.agents.run", "monai_node.mesh.gateway.app"):
        importlib.import_module(module)


@asynccontextmanager
async def _listen(app: FastAPI, options: GatewayOptions) -> AsyncGenerator[Address]:
    """On the port asked for; when none was, on ours, or on a free one if that is taken."""
    from monai_node.mesh.gateway.http.server import open_server

    def server(port: int) -> AbstractAsyncContextManager[Address]:
        asks_for_keys = _requires_key(options)
        return open_server(app, options.host, port, asks_for_keys=asks_for_keys, tls=options.tls)

    async with contextlib.AsyncExitStack() as stack:
        try:
            port = GATEWAY_PORT if options.port is None else options.port
            address = await stack.enter_async_context(server(port))
        except SetupError:
            if options.port is not None:
                raise
            address = await stack.enter_async_context(server(0))
        yield address


@contextlib.contextmanager
def _announced_here(node: Node, url: str, key: str | None) -> Generator[None]:
    """Keep gateway.json while we listen, so that `ask` and `serve` of this user need neither an address nor a
    key."""
    file = node.state.gateway_file
    tls = node.config.gateway.tls if node.config.gateway else None
    told: dict[str, object] = {"url": url, "join": str(node.join_line), "pid": os.getpid()}
    if key is not None:
        told["key"] = key
    if tls is not None:
        told["certificate"] = str(tls.certificate.resolve())
    with announced(file, told):
        yield


@contextlib.contextmanager
def announced(file: Path, told: dict[str, object]) -> Generator[None]:
    """Keep `told` in the file while entered. Of several gateways of one user the last one stands there; when
    it ends, the one before it does again, if that one still runs. SetupError when the file cannot be used."""
    earlier = read_json(file)
    try:
        write_json(file, told)
    except OSError as error:
        raise SetupError(f"{file} cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError, SetupError):
            if read_json(file) == told:
                if earlier is not None and _is_running(earlier.get("pid")):
                    write_json(file, earlier)
                else:
                    file.unlink()


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True
