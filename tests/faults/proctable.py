"""Which processes are ours: the process table of Linux, and the tree below one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Proc:
    """One line of the process table; `started` (ticks since boot) tells a reused pid apart."""

    pid: int
    parent: int
    session: int
    started: int
    state: str


def parse_stat(line: str) -> Proc:
    """A line of /proc/<pid>/stat (proc(5)); the name in it may hold spaces and brackets."""
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    return Proc(
        pid=int(head.split(" ", 1)[0]),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
    )


def process_table() -> dict[int, Proc]:
    """All processes that run here; those that end while it is read are left out."""
    table: dict[int, Proc] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                proc = parse_stat((entry / "stat").read_text(errors="replace"))
            except OSError:
                continue
            table[proc.pid] = proc
    return table


def tree_of(
    root: int, table: Mapping[int, Proc], *, is_running: bool = True, known: Iterable[Proc] = ()
) -> list[Proc]:
    """The living members of `root`'s tree, `root` first.

    A member is in the session that `root` leads, descends from a member, or was `known` as one
    before its parent died and it was handed to init. A process that has `root`'s pid though `root`
    is not running is a stranger, and so is its session.
    """
    members: dict[int, Proc] = {}
    if is_running or root not in table:
        members = {pid: proc for pid, proc in table.items() if root in (pid, proc.session)}
    for proc in known:
        current = table.get(proc.pid)
        if current is not None and current.started == proc.started:
            members[proc.pid] = current
    while found := {
        pid: proc for pid, proc in table.items() if proc.parent in members and pid not in members
    }:
        members |= found
    alive = [proc for proc in members.values() if proc.state not in "ZX"]
    return sorted(alive, key=lambda proc: (proc.pid != root, proc.pid))
