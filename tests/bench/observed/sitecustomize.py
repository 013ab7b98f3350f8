"""Lets `tests/bench/soak.py` look into the processes that it starts: put first on PYTHONPATH there.

On SIGUSR1 a process writes what its event loop holds, as one JSON object, to
`$SOAK_FOLDER/<pid>.json`: its tasks by name, its threads, and the callbacks that kept the loop for longer
than SLOW_SECONDS since the last look.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

SLOW_SECONDS = 0.05
_SLOW_KEPT = 200
_slow: list[tuple[float, float, str]] = []  # seconds by the clock, seconds of CPU, what
_run = asyncio.Handle._run  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def _timed(handle: asyncio.Handle) -> None:
    started, used = time.perf_counter(), time.thread_time()
    _run(handle)
    seconds = time.perf_counter() - started
    if seconds > SLOW_SECONDS and len(_slow) < _SLOW_KEPT:
        callback = getattr(handle, "_callback", None)
        what = repr(getattr(callback, "__self__", None) or handle)[:300]  # a step is told by its task
        _slow.append((round(seconds, 3), round(time.thread_time() - used, 3), what))


_collecting_since = 0.0


def _collected(phase: str, info: dict[str, int]) -> None:
    """A full garbage collection holds the loop as well, inside whatever callback it strikes."""
    global _collecting_since  # the interpreter calls a plain function
    if phase == "start":
        _collecting_since = time.perf_counter()
        return
    seconds = time.perf_counter() - _collecting_since
    if seconds > SLOW_SECONDS and len(_slow) < _SLOW_KEPT:
        _slow.append((round(seconds, 3), 0.0, f"garbage collection of generation {info['generation']}"))


def _look(*_: object) -> None:
    names = Counter[str]()
    try:
        for task in asyncio.all_tasks():
            # py-libp2p's and uvicorn's tasks have numbers; the coroutine says more.
            name = task.get_name()
            names[getattr(task.get_coro(), "__qualname__", name) if name.startswith("Task-") else name] += 1
    except RuntimeError:  # no loop runs yet
        pass
    seen = {"tasks": names, "threads": [t.name for t in threading.enumerate()], "slow": _slow}
    target = Path(os.environ["SOAK_FOLDER"]) / f"{os.getpid()}.json"
    target.with_suffix(".part").write_text(json.dumps(seen))
    target.with_suffix(".part").rename(target)
    _slow.clear()


if "SOAK_FOLDER" in os.environ and "monai_node.mesh.child_main" not in sys.orig_argv:
    asyncio.Handle._run = _timed  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    gc.callbacks.append(_collected)
    signal.signal(signal.SIGUSR1, _look)
