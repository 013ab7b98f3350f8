"""Whether work leaves the event loop free."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def longest_stall(work: Coroutine[Any, Any, object]) -> float:
    """For how long the event loop stood still, at most, while the work was done."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    stall, before = 0.0, loop.time()
    while not task.done():
        await asyncio.sleep(0.005)
        stall, before = max(stall, loop.time() - before), loop.time()
    await task
    return stall
