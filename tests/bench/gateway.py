"""What a gateway adds to the first token, and what it bears: `python tests/bench/gateway.py --json` prints
one JSON line.

A real gateway process and real provider processes with scripted engines over libp2p, 18 peers in all.
Competitor, in the same run and interleaved with it, pair by pair: the same prompt to a provider on its own
wire, asked by a member of the mesh in this process. Parts (`--parts`):

pairs    ttft_added_p50_ms, _p99_ms: first text over the gateway by model id, less the provider's own;
         mesh_added_p50_ms, _p99_ms: the same for the model `mesh` with one-task texts, each asked once, so
         that planning, embedding and ranking count
streams  50, 200 and 500 streams at once, four words a second each: errors, milliseconds to the first text
         (the first word's pace included), words relayed a second, processor time of the gateway;
         errors_500 are those of 500
flat     growth of the gateway over `--requests` short requests: rss_slope_mb (per 1,000 requests, least
         squares over the later two thirds) and open files at both ends
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

BENCH_DIR = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH_DIR), str(BENCH_DIR.parent)]

from gateway_client import Answer, HttpClient, WireClient  # noqa: E402
from gateway_provider import INSTANT, PACED, WORD, WORDS_USUAL  # noqa: E402

from faults.processes import NodeProcess, node_command  # noqa: E402
from monai_node.mesh.config import NodeConfig  # noqa: E402
from monai_node.mesh.node import open_node  # noqa: E402
from monai_node.registry.ids import PeerId  # noqa: E402
from monai_node.registry.secret import parse_join_line  # noqa: E402

PARTS = ("pairs", "streams", "flat")
# A peer takes 32 tasks of one caller: so many bear 500 streams.
PROVIDER_PROCESSES, NODES_EACH = 3, 6
STREAM_COUNTS = (50, 200, 500)
STREAM_WORDS = 40
# The clients of a level come within this time, as far as they can.
RAMP_SECONDS = 2.0
FLAT_WORKERS, FLAT_SAMPLES = 8, 30
REACHABLE_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
SUBJECTS = ("harbour", "orchard", "lighthouse", "glacier", "market", "violin", "desert", "library")


@dataclass(frozen=True, slots=True)
class Bench:
    """A mesh under measurement; `direct` asks the first provider on its wire."""

    url: str
    gateway_pid: int
    direct: WireClient

    def held(self) -> tuple[float, int]:
        """Megabytes and open files of the gateway's own process."""
        status = Path(f"/proc/{self.gateway_pid}/status").read_text()
        files = len(os.listdir(f"/proc/{self.gateway_pid}/fd"))
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024, files

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.gateway_pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[Bench]:
    """The whole mesh, every peer of it reachable."""
    with ExitStack() as stack:

        def started(name: str, command: list[str]) -> NodeProcess:
            (folder / name).mkdir()
            return stack.enter_context(NodeProcess(command, folder / name, name=name))

        gateway = started("gateway", node_command("gateway", "--port", "0", "--no-canaries", "--json"))
        ready = await asyncio.to_thread(gateway.wait_ready, 120.0)
        providers = [
            started(
                f"providers-{number}",
                [
                    *(sys.executable, str(BENCH_DIR / "gateway_provider.py")),
                    *("--state-dir", str(folder / "peers"), "--join", ready.join),
                    *(f"s{number}-{each}" for each in range(NODES_EACH)),
                ],
            )
            for number in range(PROVIDER_PROCESSES)
        ]
        lines = [await asyncio.to_thread(one.wait_line, '"ready"', REACHABLE_SECONDS) for one in providers]
        peer, addr = json.loads(json.loads(lines[0])["line"])["s0-0"][:2]
        config = NodeConfig("measure", folder / "measure", join=(parse_join_line(ready.join),))
        async with open_node(config, lambda _: None) as node:
            await node.directory.join(addr)
            await _reachable(ready.url, PROVIDER_PROCESSES * NODES_EACH)
            yield Bench(ready.url, gateway.pid, WireClient(node.transport, PeerId(peer)))


