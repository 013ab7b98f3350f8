"""How a node's process is asked to go: by SIGTERM, when it first ends what it has begun; by SIGINT, when it
does not; and by a second signal of either, at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from monai_node.mesh.sd_notify import Supervisor
from monai_node.registry.tasks import task_scope

_AT_ONCE = 130  # as shells say it of SIGINT


class Departure:
    """Of one process. Until somebody waits for it there is nothing to be ended first."""

    def __init__(self, drain_seconds: float, supervisor: Supervisor) -> None:
        self._drain_seconds = drain_seconds
        self._supervisor = supervisor
        self._asked = asyncio.Event()
        self._is_awaited = False
        self._received: list[int] = []

    async def asked(self) -> None:
        """Return when this process is asked to go after it has ended what it began."""
        self._is_awaited = True
        await self._asked.wait()

    async def drain(self, *work: Awaitable[None]) -> None:
        """Wait for the end of what was begun, but not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                await asyncio.gather(*work)

    def end_of(self, work: Callable[[Departure], Awaitable[None]]) -> int:
        """Run `work` to its end or until a signal ends it; the exit status."""

        async def main() -> None:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()
            assert task is not None
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._on_signal, number, task.cancel)
            async with task_scope() as scope:
                scope.start(self._supervisor.keep_telling(), name="watchdog")
                await work(self)

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            if not self._received:
                raise
        return _AT_ONCE if signal.SIGINT in self._received else 0

    def _on_signal(self, number: int, end: Callable[[], object]) -> None:
        self._received.append(number)
        if len(self._received) > 1:
            os._exit(_AT_ONCE)
        self._supervisor.tell("STOPPING=1")
        if number == signal.SIGTERM and self._is_awaited:
            self._asked.set()
        else:
            end()
