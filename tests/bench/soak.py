"""What a mesh leaks while it is used and broken: `python tests/bench/soak.py --json` prints one JSON line.

Starts `up` and one more provider, sends mixed traffic from several workers (arithmetic, two tasks,
streams, short deadlines, bad requests; a quarter of all clients hang up at a random moment) and kills the
extra provider every few seconds. Growth is measured between two moments at which nothing was asked:
after a warm-up, and at the end. All but `requests`, `cancelled` and the latencies should be near zero:

failed            requests that ended otherwise than promised: late, cut, or with an undocumented status
rss_growth_mb     of each process that lived all the time
fds_growth        open files, tasks_growth asyncio tasks, threads_growth threads: the same
still_running     tasks that providers still count as running after the last client has gone
slow_callbacks    that held the loop of gateway or provider for more than 50 ms, and the longest in ms
p50_drift, p99_drift   latency of arithmetic alone, last quarter over first quarter
complaints        lines of stderr and logs that tell of a task or coroutine nobody owned
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

TESTS_DIR = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS_DIR))

from faults.processes import NodeProcess, node_command  # noqa: E402

WORKERS = 4
KILL_SECONDS = 5.0
PAUSE_SECONDS = 0.15  # of a worker between two requests: the machine is not ours alone
LATE_SECONDS = 1.5  # past the deadline; the promise is 1 s, the rest is this client's
DEADLINE_SECONDS = 20.0
SHORT_DEADLINE_SECONDS = 0.3
SETTLE_SECONDS = 4.0
HANG_UP_SHARE = 0.25
COMPLAINT = re.compile(
    r"never retrieved|never awaited|was destroyed but it is pending|Traceback|ResourceWarning|ERROR"
)
TALE = """
import asyncio
from collections.abc import AsyncIterator
from monai_node.agents import Agent

agent = Agent("tale")


@agent.skill(examples=["Tell me the long tale", "Count from w0 on"])
async def tale(text: str) -> AsyncIterator[str]:
    '''Tells a long tale, word by word.'''
    for number in range(40):
        await asyncio.sleep(0.02)
        yield f"w{number} "
"""
# What is sent, how often, and the statuses that are an honest answer.
KINDS = {"sum": 5, "two": 2, "stream": 3, "tale": 3, "hurried": 2, "bad": 2}
HONEST = {
    "sum": {200},
    "two": {200, 504},
    "stream": {200, 504},
    "tale": {200, 404, 502, 503, 504},  # its only provider may be dead at the moment
    "hurried": {200, 504},
    "bad": {400, 404, 413, 422},
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one process holds at one moment."""

    rss_mb: float
    fds: int
    threads: int
    tasks: Counter[str]
    slow: tuple[tuple[float, float, str], ...]


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    requests: int = 0
    cancelled: int = 0
    statuses: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])
    sums: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])  # when, seconds


class Mesh:
    """`up` and one more provider on a state directory of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._env = {
            "MONAI_STATE_DIR": str(folder / "state"),
            "PYTHONPATH": str(Path(__file__).parent / "observed"),
            "SOAK_FOLDER": str(folder),
            "PYTHONWARNINGS": "default",
        }
        self.up = stack.enter_context(self._node("up", "--port", "0"))
        self.url = self.up.wait_ready().url
        (folder / "tale.py").write_text(TALE)
        self.extra = stack.enter_context(self._node("serve", str(folder / "tale.py")))

    def _node(self, *args: str) -> NodeProcess:
        directory = self._folder / args[0]
        directory.mkdir()
        return NodeProcess(node_command(*args, "--json"), directory, name=args[0], env=self._env)

    def kinds_of_processes(self) -> dict[str, int]:
        """The processes of `up` by what they are."""
        found: dict[str, int] = {}
        for proc in self.up.tree():
            words = Path(f"/proc/{proc.pid}/cmdline").read_bytes().decode().split("\0")
            found[_role(words)] = proc.pid
        return found

    def sizes(self) -> dict[str, Sizes]:
        return {role: self._sizes(pid, role) for role, pid in self.kinds_of_processes().items()}

    def _sizes(self, pid: int, role: str) -> Sizes:
        status = Path(f"/proc/{pid}/status").read_text()
        inner = self._look_into(pid) if role in ("gateway", "provider") else {}
        return Sizes(
            rss_mb=int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024,
            fds=len(os.listdir(f"/proc/{pid}/fd")),
            threads=int(re.findall(r"Threads:\s+(\d+)", status)[0]),
            tasks=Counter[str](inner.get("tasks", {})),
            slow=tuple((wall, cpu, what) for wall, cpu, what in inner.get("slow", [])),
        )

    def _look_into(self, pid: int) -> dict[str, Any]:
        target = self._folder / f"{pid}.json"
        target.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        for _ in range(200):
            if target.exists():
                return json.loads(target.read_text())
            time.sleep(0.01)
        raise SystemExit(f"process {pid} did not show what it holds within 2 s: its loop is stuck")

    def complaints(self) -> list[str]:
        files = [*self._folder.rglob("stderr-*.log"), *self._folder.rglob("node.log*")]
        found: list[str] = []
        for file in files:
            lines = file.read_text(errors="replace").splitlines()
            found += [
                " / ".join([file.parent.name, line, *lines[at + 1 : at + 40][-12:]])
                for at, line in enumerate(lines)
                if COMPLAINT.search(line)
            ]
        return found

    async def still_running(self, client: httpx.AsyncClient) -> int:
        """Tasks that the nodes count as running or queued; waits SETTLE_SECONDS for none."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            peers = (await client.get(f"{self.url}/v1/peers")).json()["data"]
            left = sum(peer["running"] + peer["queued"] for peer in peers if peer["state"] != "gone")
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)


