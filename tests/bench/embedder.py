"""The embedder in torch, sentence-transformers and llama.cpp: `python tests/bench/embedder.py --json`.

Prints one JSON line. Texts are requests and announced skills ($MONAI_BENCH_DATA, default ../shared/bench
beside the repository; without them the line says `skipped`). Each embedder runs in a process of its own, on
one thread, as at a gateway; figures include the way there and back, and they take turns with the same
texts, so that whatever else the machine does strikes both.

- `load_seconds`: until the process is ready; `first_load_seconds` where llama.cpp has no file yet.
- `texts_a_second`: of batches of 64.
- `milliseconds`: of one request by itself.
- `processor_milliseconds`: what a text costs the process, which a busy machine changes less.
- `resident_mb`: of the process, after all that; of it `shared_mb` is of files that other processes may share.
- `likeness`: lowest and mean cosine of a text's vectors to that of sentence-transformers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_node.mesh.config import EmbedderChoice
from monai_node.mesh.embedders import SentenceEmbedder, open_embedder

ROOT = Path(__file__).resolve().parents[2]
CHOICES: tuple[EmbedderChoice, ...] = ("torch", "sentence-transformers", "gguf")
BATCH_TEXTS = 64


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_texts(data: Path) -> tuple[list[str], list[str]]:
    """Requests; skills as they are announced."""
    sets = ("clinc150", "metatool", "seal-tools")
    requests = [row["text"] for name in sets for row in read(data / f"{name}-queries.jsonl")]
    skills = [row for name in sets for row in read(data / f"{name}-skills.jsonl")]
    return requests, [f"{skill['name']}: {skill['description']}" for skill in skills]


def children() -> set[int]:
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


@dataclass(slots=True)
class Arm:
    """An open embedder, and what it was seen to take."""

    embedder: SentenceEmbedder
    pid: int
    load_seconds: float
    single_seconds: list[float] = field(default_factory=list[float])
    batch_seconds: float = 0.0
    processor_seconds: list[float] = field(default_factory=list[float])  # at each `note`

    def note(self) -> None:
        """What all threads of the process have run until now."""
        found = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        self.processor_seconds.append(sum(int(file.read_text().split()[0]) for file in found) / 1e9)

    async def seconds(self, texts: Sequence[str]) -> float:
        started = time.perf_counter()
        await self.embedder.embed(texts)
        return time.perf_counter() - started

    def figures(self, single_count: int, batch_count: int) -> dict[str, Any]:
        cuts = statistics.quantiles(self.single_seconds, n=20)
        start, middle, end = self.processor_seconds
        lines = (line.split() for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        megabytes = {line[0]: int(line[1]) // 1000 for line in lines if line[0] in ("VmRSS:", "RssFile:")}
        return {
            "load_seconds": round(self.load_seconds, 2),
            "texts_a_second": round(batch_count / self.batch_seconds, 1),
            "milliseconds": {"p50": round(1000 * cuts[9], 1), "p95": round(1000 * cuts[18], 1)},
            "processor_milliseconds": {
                "single": round(1000 * (middle - start) / single_count, 1),
                "batch": round(1000 * (end - middle) / batch_count, 1),
            },
            "resident_mb": megabytes["VmRSS:"],
            "shared_mb": megabytes["RssFile:"],
        }


@asynccontextmanager
async def open_arm(choice: EmbedderChoice, folder: Path) -> AsyncGenerator[Arm]:
    started, before = time.perf_counter(), children()
    async with open_embedder(choice, folder) as embedder:
        (pid,) = children() - before
        yield Arm(embedder, pid, time.perf_counter() - started)


async def measure(data: Path, count: int) -> dict[str, Any]:
    requests, skills = read_texts(data)
    draw = random.Random(1)
    single, many = draw.sample(requests, count), draw.sample(requests + skills, count * 4)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with open_arm("gguf", folder) as first:
            first_load_seconds = round(first.load_seconds, 2)
        arms = {choice: await stack.enter_async_context(open_arm(choice, folder)) for choice in CHOICES}
        await take_turns(list(arms.values()), single, many)
        figures: dict[str, Any] = {
            choice: arm.figures(len(single), len(many)) for choice, arm in arms.items()
        }
        reference = await arms["sentence-transformers"].embedder.embed(many)
        for choice, arm in arms.items():
            likeness = np.einsum("ij,ij->i", await arm.embedder.embed(many), reference)
            figures[choice]["likeness"] = {"min": float(likeness.min()), "mean": float(likeness.mean())}
    figures["gguf"]["first_load_seconds"] = first_load_seconds
    return figures


async def take_turns(arms: Sequence[Arm], single: Sequence[str], many: Sequence[str]) -> None:
    for arm in arms:
        arm.note()
    for text in single:
        for arm in arms:
            arm.single_seconds.append(await arm.seconds([text]))
    for arm in arms:
        arm.note()
    for start in range(0, len(many), BATCH_TEXTS):
        for arm in arms:
            arm.batch_seconds += await arm.seconds(many[start : start + BATCH_TEXTS])
    for arm in arms:
        arm.note()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure both embedders; prints one JSON line.")
    parser.add_argument("--json", action="store_true", help="one JSON line (the default, and only, form)")
    parser.add_argument(
        "--count", type=int, default=200, metavar="N", help="single requests; four times as many in batches"
    )
    options = parser.parse_args()
    line: dict[str, Any] = {
        "bench": "embedder",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    data = Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench")) / "dispatch"
    if data.is_dir():
        line["summary"] = asyncio.run(measure(data, options.count))
    else:
        line["skipped"] = f"no data in {data}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
