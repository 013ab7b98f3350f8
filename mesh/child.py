"""Supervised child processes: models, agents and the embedder run in them, never in the node.

What goes wrong stays where it went wrong. A handler that raises costs its call. A crash, a frame
that is not one, or silence after a cancel costs that process: every open call fails with
`ChildDied`, and the next call waits for the process that replaces it. Crashing too often costs the
child: it is quarantined, and calls fail at once until `reset()`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from monai_node.mesh.child_process import ChildDied, ChildSpec, Life, open_life
from monai_node.registry.errors import SetupError, TaskFailed
from monai_node.registry.tasks import task_scope

__all__ = ["Child", "ChildDied", "ChildSpec", "RestartPolicy", "open_child"]


class RestartPolicy:
    """When a child that crashed may start again. Pure: the time is passed in.

    Delays double from `first_delay_seconds` to `delay_seconds_max` with each crash of the last
    `window_seconds`; the `crashes_max`-th crash within that window means quarantine.
    """

    def __init__(
        self,
        *,
        first_delay_seconds: float = 0.2,
        delay_seconds_max: float = 10.0,
        crashes_max: int = 3,
        window_seconds: float = 60.0,
    ) -> None:
        self._first_delay_seconds = first_delay_seconds
        self._delay_seconds_max = delay_seconds_max
        self._crashes_max = crashes_max
        self._window_seconds = window_seconds
        self._crashes: list[float] = []

    def crashed(self, now: float) -> float | None:
        """Seconds to wait before the next start, or None: not before `reset`."""
        self._crashes = [at for at in self._crashes if now - at < self._window_seconds] + [now]
        if len(self._crashes) >= self._crashes_max:
            return None
        delay = self._first_delay_seconds * 2.0 ** (len(self._crashes) - 1)
        return min(delay, self._delay_seconds_max)

    def reset(self) -> None:
        self._crashes.clear()


class Child:
    """A child process that is started again when it crashes. Made by `open_child`."""

    def __init__(self, spec: ChildSpec, policy: RestartPolicy, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.info: Any = None  # what the child said of itself when it became ready
        self.last_death: ChildDied | None = None
        self._policy = policy
        self._clock = clock
        self._life: Life | None = None
        self._trouble = ""  # why there is no process and will be none
        self._settled = asyncio.Event()  # set while calls need not wait: it runs, or it may not
        self._wanted = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process running now; None while there is none."""
        return self._life.pid if self._life is not None else None

    @property
    def is_quarantined(self) -> bool:
        return self._life is None and bool(self._trouble)

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines the process wrote, for logs; never for users."""
        if self._life is not None:
            return self._life.stderr
        return self.last_death.stderr if self.last_death is not None else ()

    async def call(self, op: str, payload: Any) -> AsyncGenerator[Any, None]:
        """The events of one call, as plain values; closing the iterator cancels the call.

        Waits while the process is being started again. Raises what the handler raised (as the wire
        maps it), ChildDied when the process ends, TaskFailed at once while it is quarantined.
        """
        while (life := self._life) is None:
            if self._trouble:
                raise TaskFailed(self._trouble)
            await self._settled.wait()
        events = life.call(op, payload)
        try:
            async for value in events:
                yield value
        finally:
            await events.aclose()

    def reset(self) -> None:
        """End a quarantine or a back-off: start again now."""
        self._policy.reset()
        self._wanted.set()

    async def run(self, started: asyncio.Future[None]) -> None:
        """Keep a process running; `started` learns how the first start went."""
        try:
            while True:
                reason = await self._live(started)
                await self._pause(reason, self._policy.crashed(self._clock()))
        finally:
            self._refuse(f"{self.spec.name} is shut down")

    async def _live(self, started: asyncio.Future[None]) -> str:
        """One process from start to end; says why it ended."""
        try:
            async with open_life(self.spec) as life:
                self.info = await life.until_ready()
                if not started.done():
                    started.set_result(None)
                self.last_death = await self._serve(life)
            return self.last_death.reason
        except SetupError as error:
            if not started.done():
                started.set_exception(error)
            return error.message

    async def _serve(self, life: Life) -> ChildDied:
        self._life = life
        self._settled.set()
        try:
            return await life.run()
        finally:  # at once, so that no call is given a process that has ended
            self._life = None
            self._settled.clear()

    async def _pause(self, reason: str, seconds: float | None) -> None:
        self._wanted.clear()
        if seconds is None:
            self._refuse(f"{self.spec.name} crashed too often and is not started again ({reason})")
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        self._trouble = ""
        self._settled.clear()

    def _refuse(self, trouble: str) -> None:
        self._trouble = trouble
        self._settled.set()


@asynccontextmanager
async def open_child(
    spec: ChildSpec,
    policy: RestartPolicy | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Child, None]:
    """A child that is ready, kept running until the context is left; SetupError when its first
    start fails. Leaving kills the process and what it started, and fails the calls still open."""
    child = Child(spec, policy or RestartPolicy(), clock)
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with task_scope() as scope:
        scope.start(child.run(started), name=spec.name)
        await started
        yield child