def _role(words: list[str]) -> str:
    for word, role in (("up", "gateway"), ("serve", "provider")):
        if word in words:
            return role
    entry = next((word for word in words if word.endswith((".main", ".run"))), "?")
    agent = re.search(r"/(\w+)\.py", " ".join(words[words.index(entry) :])) if entry in words else None
    return agent[1] if agent else entry.split(".")[-2]


class Traffic:
    """Sends requests of every kind until told to stop, and judges how each ended."""

    def __init__(self, url: str, tally: Tally, seed: int) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._tally = tally
        self._random = Random(seed)

    async def run(self, until: float) -> None:
        async with httpx.AsyncClient(timeout=DEADLINE_SECONDS + 15, trust_env=False) as client:
            while time.monotonic() < until:
                kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
                await self._one(client, kind)
                await asyncio.sleep(self._random.uniform(0, 2 * PAUSE_SECONDS))

    async def _one(self, client: httpx.AsyncClient, kind: str) -> None:
        hangs_up_after = None
        if self._random.random() < HANG_UP_SHARE:
            hangs_up_after = self._random.choice([0.0, 0.02, 0.1, 0.3, 1.0]) * self._random.random()
        self._tally.requests += 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(hangs_up_after):
                how = await self._send(client, kind)
        except TimeoutError:
            self._tally.cancelled += 1
            return
        except httpx.HTTPError as error:
            how = f"{type(error).__name__}"
        seconds = time.monotonic() - started
        if kind == "sum" and how == "200":
            self._tally.sums.append((started, seconds))
        deadline = SHORT_DEADLINE_SECONDS if kind == "hurried" else DEADLINE_SECONDS
        self._tally.statuses[f"{kind} {how}"] += 1
        if how not in {str(status) for status in HONEST[kind]} or seconds > deadline + LATE_SECONDS:
            self._tally.failures.append(f"{kind}: {how} after {seconds:.1f} s")

    async def _send(self, client: httpx.AsyncClient, kind: str) -> str:
        body, is_streamed = self._body(kind)
        if not is_streamed:
            return str((await client.post(self._url, content=body)).status_code)
        async with client.stream("POST", self._url, content=body) as answer:
            lines = [line async for line in answer.aiter_lines()]
            if answer.status_code != 200:
                return str(answer.status_code)
            if any(line.startswith('data: {"error":') for line in lines):
                return "503"  # said within the stream
            return "200" if "data: [DONE]" in lines else "cut"

    def _body(self, kind: str) -> tuple[bytes, bool]:
        number = self._random.randrange(2, 10_000)
        text = {
            "sum": f"What is {number} * 49?",
            "two": f"What is {number} * 49, and write a two-line poem about rivers",
            "stream": f"Write a line about the number {number}",
            "hurried": f"Write a long story about the number {number}",
        }.get(kind, "Tell me the long tale")
        mesh: dict[str, Any] = {"deadline_seconds": DEADLINE_SECONDS}
        body: dict[str, Any] = {"model": "mesh", "max_tokens": self._random.randint(4, 24), "mesh": mesh}
        body["messages"] = [{"role": "user", "content": text}]
        body["stream"] = kind == "tale" or kind == "stream"
        if kind == "hurried":
            mesh["deadline_seconds"] = SHORT_DEADLINE_SECONDS
        if kind == "tale":
            mesh["plan"] = [{"id": "t1", "text": text, "skill": "tale"}]
        if kind == "bad":
            bad: list[dict[str, Any]] = [
                {"messages": "none"},
                {"model": "no-such-model"},
                {"mesh": {"unknown": 1}},
                {"messages": []},
            ]
            body |= self._random.choice(bad)
            if self._random.random() < 0.2:
                return b'{"model": "mesh", "messages": [', False
        return json.dumps(body).encode(), bool(body["stream"])


