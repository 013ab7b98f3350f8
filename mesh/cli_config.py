"""The command line of a node becomes its configuration."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

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
from monai_node.mesh.state import read_json, state_path
from monai_node.registry.advert import PRICE_MAX
from monai_node.registry.errors import SetupError
from monai_node.registry.secret import Mesh, parse_join_line
from monai_node.registry.wire import RUN_SECONDS_MAX
from monai_node.router.policy import Policy, listed


def node_config(options: argparse.Namespace) -> NodeConfig:
    """The frozen configuration of one node; SetupError for what cannot be meant."""
    is_gateway = options.command in ("up", "gateway")
    sources = () if is_gateway else tuple(_sources(options))
    join_lines: list[str] = list(options.join or [])
    if not join_lines and (line := os.environ.get("MONAI_JOIN")):
        join_lines.append(line)
    if not join_lines and not is_gateway and not options.open:
        join_lines += local_join_lines(options.state_dir)
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


def looks_for_gateway(options: argparse.Namespace) -> bool:
    """Whether nobody said which mesh to join: then it is this user's own."""
    return not (options.join or options.open or os.environ.get("MONAI_JOIN"))


def local_join_lines(state_dir: Path | None) -> list[str]:
    """The join line of this user's running gateway: a node on the same machine needs none typed."""
    join = (read_json(state_path(state_dir) / "gateway.json") or {}).get("join")
    return [join] if isinstance(join, str) else []


def drain_seconds_of(seconds: float) -> float:
    """How long a node that is asked to go has for what it began; SetupError for what is no such time."""
    if not 0 <= seconds <= RUN_SECONDS_MAX:  # NaN is neither
        raise SetupError(f"--drain-seconds {seconds:g}: it lies between 0 and {RUN_SECONDS_MAX:g}")
    return seconds
