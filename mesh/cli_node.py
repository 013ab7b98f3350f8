"""The commands that run a node: `up`, `serve`, `gateway`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from monai_node.mesh.cli_config import drain_seconds_of, local_join_lines, looks_for_gateway, node_config
from monai_node.mesh.companion import Companion
from monai_node.mesh.config import NodeConfig
from monai_node.mesh.departure import Departure
from monai_node.mesh.logs import open_log
from monai_node.mesh.node import Node, WrapTransport, bundled_sources, open_node
from monai_node.mesh.running import running
from monai_node.mesh.sd_notify import Supervisor
from monai_node.mesh.state import open_state_dir
from monai_node.registry.errors import SetupError
from monai_node.registry.secret import parse_join_line
from monai_node.registry.tasks import task_scope

if TYPE_CHECKING:
    from monai_node.mesh.opening import Gateway

_PROVIDER_NAME = "provider"
# How often a provider looks where this user's gateway is: one small file is read.
_LOOK_SECONDS = 1.0
# From the provider's own "ready" until its skills are known and indexed here.
_REACHABLE_SECONDS = 60.0


def run_node(options: argparse.Namespace, wrap_transport: WrapTransport | None) -> int:
    """Run the command until it is ended by a signal; the exit status. SetupError when it cannot start."""
    config = node_config(options)
    log_file: Path | None = options.log_file
    folder = open_state_dir(config.state_dir).node(config.name)
    open_log(log_file or folder.log_file, options.log_level, options.log_format)
    supervisor = Supervisor.take_from(os.environ)
    console = Console(is_json=options.json, supervisor=supervisor)
    sources = [str(path) for path in options.sources or bundled_sources()] if options.command == "up" else []

    async def work(departure: Departure) -> None:
        match options.command:
            case "up":
                await _up(config, sources, console, wrap_transport, options, departure)
            case "gateway":
                await _gateway(config, console, wrap_transport, departure)
            case _:
                await _serve(config, console, wrap_transport, options, departure)

    return Departure(drain_seconds_of(options.drain_seconds), supervisor).end_of(work)


class Console:
    """Tells the person at the terminal what is going on: progress on stderr, results on stdout."""

    def __init__(self, *, is_json: bool, supervisor: Supervisor | None = None) -> None:
        self._is_json = is_json
        self._supervisor = supervisor or Supervisor()
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self._started:5.1f} s] {line}", file=sys.stderr, flush=True)

    def ready(self, lines: Sequence[str], facts: dict[str, object]) -> None:
        # What is loaded by now stays as long as the process: a full garbage collection that looks through
        # all of it again holds the event loop for 100 ms and more.
        gc.freeze()
        self._supervisor.tell("READY=1")
        if self._is_json:
            print(json.dumps({"ready": True, **facts}), flush=True)
        else:
            print("\n".join([*lines, "ready"]), flush=True)


# --- the commands ---------------------------------------------------------------------------------
async def _serve(
    config: NodeConfig,
    console: Console,
    wrap: WrapTransport | None,
    options: argparse.Namespace,
    departure: Departure,
) -> None:
    async with task_scope() as scope:
        ends = {scope.start(_serve_until_asked(config, console, wrap, options, departure), name="node")}
        if options.until_stdin_closes:
            # Also while a model is still being loaded, which may take minutes.
            ends.add(scope.start(_stdin_closed(), name="standard input"))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


async def _serve_until_asked(
    config: NodeConfig,
    console: Console,
    wrap: WrapTransport | None,
    options: argparse.Namespace,
    departure: Departure,
) -> None:
    async with open_node(config, console.say, wrap) as node, task_scope() as scope:
        if looks_for_gateway(options):
            scope.start(_follow_gateway(node), name="look for the gateway")
        skills = ", ".join(skill.id for skill in node.provider.skills)
        join = str(node.join_line)
        with running(node):
            console.ready(
                [f"node {config.name} serves {skills}", f"join line: {join}"],
                {"peer": node.peer_id, "addrs": node.transport.addrs, "join": join},
            )
            await departure.asked()
            node.provider.leave()
            await departure.drain(node.provider.until_idle())


async def _follow_gateway(node: Node) -> None:
    """Dial this user's gateway wherever it listens: it may start after us, or elsewhere than before."""
    while True:
        with suppress(SetupError):  # it cannot be read at the moment
            for line in map(parse_join_line, local_join_lines(node.state.path)):
                if line.mesh == node.mesh:
                    node.directory.revisit(line.addr)
        await asyncio.sleep(_LOOK_SECONDS)


async def _stdin_closed() -> None:
    """Return when whoever holds the other end of our standard input has gone. Not read in a thread: it
    could not be cancelled, and a signal would have to wait for it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.read(1 << 16):
            pass
    finally:
        transport.close()


async def _gateway(
    config: NodeConfig, console: Console, wrap: WrapTransport | None, departure: Departure
) -> None:
    from monai_node.mesh.opening import open_gateway

    async with (
        open_node(config, console.say, wrap) as node,
        open_gateway(node, console.say) as gateway,
    ):
        await _run_until_asked(gateway, node, {}, console, departure)


async def _up(
    config: NodeConfig,
    sources: Sequence[str],
    console: Console,
    wrap: WrapTransport | None,
    options: argparse.Namespace,
    departure: Departure,
) -> None:
    from monai_node.mesh.opening import open_gateway

    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(config, console.say, wrap))
        scope = await stack.enter_async_context(task_scope())
        companion = Companion(_provider_command(options, sources), str(node.join_line), console.say)
        is_up = asyncio.Event()
        scope.start(companion.run(is_up), name="provider process")
        gateway = await stack.enter_async_context(open_gateway(node, console.say))
        await is_up.wait()
        async with asyncio.timeout(_REACHABLE_SECONDS):
            await gateway.front.routing.until_reachable()
        pids = {"provider": companion.pid or 0}
        await _run_until_asked(gateway, node, pids, console, departure)


async def _run_until_asked(
    gateway: Gateway, node: Node, pids: dict[str, int], console: Console, departure: Departure
) -> None:
    """Return when this process is asked to go and the runs that were under way are over."""
    with running(node, gateway.url):
        console.ready(_greeting(gateway, node), _facts(gateway.url, node, pids))
        await departure.asked()
        gateway.gate.close()
        await departure.drain(gateway.gate.until_idle())


def _greeting(gateway: Gateway, node: Node) -> list[str]:
    url, key = gateway.url, " -H 'authorization: Bearer mk-…'" if gateway.requires_key else ""
    body = '{"model": "mesh", "messages": [{"role": "user", "content": "What is 37 * 49?"}]}'
    return [
        f"page:      {url}/",
        f"endpoint:  {url}/v1   (any OpenAI client; model: mesh)",
        "try:       monai-node ask 'What is 37 * 49, and write a two-line poem about rivers'",
        f"or:        curl {url}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'",
        f"join:      monai-node serve model.gguf --join '{node.join_line}'",
    ]


def _facts(url: str, node: Node, pids: dict[str, int]) -> dict[str, object]:
    return {
        "url": url,
        "join": str(node.join_line),
        "peer": node.peer_id,
        "addrs": node.transport.addrs,
        "pids": pids,
    }


def _provider_command(options: argparse.Namespace, sources: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "monai_node.mesh.cli", "serve", *sources, "--json"]
    command += ["--node-name", _PROVIDER_NAME, "--log-level", options.log_level, "--until-stdin-closes"]
    command += ["--log-format", options.log_format]
    if options.state_dir:
        command += ["--state-dir", str(options.state_dir)]
    return command