async def _reachable(url: str, count: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        deadline = time.monotonic() + REACHABLE_SECONDS
        while time.monotonic() < deadline:
            peers = (await client.get(f"{url}/v1/peers")).json()["data"]
            if sum(peer["state"] == "alive" and INSTANT in peer["models"] for peer in peers) >= count:
                return
            await asyncio.sleep(0.2)
    raise SystemExit(f"not all {count} providers were reachable within {REACHABLE_SECONDS:.0f} s")


# --- pairs --------------------------------------------------------------------------------------------
async def pairs(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """By model id and by `mesh`, in turn."""
    http = HttpClient(bench.url)
    found: dict[str, list[tuple[float, float]]] = {INSTANT: [], "mesh": []}
    until = time.monotonic() + seconds
    for number in range(-10, rounds):  # the first ones warm up
        if time.monotonic() > until and number > 1:
            break
        for model, measured in found.items():
            text = f"Describe the {SUBJECTS[number % len(SUBJECTS)]} of town {number + 10} to a child"

            async def over(model: str = model, text: str = text) -> Answer:
                return await http.ask(model, text, WORDS_USUAL)

            async def alone(text: str = text) -> Answer:
                return await bench.direct.ask(INSTANT, text, WORDS_USUAL)

            ours, theirs = await _both(over, alone, is_swapped=number % 2 == 1)
            if ours.error or ours.models != (INSTANT,) or ours.chars != theirs.chars:
                raise SystemExit(f"{model}: {ours} instead of {theirs}")
            if number >= 0:
                measured.append((ours.first_s, theirs.first_s))
    await http.close()
    return {"pairs": len(found["mesh"]), **_added("ttft", found[INSTANT]), **_added("mesh", found["mesh"])}


async def _both(
    one: Callable[[], Awaitable[Answer]], other: Callable[[], Awaitable[Answer]], *, is_swapped: bool
) -> tuple[Answer, Answer]:
    if is_swapped:
        second = await other()
        return await one(), second
    return await one(), await other()


def _added(name: str, measured: list[tuple[float, float]]) -> dict[str, float]:
    added = [1000 * (ours - theirs) for ours, theirs in measured]
    return {
        f"{name}_added_p50_ms": round(statistics.median(added), 1),
        f"{name}_added_p99_ms": round(_quantile(added, 0.99), 1),
        f"{name}_alone_p50_ms": round(1000 * statistics.median(theirs for _, theirs in measured), 1),
    }


# --- streams ------------------------------------------------------------------------------------------
async def streams(bench: Bench, counts: tuple[int, ...]) -> dict[str, Any]:
    return {str(count): await _level(bench, count) for count in counts}


async def _level(bench: Bench, count: int) -> dict[str, Any]:
    cpu, started = bench.cpu_seconds(), time.monotonic()

    async def one(number: int) -> Answer:
        await asyncio.sleep(RAMP_SECONDS * number / count)
        client = HttpClient(bench.url)
        answer = await client.ask(PACED, f"Tell stream {number} of {count}", STREAM_WORDS)
        await client.close()
        if not answer.error and answer.chars != STREAM_WORDS * len(WORD):
            answer.error = "incomplete"
        return answer

    answers = await asyncio.gather(*map(one, range(count)))
    seconds = time.monotonic() - started
    firsts = [answer.first_s for answer in answers if answer.first_s] or [0.0]
    words = sum(answer.chars for answer in answers) / len(WORD)
    return {
        "errors": sum(bool(answer.error) for answer in answers),
        "kinds": dict(Counter(answer.error for answer in answers if answer.error)),
        "first_p50_ms": round(1000 * statistics.median(firsts)),
        "first_p99_ms": round(1000 * _quantile(firsts, 0.99)),
        "seconds": round(seconds, 1),
        "words_per_second": round(words / seconds),
        "gateway_cpu_ms_per_word": round(1000 * (bench.cpu_seconds() - cpu) / max(1.0, words), 3),
    }


# --- flat ---------------------------------------------------------------------------------------------
async def flat(bench: Bench, requests: int, seconds: float) -> dict[str, Any]:
    samples: list[tuple[int, float, int]] = []
    errors = Counter[str]()
    cpu, started = bench.cpu_seconds(), time.monotonic()
    batch = max(FLAT_WORKERS, requests // FLAT_SAMPLES)
    clients = [HttpClient(bench.url) for _ in range(FLAT_WORKERS)]

    async def work(client: HttpClient, numbers: range) -> None:
        for number in numbers:
            answer = await client.ask(INSTANT, f"Say the number {number}", WORDS_USUAL)
            if answer.error:
                errors[answer.error] += 1

    end = 0
    while end < requests and (time.monotonic() < started + seconds or len(samples) < 6):
        start, end = end, min(requests, end + batch)
        await asyncio.gather(
            *(work(client, range(start + at, end, FLAT_WORKERS)) for at, client in enumerate(clients))
        )
        samples.append((end, *bench.held()))
    for client in clients:
        await client.close()
    later = samples[len(samples) // 3 :]
    slope = statistics.linear_regression([n for n, _, _ in later], [mb for _, mb, _ in later]).slope
    return {
        "requests": end,
        "errors": dict(errors),
        "requests_per_second": round(end / (time.monotonic() - started)),
        "gateway_cpu_ms_per_request": round(1000 * (bench.cpu_seconds() - cpu) / end, 2),
        "rss_start_mb": round(samples[0][1], 1),
        "rss_end_mb": round(samples[-1][1], 1),
        "rss_slope_mb": round(1000 * slope, 2),
        "files_start": samples[0][2],
        "files_end": samples[-1][2],
    }


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


# --- all ----------------------------------------------------------------------------------------------
async def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as bench:
            if "pairs" in options.parts:
                found["pairs"] = await pairs(bench, options.rounds, options.seconds)
            if "flat" in options.parts:
                found["flat"] = await flat(bench, options.requests, options.seconds)
            if "streams" in options.parts:
                found["streams"] = await streams(bench, tuple(options.streams))
    summary = {key: value for key, value in found.get("pairs", {}).items() if "_added_" in key}
    summary |= {f"errors_{count}": level["errors"] for count, level in found.get("streams", {}).items()}
    summary |= {key: found["flat"][key] for key in ("rss_slope_mb",) if "flat" in found}
    return {
        "bench": "gateway",
        "summary": summary,
        **found,
        "conditions": {
            "rounds": options.rounds,
            "peers": PROVIDER_PROCESSES * NODES_EACH,
            "cpu_count": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line (the only form there is)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=200, help="pairs of each kind")
    parser.add_argument("--requests", type=int, default=2000, help="of the part flat")
    parser.add_argument("--seconds", type=float, default=60.0, help="after which pairs, and flat, end early")
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAM_COUNTS))
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
