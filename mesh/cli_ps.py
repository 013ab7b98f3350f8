"""`monai-node ps`: which nodes of this user run here, and what they are doing."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_node.mesh.cli_http import Gateway, gateway_of, understood
from monai_node.mesh.cli_text import one_line, shortened
from monai_node.mesh.running import Found, found_nodes
from monai_node.mesh.state import StateDir, state_path
from monai_node.registry.errors import SetupError

if TYPE_CHECKING:
    import httpx

# A gateway that does not answer within this time is said to be silent: nobody waits for a list.
_SECONDS = 2.0
_OFFER_CHARS = 60
_RUNS = re.compile(r"^monai_num_requests_(running|waiting) ([0-9.e+]+)$", re.MULTILINE)


def run_ps(options: argparse.Namespace) -> int:
    """Print the list. What cannot be asked is told as such, and is no error."""
    rows = node_rows(options.state_dir)
    if options.json:
        print(json.dumps({"data": rows}, ensure_ascii=False))
    elif rows:
        print("\n".join(map(_line, rows)))
    else:
        print("no node of yours runs here; `monai-node up` starts one")
    return 0


def node_rows(state_dir: Path | None) -> list[dict[str, Any]]:
    """One for each node that said that it runs. `state` is "running"; "stale" when its process is gone; or
    "silent" when it is there and its gateway does not answer. What is not known is None."""
    found = found_nodes(StateDir(state_path(state_dir)))
    rows = [_row(node) for node in found]
    for row in rows:
        if row["state"] == "running" and row["url"]:
            _ask(gateway_at(row["url"], state_dir), row, rows)
    return rows


def gateway_at(url: str, state_dir: Path | None) -> Gateway:
    """The gateway that listens there, with the key that it has left for this user's commands."""
    with suppress(SetupError):
        known = gateway_of(argparse.Namespace(url=None, state_dir=state_dir))
        if known.url == url:
            return known
    return gateway_of(argparse.Namespace(url=url, state_dir=state_dir))


@contextmanager
def asking(gateway: Gateway) -> Generator[Callable[[str], httpx.Response]]:
    """Gives what this gateway answers to the GET of a path, whatever that is; SetupError when it does not
    answer."""
    import httpx

    def ask(path: str) -> httpx.Response:
        try:
            return client.get(gateway.url + path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SetupError(f"no answer ({type(error).__name__})") from None

    with httpx.Client(timeout=_SECONDS, **gateway.connection) as client:
        yield ask


def _row(node: Found) -> dict[str, Any]:
    said, is_there = node.said, node.is_there
    started: object = said.get("started")
    uptime = time.time() - started if is_there and isinstance(started, int | float) else None
    return {
        "name": node.name,
        "state": "running" if is_there else "stale",
        "role": said.get("role"),
        "pid": said.get("pid"),
        "uptime_seconds": round(max(uptime, 0.0), 1) if uptime is not None else None,
        "rss_bytes": node.rss_bytes,
        "peer": said.get("peer"),
        "url": said.get("url") or None,
        "addrs": said.get("addrs"),
        "models": said.get("models"),
        "skills": said.get("skills"),
        "options": said.get("options"),
        "running": None,
        "queued": None,
    }


def _ask(gateway: Gateway, row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Let a gateway tell of its own runs, and of the tasks of those it knows."""
    try:
        with asking(gateway) as ask:
            figures, told = ask("/metrics").text, ask("/v1/peers")
    except SetupError:
        row["state"] = "silent"
        return
    runs = dict(_RUNS.findall(figures))
    if runs.keys() == {"running", "waiting"}:
        row["running"], row["queued"] = int(float(runs["running"])), int(float(runs["waiting"]))
    with suppress(SetupError), understood():
        loads = {peer["id"]: (peer["running"], peer["queued"]) for peer in told.json()["data"]}
        for other in rows:
            if other["state"] == "running" and other["peer"] in loads and other is not row:
                other["running"], other["queued"] = loads[other["peer"]]


# --- for people -------------------------------------------------------------------------------------
def _line(row: dict[str, Any]) -> str:
    name = f"{one_line(row['name']):20}"
    if row["state"] == "stale":
        return f"{name} stale: its process {one_line(row['pid'])} ended without a word"
    load = "" if row["running"] is None else f"{row['running']} running, {row['queued']} queued"
    if row["state"] == "silent":
        load = "its gateway does not answer"
    memory = "" if row["rss_bytes"] is None else f"{row['rss_bytes'] / 1e6:.0f} MB"
    offers = ", ".join(map(str, row["skills"] or ()))
    told = shortened(row["url"] or offers, _OFFER_CHARS)
    since = "" if row["uptime_seconds"] is None else _duration(row["uptime_seconds"])
    parts = [name, f"{one_line(row['role']):8}", f"pid {row['pid']}", since, memory, told, load]
    return "  ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
