"""How fast the whole spine is: `python tests/bench/spine.py --json` prints one JSON line.

Starts the embedded mesh (`up`) and measures it from outside, over HTTP, as a client would:

ready_s        from the command to its ready line
first_token_s  one writing task, streamed: request to first text (median)
two_task_s     a request that needs arithmetic and a poem: request to complete answer (median)
overhead_ms    what gateway, router, libp2p and provider add to the answer of an instant agent (median)

Competitor, in the same run and interleaved with it: the same model in the same engine, asked directly.
`first_token_ratio` and `two_task_ratio` are mesh over alone, pair by pair; the model alone is given the whole
request, and guesses at the arithmetic.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, aclosing, contextmanager
from typing import Any, Self

import httpx

from monai_node.mesh.config import ModelSource
from monai_node.mesh.engines import open_engine
from monai_node.mesh.node import bundled_sources
from monai_node.registry.wire import Parameters, TaskInput, TaskRequest

POEM = "Write a two-line poem about rivers"
TWO_TASKS = "What is 37 * 49, and write a two-line poem about rivers"
EXACT = "What is {} * 49?"
MAX_TOKENS = 48


@contextmanager
def mesh() -> Generator[tuple[str, float]]:
    """A running `up` on a state directory of its own: its URL and the seconds until it was ready."""
    with tempfile.TemporaryDirectory() as state:
        command = [
            sys.executable,
            "-m",
            "monai_node.mesh.cli",
            "up",
            "--json",
            "--state-dir",
            state,
            "--port",
            "0",
        ]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the mesh did not start; try `monai-node up`")
            yield str(json.loads(line)["url"]), time.monotonic() - started
        finally:
            process.terminate()
            process.wait(timeout=30)


def ask(client: httpx.Client, url: str, text: str) -> tuple[float, float, dict[str, Any]]:
    """Seconds to the first text and to the end of a streamed answer, and its `mesh` field."""
    body = {
        "model": "mesh",
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    started, first, last = time.monotonic(), 0.0, dict[str, Any]()
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if not first and any(choice["delta"].get("content") for choice in chunk["choices"]):
                first = time.monotonic() - started
            last = chunk.get("mesh") or last
    return first, time.monotonic() - started, last


class Alone:
    """The bundled model in the same engine, asked directly: no gateway, plan, route or wire."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        source = ModelSource(bundled_sources()[0], "alone")
        self._engine = self._runner.run(self._stack.enter_async_context(open_engine(source)))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def ask(self, text: str) -> tuple[float, float]:
        """Seconds to the first text and to the end."""
        return self._runner.run(self._ask(text))

    async def _ask(self, text: str) -> tuple[float, float]:
        request = TaskRequest(
            run="bench",
            task="t1",
            attempt="1",
            skill="chat",
            input=TaskInput(text=text),
            parameters=Parameters(max_tokens=MAX_TOKENS, temperature=0.0),
            remaining_ms=120_000,
        )
        started, first = time.monotonic(), 0.0
        async with aclosing(self._engine.submit(request)) as events:
            async for _ in events:
                first = first or time.monotonic() - started
        return first, time.monotonic() - started


def measure(rounds: int) -> dict[str, Any]:
    firsts: list[tuple[float, float]] = []
    twos: list[tuple[float, float]] = []
    overheads: list[float] = []
    # One client: a new one spends longer on its TLS context than the mesh on a request.
    with Alone() as alone, mesh() as (url, ready), httpx.Client(timeout=120, trust_env=False) as client:
        ask(client, url, TWO_TASKS)
        alone.ask(POEM)
        for number in range(rounds):
            firsts.append((ask(client, url, POEM)[0], alone.ask(POEM)[0]))
            twos.append((ask(client, url, TWO_TASKS)[1], alone.ask(TWO_TASKS)[1]))
            # A text that was not asked before: its embedding is part of the overhead.
            _, total, told = ask(client, url, EXACT.format(number + 2))
            overheads.append(1000 * total)
            assert told["parts"][0]["model"] == "arithmetic", told
    return {
        "bench": "spine",
        "summary": {
            "ready_s": round(ready, 2),
            "first_token_s": round(statistics.median(ours for ours, _ in firsts), 3),
            "two_task_s": round(statistics.median(ours for ours, _ in twos), 3),
            "overhead_ms": round(statistics.median(overheads), 1),
            "first_token_ratio": round(statistics.median(ours / theirs for ours, theirs in firsts), 2),
            "two_task_ratio": round(statistics.median(ours / theirs for ours, theirs in twos), 2),
        },
        "alone": {
            "first_token_s": round(statistics.median(theirs for _, theirs in firsts), 3),
            "two_task_s": round(statistics.median(theirs for _, theirs in twos), 3),
        },
        "conditions": {
            "rounds": rounds,
            "max_tokens": MAX_TOKENS,
            "cpu_count": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "model": "SmolLM2-135M-Instruct Q4_1",
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line (the only form there is)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(json.dumps(measure(options.rounds)))


if __name__ == "__main__":
    main()
