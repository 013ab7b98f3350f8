"""What a node says of itself in its folder while it runs, for commands that look for it: `running.json`, and
the processes of this machine that it is held against.

A node that was killed leaves its file behind. Its process id may be another's by then, which the time of its
start tells apart (proc_pid_stat(5)); where there is no /proc, the id alone must do.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_node.mesh.state import StateDir, parse_json, write_json

if TYPE_CHECKING:
    from monai_node.mesh.node import Node

_FILE = "running.json"
_PROC = Path("/proc")
_NODES_MAX = 256


@dataclass(frozen=True, slots=True)
class Process:
    """`began` is in ticks since the machine's start, and tells processes of one id apart."""

    pid: int
    parent: int
    began: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A node that said it runs, and whether its process is there."""

    name: str
    said: Mapping[str, Any]
    is_there: bool
    rss_bytes: int | None  # with what it started; None where that is not known


@contextlib.contextmanager
def running(node: Node, url: str = "") -> Generator[None]:
    """Say so while entered. `url` is the gateway's. A folder that cannot be written costs only this."""
    file = node.state.node(node.config.name).path / _FILE
    with contextlib.suppress(OSError):
        write_json(file, _said(node, url))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def _said(node: Node, url: str) -> dict[str, object]:
    me = processes().get(os.getpid())
    gateway = node.config.gateway
    options = gateway and {
        "planner": gateway.planner,
        "embedder": gateway.embedder,
        "has_recipes": gateway.has_recipes,
        "has_canaries": gateway.has_canaries,
        "requires_key": gateway.requires_key,
        "has_tls": gateway.tls is not None,
        "has_hook": gateway.hook is not None,
    }
    return {
        "pid": os.getpid(),
        "began": me.began if me is not None else None,
        "started": time.time(),
        "role": node.config.role,
        "peer": node.peer_id,
        "addrs": list(node.transport.addrs),
        "url": url,
        "models": [model.alias for model in node.provider.models],
        "skills": [skill.id for skill in node.provider.skills],
        "is_open": node.mesh.is_open,
        "options": options or {},
    }


def found_nodes(state: StateDir) -> list[Found]:
    """The nodes of a state directory that said that they run, by name; nothing is changed there."""
    files = sorted((state.path / "nodes").glob(f"*/{_FILE}"))[:_NODES_MAX]
    table = processes()
    found: list[Found] = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            found.append(_found(file.parent.name, parse_json(file), table))
    return found


def _found(name: str, said: Mapping[str, Any], table: Mapping[int, Process]) -> Found:
    pid: object = said.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return Found(name, said, is_there=False, rss_bytes=None)
    if not table:
        return Found(name, said, is_there=_answers(pid), rss_bytes=None)
    process = table.get(pid)
    is_there = process is not None and process.began == said.get("began")
    return Found(name, said, is_there, tree_rss_bytes(pid, table) if is_there else None)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def processes() -> dict[int, Process]:
    """Those of this machine by their ids; none where there is no /proc."""
    found: dict[int, Process] = {}
    for file in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            process = _process(file.read_text(errors="replace"))
            found[process.pid] = process
    return found


def _process(stat: str) -> Process:
    # Its name, in parentheses, may hold anything.
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    page = os.sysconf("SC_PAGE_SIZE")
    return Process(int(head.split()[0]), int(fields[1]), int(fields[19]), int(fields[21]) * page)


def tree_rss_bytes(pid: int, table: Mapping[int, Process]) -> int:
    """The memory of a process and of all that it started."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    total, waiting, seen = 0, [pid], set[int]()
    while waiting:
        each = waiting.pop()
        if each in table and each not in seen:
            seen.add(each)
            total += table[each].rss_bytes
            waiting += children.get(each, [])
    return total
