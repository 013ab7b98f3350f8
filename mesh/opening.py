"""Opening a gateway: embedder, ledger, HTTP, and the file that tells this user's other commands where."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monai_node.mesh.config import GATEWAY_PORT, GatewayOptions
from monai_node.mesh.front import Front
from monai_node.mesh.ledger import open_ledger
from monai_node.mesh.node import Node, Say
from monai_node.mesh.planning import Labellers
from monai_node.mesh.recipes import RecipeFile
from monai_node.mesh.state import write_json
from monai_node.mesh.vectors import open_stored_embedder
from monai_node.registry.errors import SetupError
from monai_node.registry.tasks import task_scope

if TYPE_CHECKING:
    from fastapi import FastAPI

    from monai_node.mesh.gateway.server import Address


@dataclass(frozen=True, slots=True)
class Gateway:
    """A listening gateway."""

    url: str
    front: Front


@asynccontextmanager
async def open_gateway(node: Node, say: Say) -> AsyncGenerator[Gateway]:
    """Load the embedder, listen for HTTP, and tell this user's other commands where.

    SetupError when the port is taken or the gateway's packages are missing.
    """
    from monai_node.mesh.embedders import open_embedder

    options = node.config.gateway or GatewayOptions()
    await asyncio.to_thread(_check_port, options)
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
        from monai_node.mesh.gateway.app import create_app

        recipes = RecipeFile(node.state.recipes_file) if options.has_recipes else None
        labellers = Labellers(small=embedder.label if embedder.has_labeller else None)
        state = node.state.node(node.config.name)
        async with (
            open_ledger(state.store_file, embedder.fingerprint, time.time) as ledger,
            open_stored_embedder(state.vectors_file, embedder, time.time) as announced,
            task_scope() as scope,
        ):
            front = Front(node, embedder, recipes, labellers, ledger, announced)
            async with _listen(create_app(front), options) as address:
                scope.start(front.routing.keep_indexed(), name="skill index")
                scope.start(front.keep_examined(), name="planners' exams")
                if options.has_canaries:
                    scope.start(front.keep_asking_canaries(), name="canaries")
                with _announced_here(node, address.url):
                    yield Gateway(address.url, front)


def _check_port(options: GatewayOptions) -> None:
    """Say what is wrong with an address before anything is loaded, which takes seconds."""
    with contextlib.suppress(ModuleNotFoundError):  # told later, with what to install
        from monai_node.mesh.gateway.server import listen

        listen(options.host, options.port or 0).close()


def _import_heavy_packages() -> None:
    for module in ("langgraph.graph", "monai_node.agents.run", "monai_node.mesh.gateway.app"):
        importlib.import_module(module)


@asynccontextmanager
async def _listen(app: FastAPI, options: GatewayOptions) -> AsyncGenerator[Address]:
    """On the port asked for; when none was, on ours, or on a free one if that is taken."""
    from monai_node.mesh.gateway.server import open_server

    async with contextlib.AsyncExitStack() as stack:
        port = GATEWAY_PORT if options.port is None else options.port
        try:
            address = await stack.enter_async_context(open_server(app, options.host, port))
        except SetupError:
            if options.port is not None:
                raise
            address = await stack.enter_async_context(open_server(app, options.host, 0))
        yield address


@contextlib.contextmanager
def _announced_here(node: Node, url: str) -> Generator[None]:
    """Keep gateway.json while we listen, so that `ask` and `serve` of this user need no address."""
    file = node.state.gateway_file
    try:
        write_json(file, {"url": url, "join": str(node.join_line), "pid": os.getpid()})
    except OSError as error:
        raise SetupError(f"{file} cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
