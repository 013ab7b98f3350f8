"""The commands that run a node: `up`, `serve`, `gateway`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from monai_node.mesh.config import (
    AgentSource,
    GatewayOptions,
    ModelSource,
    NodeConfig,
    SkillWords,
    Source,
    Tls,
    UrlSource,
    alias_of,
    listen_multiaddr,
    node_name_of,
)
from monai_node.mesh.departure import Departure
from monai_node.mesh.logs import open_log
from monai_node.mesh.node import Node, Say, WrapTransport, bundled_sources, open_node
from monai_node.mesh.running import running
from monai_node.mesh.sd_notify import Supervisor
from monai_node.mesh.state import open_state_dir, read_json, state_path
from monai_node.registry.advert import PRICE_MAX
from monai_node.registry.errors import SetupError
from monai_node.registry.secret import Mesh, parse_join_line
from monai_node.registry.tasks import task_scope
from monai_node.registry.wire import RUN_SECONDS_MAX
from monai_node.router.policy import Policy, listed

if TYPE_CHECKING:
    from monai_node.mesh.opening import Gateway

# What a provider that `up` started is given to end its tasks before it is killed.
_DRAIN_SECONDS = 5.0
_PROVIDER_NAME = "provider"
# Between two starts of a provider that keeps ending.
_PAUSE_SECONDS_MAX = 15.0
# How often a provider looks where this user's gateway is: one small file is read.
_LOOK_SECONDS = 1.0
# A process that it started may keep stderr open after the provider itself has ended.
_LAST_WORDS_SECONDS = 0.5
# What stands before the one sentence in which a command says why it failed (mesh.cli).
_SENTENCE = "monai-node: "
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

    return Departure(_drain_seconds(options.drain_seconds), supervisor).end_of(work)


def _drain_seconds(seconds: float) -> float:
    if not 0 <= seconds <= RUN_SECONDS_MAX:  # NaN is neither
        raise SetupError(f"--drain-seconds {seconds:g}: it lies between 0 and {RUN_SECONDS_MAX:g}")
    return seconds


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


# --- the command line becomes a configuration -----------------------------------------------------
def node_config(options: argparse.Namespace) -> NodeConfig:
    """The frozen configuration of one node; SetupError for what cannot be meant."""
    is_gateway = options.command in ("up", "gateway")
    sources = () if is_gateway else tuple(_sources(options))
    join_lines: list[str] = list(options.join or [])
    if not join_lines and (line := os.environ.get("MONAI_JOIN")):
        join_lines.append(line)
    if not join_lines and not is_gateway and not options.open:
        join_lines += _local_gateway(options.state_dir)
    join = tuple(parse_join_line(line) for line in join_lines)
    if options.open and not all(line.mesh.is_open for line in join):
        raise SetupError("--open and a join line with a secret contradict each other; leave one out")
    listen: list[str] | None = options.listen
    return NodeConfig(
        name=_node_name(options, sources),
        state_dir=options.state_dir,
        sources=sources,
        gateway=_gateway_options(options) if is_gateway else None,
        listen=tuple(listen_multiaddr(text) for text in listen) if listen else None,
        join=join,
        mesh=Mesh(None) if options.open else None,
    )


def _gateway_options(options: argparse.Namespace) -> GatewayOptions:
    return GatewayOptions(
        host=options.host,
        port=options.port,
        has_recipes=not options.no_recipes,
        has_canaries=not options.no_canaries,
        planner=options.planner,
        embedder=options.embedder,
        policy=_owners_policy(options),
        requires_key=options.require_key,
        hosts=tuple(options.allow_host or ()),
        tls=_tls(options),
        hook=options.hook,
    )


def _tls(options: argparse.Namespace) -> Tls | None:
    certificate: Path | None = options.tls_cert
    key: Path | None = options.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise SetupError("--tls-cert and --tls-key belong together; give both")
    return Tls(certificate.expanduser(), key.expanduser())


def _owners_policy(options: argparse.Namespace) -> Policy:
    cost_max = math.inf if options.max_price is None else options.max_price
    if not cost_max >= 0:  # NaN is neither
        raise SetupError(f"--max-price {cost_max:g}: a price is 0 or more")
    try:
        allowed, denied = listed(options.allow or []), listed(options.deny or [])
    except ValueError as error:
        raise SetupError(f"--allow or --deny: {error}") from None
    return Policy("open", allowed, denied, cost_max)


def _sources(options: argparse.Namespace) -> list[Source]:
    files = [Path(text).expanduser() for text in options.sources]
    words = _skill_words(options.words or [])
    price = _price(options.price)
    sources: list[Source] = []
    for path in files:
        if path.suffix == ".py":
            sources.append(AgentSource(path, price))
            continue
        name: str = options.name or path.stem
        alias = alias_of(name)
        sources.append(
            ModelSource(path, alias, words, options.n_ctx, options.n_threads, options.may_plan, price)
        )
    if options.url:
        if not options.model:
            raise SetupError("--url needs --model, the model's name on that server")
        key = _api_key(options.api_key_env)
        alias = alias_of(options.name or options.model.rpartition("/")[2])
        sources.append(UrlSource(options.url, options.model, alias, key, words, options.may_plan, price))
    if not sources:
        raise SetupError("nothing to serve: name a model.gguf or an agent.py, or a server with --url")
    models = [source for source in sources if not isinstance(source, AgentSource)]
    if options.may_plan and not models:
        raise SetupError("--may-plan is said of a model; name a model.gguf or a server with --url")
    if len(models) > 1 and (options.name or words):
        raise SetupError("--name and --skill describe one model; serve several with several commands")
    return sources


def _price(price: float) -> float:
    if not 0 <= price <= PRICE_MAX:
        raise SetupError(f"--price {price:g}: a price lies between 0 and {PRICE_MAX:g}")
    return price


def _skill_words(spoken: Sequence[tuple[str, str]]) -> tuple[SkillWords, ...]:
    groups: list[tuple[str, list[str]]] = []
    for kind, text in spoken:
        if kind == "skill":
            groups.append((text, []))
        elif not groups:
            groups.append(("", [text]))
        else:
            groups[-1][1].append(text)
    return tuple(SkillWords(description, tuple(examples)) for description, examples in groups)


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise SetupError(f"--api-key-env {variable}: that variable is not set")
    return key


def _node_name(options: argparse.Namespace, sources: Sequence[Source]) -> str:
    if options.node_name:
        return node_name_of(options.node_name)
    if options.command in ("up", "gateway"):
        return "gateway"
    first = sources[0]
    return node_name_of(first.path.stem) if isinstance(first, AgentSource) else first.alias


def _looks_for_gateway(options: argparse.Namespace) -> bool:
    """Whether nobody said which mesh to join: then it is this user's own."""
    return not (options.join or options.open or os.environ.get("MONAI_JOIN"))


