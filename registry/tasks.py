"""Who owns background work: a scope that starts tasks and has ended them all when it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager


class TaskScope:
    """Starts tasks that live no longer than the `async with task_scope()` that made it."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run `work` until it ends or the scope is left; RuntimeError when it is being left already,
        for nobody would end such a task."""
        if self._is_over:
            work.close()
            raise RuntimeError(f"{name!r} was started in a scope that is over")
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """End the scope: cancel its tasks, and start no others."""
        self._is_over = True
        for task in list(self._tasks):
            task.cancel()


@asynccontextmanager
async def task_scope() -> AsyncGenerator[TaskScope]:
    """A TaskGroup whose tasks are cancelled and awaited on leaving, instead of waited for.

    A task that raises cancels the body and the others, and its exception leaves here. An exception of
    the body leaves as itself, not wrapped in a group: callers catch our errors by their class.
    """
    try:
        async with asyncio.TaskGroup() as group:
            scope = TaskScope(group)
            try:
                yield scope
            finally:
                scope.cancel()
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) == 1:
            raise failures.exceptions[0] from None
        raise
