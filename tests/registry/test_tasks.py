from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from monai_node.registry.errors import PeerLost
from monai_node.registry.tasks import TaskScope, task_scope


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(5):
            await work

    asyncio.run(bounded())


class Worker:
    """Waits until it is cancelled, and says so."""

    def __init__(self) -> None:
        self.is_running = asyncio.Event()
        self.was_cancelled = False

    async def work(self) -> None:
        self.is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.was_cancelled = True


def test_leaving_a_scope_cancels_its_tasks_and_waits_for_their_end() -> None:
    async def main() -> None:
        worker = Worker()
        async with task_scope() as scope:
            task = scope.start(worker.work(), name="worker")
            await worker.is_running.wait()
        assert worker.was_cancelled
        assert task.cancelled()

    run(main())


def test_a_task_may_end_by_itself() -> None:
    async def main() -> None:
        done: list[int] = []

        async def work() -> None:
            done.append(1)

        async with task_scope() as scope:
            await scope.start(work(), name="short")
            assert done == [1]

    run(main())


def test_an_error_of_the_body_leaves_as_itself_and_ends_the_tasks() -> None:
    async def main() -> None:
        worker = Worker()
        with pytest.raises(PeerLost, match="away"):
            async with task_scope() as scope:
                scope.start(worker.work(), name="worker")
                await worker.is_running.wait()
                raise PeerLost("away")
        assert worker.was_cancelled

    run(main())


def test_an_error_of_a_task_cancels_the_body_and_the_others_and_leaves_as_itself() -> None:
    async def main() -> None:
        worker = Worker()

        async def fail() -> None:
            await worker.is_running.wait()
            raise PeerLost("away")

        with pytest.raises(PeerLost, match="away"):
            async with task_scope() as scope:
                scope.start(worker.work(), name="worker")
                scope.start(fail(), name="failing")
                await asyncio.Event().wait()
        assert worker.was_cancelled

    run(main())


def test_two_errors_leave_as_a_group() -> None:
    async def main() -> None:
        async def fail_late() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("second")

        with pytest.raises(BaseExceptionGroup) as failures:
            async with task_scope() as scope:
                scope.start(fail_late(), name="late")
                await asyncio.sleep(0)
                raise PeerLost("first")
        assert {type(error) for error in failures.value.exceptions} == {PeerLost, ValueError}

    run(main())


def test_cancelling_whoever_is_in_a_scope_cancels_what_it_started() -> None:
    async def main() -> None:
        worker = Worker()

        async def owner() -> None:
            async with task_scope() as scope:
                scope.start(worker.work(), name="worker")
                await asyncio.Event().wait()

        task = asyncio.create_task(owner())
        await worker.is_running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert worker.was_cancelled

    run(main())


def test_a_scope_that_is_being_left_starts_nothing() -> None:
    """Nobody would end such a task, and the scope would wait for it for ever."""

    async def main() -> None:
        refused: list[str] = []
        worker = Worker()

        async def parting(scope: TaskScope) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                try:
                    scope.start(worker.work(), name="too late")
                except RuntimeError as error:
                    refused.append(str(error))

        async with task_scope() as scope:
            scope.start(parting(scope), name="parting")
            await asyncio.sleep(0)
        assert refused == ["'too late' was started in a scope that is over"]
        with pytest.raises(RuntimeError):
            scope.start(worker.work(), name="much too late")
        assert not worker.is_running.is_set()

    run(main())