async def kill_now_and_then(mesh: Mesh, until: float) -> int:
    kills = 0
    while time.monotonic() + KILL_SECONDS < until:
        await asyncio.sleep(KILL_SECONDS)
        await asyncio.to_thread(mesh.extra.kill)
        kills += 1
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mesh.extra.start)
    return kills


async def phase(mesh: Mesh, tally: Tally, seconds: float, seed: int) -> int:
    """Traffic and kills for `seconds`, then quiet; how often the extra provider was killed."""
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for worker in range(WORKERS):
            group.create_task(Traffic(mesh.url, tally, seed + worker).run(until))
        killer = group.create_task(kill_now_and_then(mesh, until))
    return killer.result()


async def measure(mesh: Mesh, seconds: float) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        warm_up, tally = Tally(), Tally()
        await phase(mesh, warm_up, max(8.0, seconds / 6), seed=1)
        await mesh.still_running(client)
        await asyncio.sleep(SETTLE_SECONDS)
        before = mesh.sizes()
        kills = await phase(mesh, tally, seconds, seed=100)
        left = await mesh.still_running(client)
        await asyncio.sleep(SETTLE_SECONDS)
        after = mesh.sizes()
    slow = {role: sorted(after[role].slow, reverse=True) for role in ("gateway", "provider") if role in after}
    return {
        "bench": "soak",
        "summary": {
            "requests": tally.requests,
            "cancelled": tally.cancelled,
            "failed": len(tally.failures),
            "rss_growth_mb": {
                role: round(after[role].rss_mb - before[role].rss_mb, 1) for role in before if role in after
            },
            "fds_growth": _growth(before, after, "fds"),
            "threads_growth": _growth(before, after, "threads"),
            "tasks_growth": {
                role: dict(after[role].tasks - before[role].tasks) for role in slow if role in before
            },
            "still_running": left,
            "slow_callbacks": {
                role: [len(found), round(1000 * found[0][0]) if found else 0] for role, found in slow.items()
            },
            **_drifts(tally.sums),
            "complaints": len(mesh.complaints()),
        },
        "kills": kills,
        "statuses": dict(sorted(tally.statuses.items())),
        "failures": tally.failures[:20],
        "complaints": mesh.complaints()[:20],
        "slow": {role: found[:8] for role, found in slow.items()},
        "sizes": {role: {"rss_mb": round(size.rss_mb), "fds": size.fds} for role, size in after.items()},
        "conditions": {
            "seconds": seconds,
            "workers": WORKERS,
            "cpu_count": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
        },
    }


def _growth(before: dict[str, Sizes], after: dict[str, Sizes], what: str) -> dict[str, int]:
    return {
        role: getattr(after[role], what) - getattr(before[role], what) for role in before if role in after
    }


def _drifts(sums: list[tuple[float, float]]) -> dict[str, float]:
    """Latency of the last quarter of the time over that of the first one."""
    if len(sums) < 8:
        return {}
    start, end = min(at for at, _ in sums), max(at for at, _ in sums)
    quarter = (end - start) / 4
    first = [seconds for at, seconds in sums if at <= start + quarter]
    last = [seconds for at, seconds in sums if at >= end - quarter]
    return {
        "sum_p50_ms": round(1000 * statistics.median(seconds for _, seconds in sums), 1),
        "p50_drift": round(statistics.median(last) / statistics.median(first), 2),
        "p99_drift": round(_p99(last) / _p99(first), 2),
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[max(0, int(len(values) * 0.99) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line (the only form there is)")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        print(json.dumps(asyncio.run(measure(Mesh(Path(folder), stack), options.seconds))))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
        main()
