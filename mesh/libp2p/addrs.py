"""Multiaddrs in and out: what a person gives to dial or listen on, and what others can dial."""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError
from multiaddr.utils import get_network_addrs

from monai_node.registry.errors import PeerUnreachable, SetupError
from monai_node.registry.ids import PeerId, public_key_of

_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
_ADDR_CHARS_MAX = 512  # a DNS name has at most 253
_WILDCARDS = {"0.0.0.0": (4, "127.0.0.1"), "::": (6, "::1")}  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class DialAddr:
    """Where a peer listens, and who has to answer there."""

    peer: PeerId
    where: Multiaddr


def parse_dial(addr: str) -> DialAddr:
    """The parts of `/ip4/…/tcp/…/p2p/…`; PeerUnreachable, in words, for anything else."""
    shown = addr if len(addr) <= _ADDR_CHARS_MAX else f"{addr[:_ADDR_CHARS_MAX]}…"
    where, mark, peer = addr.rpartition("/p2p/")
    if not mark:
        raise PeerUnreachable(f"{shown} does not end in /p2p/<peer id>")
    try:
        public_key_of(PeerId(peer))
    except ValueError:
        raise PeerUnreachable(f"{shown} does not end in the peer id of a node") from None
    try:
        return DialAddr(PeerId(peer), _tcp_multiaddr(where))
    except ValueError as error:
        raise PeerUnreachable(f"{shown} is not an address to dial: {error}") from None


def parse_listen(addr: str) -> Multiaddr:
    """A TCP multiaddr with an IP address to listen on; SetupError for anything else."""
    try:
        parsed = _tcp_multiaddr(addr)
    except ValueError as error:
        raise SetupError(f"cannot listen on {addr}: {error}") from None
    if _host(parsed)[0] not in ("ip4", "ip6"):
        raise SetupError(f"cannot listen on {addr}: give an IP address instead of a name")
    return parsed


def check_port_free(addr: Multiaddr) -> None:
    """SetupError when the port of a listening address is taken, or the address is not ours.

    libp2p binds with SO_REUSEPORT: where another node of this user listens already, its bind
    succeeds and the kernel deals incoming connections to both. A plain bind tells.
    """
    kind, host = _host(addr)
    port = int(_value(addr, "tcp"))
    family = socket.AF_INET6 if kind == "ip6" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As any server does: a port whose last connections are in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            probe.listen(1)  # with SO_REUSEADDR alone, two binds succeed until one listens
    except OSError as error:
        raise SetupError(f"cannot listen on {addr}: {_listen_reason(error)}") from None


def reachable(listening: Iterable[Multiaddr], peer: PeerId | None = None) -> list[Multiaddr]:
    """Addresses that others can dial: wildcards become those of this machine's interfaces.

    Loopback comes last; with `peer`, each ends in `/p2p/<peer>`.
    """
    found: dict[str, None] = {}
    for addr in listening:
        kind, host = _host(addr)
        port = _value(addr, "tcp")
        for each in _interfaces(*_WILDCARDS[host]) if host in _WILDCARDS else [host]:
            found[f"/{kind}/{each}/tcp/{port}"] = None
    end = f"/p2p/{peer}" if peer else ""
    return [Multiaddr(each + end) for each in sorted(found, key=_is_loopback)]


def dial_order(known: Sequence[Multiaddr], told: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Each address once: those that we were given before those that the peer told of itself."""
    usable = [addr for addr in told if _is_dialable(addr)]
    return list(dict.fromkeys([*known, *usable]))


def _is_dialable(addr: Multiaddr) -> bool:
    try:
        kind, host = _host(addr)
        _value(addr, "tcp")
    except ValueError:
        return False
    return kind in ("ip4", "ip6") and host not in _WILDCARDS and "/p2p-circuit" not in str(addr)


def _tcp_multiaddr(addr: str) -> Multiaddr:
    if len(addr) > _ADDR_CHARS_MAX:
        raise ValueError("it is too long")
    try:
        parsed = Multiaddr(addr)
        names = [protocol.name for protocol in parsed.protocols()]
    except (MultiaddrError, ValueError):
        raise ValueError("it is not a multiaddr such as /ip4/192.0.2.1/tcp/4001") from None
    if len(names) != 2 or names[0] not in _HOSTS or names[1] != "tcp":
        raise ValueError("only TCP is spoken here, as in /ip4/192.0.2.1/tcp/4001")
    return parsed


def _host(addr: Multiaddr) -> tuple[str, str]:
    first = next(iter(addr.protocols()), None)
    if first is None:
        raise ValueError("an empty address")
    return first.name, _value(addr, first.name)


def _value(addr: Multiaddr, name: str) -> str:
    try:
        value = addr.value_for_protocol(name)
    except (MultiaddrError, LookupError):
        value = None
    if value is None:
        raise ValueError(f"no {name} in {addr}")
    return value


def _interfaces(ip_version: int, loopback: str) -> list[str]:
    """Addresses of this machine that mean something elsewhere; loopback without a network."""
    found = [addr.partition("%")[0] for addr in get_network_addrs(ip_version)]
    return [addr for addr in found if not addr.lower().startswith("fe80:")] or [loopback]


def _is_loopback(addr: str) -> bool:
    return addr.startswith(("/ip4/127.", "/ip6/::1/"))


def _listen_reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "port in use; choose another with --listen"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address"
        case errno.EACCES:
            return "not allowed; ports below 1024 are for the administrator"
        case _:
            return error.strerror or type(error).__name__
