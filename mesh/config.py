"""What a node is told, read once at the edge and frozen: the command line becomes one NodeConfig."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monai_node.registry.errors import SetupError
from monai_node.registry.secret import JoinLine, Mesh

# The address an embedded or local node listens on: reachable from this machine only.
LOOPBACK = "127.0.0.1"
GATEWAY_PORT = 8642
_ALIAS = re.compile(r"[^\w.-]+")
_ALIAS_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class SkillWords:
    """One skill in the owner's words; an empty description stands for the skill that the file's own
    metadata gives, with these examples added."""

    description: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A GGUF file to serve."""

    path: Path
    alias: str
    words: tuple[SkillWords, ...] = ()
    n_ctx: int | None = None
    n_threads: int | None = None


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A model behind an OpenAI-compatible URL."""

    url: str
    model: str
    alias: str
    api_key: str | None = None
    words: tuple[SkillWords, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentSource:
    """A Python file with agents."""

    path: Path


Source = ModelSource | UrlSource | AgentSource


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    host: str = LOOPBACK
    port: int | None = None  # None: GATEWAY_PORT, or any free one when that is taken


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything one node needs to open. `listen` are multiaddrs; None means loopback, with a port
    that stays the same from start to start so that printed join lines keep working."""

    name: str
    state_dir: Path | None
    sources: tuple[Source, ...] = ()
    gateway: GatewayOptions | None = None
    listen: tuple[str, ...] | None = None
    join: tuple[JoinLine, ...] = ()
    mesh: Mesh | None = None  # None: the one kept in the state directory, made when there is none

    @property
    def role(self) -> Literal["gateway", "provider"]:
        return "gateway" if self.gateway is not None else "provider"


def alias_of(name: str) -> str:
    """A public name made of letters, digits, '.', '_' and '-', lower case, from a file name or title."""
    alias = _ALIAS.sub("-", name.lower()).strip("-.")[:_ALIAS_CHARS_MAX]
    if not alias:
        raise SetupError(f"{name!r} holds no letter or digit to name a model by; give it a --name")
    if alias == "mesh":
        raise SetupError("'mesh' names the whole mesh; give this model another --name")
    return alias


def listen_multiaddr(text: str) -> str:
    """A multiaddr from `--listen`, which may be `ip`, `ip:port` or a multiaddr; SetupError otherwise."""
    if text.startswith("/"):
        return text
    host, _, port = text.rpartition(":") if text.count(":") == 1 else (text.strip("[]"), "", "0")
    try:
        address = ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        raise SetupError(f"--listen {text} is neither an IP address, ip:port, nor a multiaddr") from None
    if not 0 <= number < 65536:
        raise SetupError(f"--listen {text}: a port lies between 0 and 65535")
    return f"/ip{address.version}/{address}/tcp/{number}"