def _local_gateway(state_dir: Path | None) -> list[str]:
    """The join line of this user's running gateway: a node on the same machine needs none typed."""
    join = (read_json(state_path(state_dir) / "gateway.json") or {}).get("join")
    return [join] if isinstance(join, str) else []


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
        if _looks_for_gateway(options):
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
            for line in map(parse_join_line, _local_gateway(node.state.path)):
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


class Companion:
    """The provider process that `up` starts beside its gateway, and starts again when it dies.

    It lives in a process of its own so that a request crosses the real wire, and so that a model
    cannot take the gateway with it. It ends with us: its standard input closes when we do.
    """

    def __init__(self, command: Sequence[str], join_line: str, say: Say) -> None:
        self._command = command
        self._join_line = join_line
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._last_words = ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def run(self, is_up: asyncio.Event) -> None:
        """Keep the provider running; SetupError when it cannot be started in the first place.

        Once it ran it is never given up, however often it ends: the gateway has other peers to ask, or
        says that there are none.
        """
        from monai_node.mesh.child import RestartPolicy

        policy = RestartPolicy(crashes_max=sys.maxsize, delay_seconds_max=_PAUSE_SECONDS_MAX)
        while True:
            status = await self._live(is_up)
            delay = policy.crashed(time.monotonic()) or 0.0
            if not is_up.is_set():
                why = f"the provider process ended ({status}); its log says why"
                raise SetupError(self._last_words or why)
            self._say(f"the provider process ended ({self._last_words or status}); starting it again")
            await asyncio.sleep(delay)

    async def _live(self, is_up: asyncio.Event) -> str:
        # The join line holds the secret: in the environment it is not on every user's process list.
        environment = {**os.environ, "MONAI_JOIN": self._join_line}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._process, self._last_words = process, ""
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with task_scope() as scope:
                listening = scope.start(self._pass_on(process.stderr), name="provider's words")
                async for line in process.stdout:
                    if line.startswith(b"{"):
                        self._say("the provider process is ready")
                        is_up.set()
                code = await process.wait()
                await asyncio.wait({listening}, timeout=_LAST_WORDS_SECONDS)
            return f"signal {-code}" if code < 0 else f"status {code}"
        finally:
            await _end(process)

    async def _pass_on(self, stderr: asyncio.StreamReader) -> None:
        """Show the provider's progress; keep the sentence in which it says why it ended."""
        async for raw in stderr:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if line.startswith(_SENTENCE):
                self._last_words = line.removeprefix(_SENTENCE)
            else:
                print(line, file=sys.stderr, flush=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
