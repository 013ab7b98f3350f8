"""What a node is told, read once at the edge and frozen: the command line becomes one NodeConfig."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monai_node.registry.errors import SetupError
from monai_node.registry.secret import JoinLine, Mesh
from monai_node.router.policy import NO_POLICY, Policy

# The address an embedded or local node listens on: reachable from this machine only.
LOOPBACK = "127.0.0.1"
GATEWAY_PORT = 8642
_SLUG_CHARS_MAX = 64
# Who divides requests at a gateway; "auto": whoever was measured to do it best.
PlannerChoice = Literal["auto", "rules", "small", "lora", "model"]
# What makes vectors at a gateway; "auto": torch where it can be imported, for the small labeller needs it,
# too, else llama.cpp. Their vectors agree; sentence-transformers is the reference, and the slowest.
EmbedderChoice = Literal["auto", "torch", "sentence-transformers", "gguf"]


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
    may_plan: bool = False  # its owner offers it for planning other people's requests
    price: float = 0.0  # for 1,000 tokens of its results, in the mesh's own unit


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A model behind an OpenAI-compatible URL."""

    url: str
    model: str
    alias: str
    api_key: str | None = None
    words: tuple[SkillWords, ...] = ()
    may_plan: bool = False
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class AgentSource:
    """A Python file with agents; `price` is for one task, in the mesh's own unit."""

    path: Path
    price: float = 0.0


Source = ModelSource | UrlSource | AgentSource


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the certificate with what leads to its authority, and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    host: str = LOOPBACK
    port: int | None = None  # None: GATEWAY_PORT, or any free one when that is taken
    has_recipes: bool = True  # plans that its user accepted are kept, and tried first
    has_canaries: bool = True  # peers are asked tasks with known answers while nothing else is asked
    planner: PlannerChoice = "auto"
    embedder: EmbedderChoice = "auto"
    policy: Policy = NO_POLICY  # the owner's, within which requests have theirs
    requires_key: bool = False  # on loopback too; elsewhere it always does
    hosts: tuple[str, ...] = ()  # names by which it is called, besides the address that it is reached at
    tls: Tls | None = None
    hook: str | None = None  # the owner's: FILE.py:function


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
    alias = slug(name, keep="._-")
    if not alias:
        raise SetupError(f"{name!r} holds no letter or digit to name a model by; give it a --name")
    if alias == "mesh":
        raise SetupError("'mesh' names the whole mesh; give this model another --name")
    return alias


def node_name_of(name: str) -> str:
    """What a node is called, in the mesh and as a folder, from what its owner called it or its file."""
    found = slug(name, keep="._-")
    if not found:
        raise SetupError(f"{name!r} holds no letter or digit to name a node by; give it a --node-name")
    return found


def slug(text: str, keep: str = "") -> str:
    """Lower-case words joined by '-', fit for an id on the wire; `keep` stays too. Empty if none is left.

    Letters and decimal digits of any script: other characters that Python takes for part of a word,
    such as '²', the wire's ids refuse.
    """
    lowered = unicodedata.normalize("NFC", text.lower())
    words = "".join(c if c.isalpha() or c.isdecimal() or c in keep else "-" for c in lowered)
    return re.sub("-+", "-", words).strip("-.")[:_SLUG_CHARS_MAX].strip("-.")


def listen_multiaddr(text: str) -> str:
    """A multiaddr from `--listen`: `ip`, `ip:port`, `[ip6]:port` or a multiaddr; SetupError otherwise."""
    if text.startswith("/"):
        return text
    host, port = text, "0"
    if text.startswith("["):
        host, end, rest = text[1:].partition("]")
        port = (rest.removeprefix(":") or "0") if end else ""
    elif text.count(":") == 1:  # more of them: a bare IPv6 address
        host, _, port = text.partition(":")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not (port.isascii() and port.isdigit()):
        raise SetupError(f"--listen {text} is neither an IP address, ip:port, nor a multiaddr")
    if int(port) > 65535:
        raise SetupError(f"--listen {text}: a port lies between 0 and 65535")
    return f"/ip{address.version}/{address}/tcp/{int(port)}"
