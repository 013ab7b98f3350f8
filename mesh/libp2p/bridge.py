"""One trio run in one thread, and the two mailboxes that join it to the asyncio loop.

Each direction wakes the other side once for everything that is waiting, not once per item: a
wake-up is a system call and a context switch, and was most of what a frame cost.
"""

# pyright: reportUnknownMemberType=false
# The installed types of trio leave callables partly open.

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import trio

from monai_node.mesh.libp2p.scopes import new_scope
from monai_node.registry.errors import Internal, MonaiError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
Work = Callable[[], object]
Serve = Callable[["Bridge"], AbstractAsyncContextManager[None]]

START_SECONDS = 20.0  # a listening socket and a handshake key; slow only on a starved machine
STOP_SECONDS = 5.0  # the trio side bounds its own end well below this
STOPPED = "this node's network has stopped"


class Mailbox:
    """Work for the other thread: posted by one thread only, done in order by another.

    Lock-free under the GIL: an item is either seen by the drain that is under way, or finds
    `_is_scheduled` cleared and schedules the next one.
    """

    def __init__(self, schedule: Callable[[Work], object]) -> None:
        self._schedule = schedule
        self._waiting: deque[Work] = deque()
        self._is_scheduled = False

    def post(self, work: Work) -> None:
        """Have `work` done on the other side, unless that side has ended. Never blocks."""
        self._waiting.append(work)
        if self._is_scheduled:
            return
        self._is_scheduled = True
        try:
            self._schedule(self._drain)
        except (RuntimeError, trio.RunFinishedError):  # the other side is over: nobody would care
            self._waiting.clear()
            self._is_scheduled = False

    def _drain(self) -> None:
        self._is_scheduled = False
        for _ in range(len(self._waiting)):  # what comes meanwhile waits its turn, behind others
            work = self._waiting.popleft()
            try:
                work()
            except Exception:
                # Entry point: one failing item must not take those behind it along, nor the run.
                _log.exception("a callback between the network thread and the node failed")


class Bridge:
    """Runs trio functions for asyncio callers; made by `open_bridge`.

    `call` and `to_trio` are for the loop's thread, `to_loop` is for the trio thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Work) -> None:
        self._loop = loop
        self._on_end = on_end
        self._is_ready = loop.create_future()
        self._has_ended = loop.create_future()
        self._answers: set[asyncio.Future[Any]] = set()
        self._error: BaseException | None = None
        self._is_stopping = False
        # Written by the trio thread:
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        self.to_loop = Mailbox(loop.call_soon_threadsafe)
        self.to_trio = Mailbox(self._schedule_on_trio)

    @property
    def is_running(self) -> bool:
        return self._is_ready.done() and not self._has_ended.done() and not self._is_stopping

    async def call(self, function: Callable[..., Awaitable[_T]], *args: object) -> _T:
        """`await function(*args)` over there.

        Cancelling cancels it there, without waiting for its end. Internal when the network thread
        has ended, or ends meanwhile.
        """
        if not self.is_running:
            raise Internal(STOPPED)
        answer: asyncio.Future[_T] = self._loop.create_future()
        scope = new_scope()
        self._answers.add(answer)
        self.to_trio.post(partial(self._start, self._answer(answer, scope, function, *args)))
        try:
            return await answer
        except asyncio.CancelledError:
            self.to_trio.post(scope.cancel)
            raise
        finally:
            self._answers.discard(answer)

    def _answer(
        self,
        answer: asyncio.Future[_T],
        scope: trio.CancelScope,
        function: Callable[..., Awaitable[_T]],
        *args: object,
    ) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            settle: Work = partial(_reject, answer, Internal(STOPPED))
            try:
                with scope:
                    settle = partial(_resolve, answer, await function(*args))
            except Exception as error:
                # Entry point: whatever it is, it belongs to the caller on the other side.
                settle = partial(_reject, answer, error)
            finally:
                self.to_loop.post(settle)

        return run

    def _start(self, run: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is not None:  # else: stopping, and the caller is answered by `_finish`
            self._nursery.start_soon(run)

    def _schedule_on_trio(self, work: Work) -> None:
        if self._token is None:
            raise RuntimeError("the network thread has not started")
        self._token.run_sync_soon(work)

    # --- on the trio thread -----------------------------------------------------------------------
    def run(self, serve: Serve) -> None:
        """The body of the thread."""
        try:
            trio.run(self._main, serve)
        except BaseException as error:
            # Entry point: the thread's last word is handed to the loop, whatever it is.
            self._error = error
        self.to_loop.post(self._finish)

    async def _main(self, serve: Serve) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        if self._is_stopping:
            return
        async with serve(self), trio.open_nursery() as nursery:
            self._nursery = nursery
            self.to_loop.post(partial(_resolve, self._is_ready, None))
            await self._stop.wait()
            self._nursery = None
            nursery.cancel_scope.cancel()

    def _request_stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    # --- on the loop's thread ---------------------------------------------------------------------
    def _finish(self) -> None:
        _resolve(self._has_ended, None)
        for answer in list(self._answers):
            _reject(answer, Internal(STOPPED))
        if self._is_ready.done() and not self._is_stopping:
            _log.error("the network thread of this node failed", exc_info=self._error)
        self._on_end()

    async def start(self) -> None:
        """Wait until `serve` is entered; its error, or Internal after START_SECONDS."""
        both = {self._is_ready, self._has_ended}
        await asyncio.wait(both, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if self._is_ready.done():
            return
        if not self._has_ended.done():
            raise Internal(f"this node's network did not start within {START_SECONDS:.0f} s")
        error = _innermost(self._error)
        if isinstance(error, MonaiError):
            raise error
        raise Internal(f"this node's network did not start: {error}") from error

    async def end(self, thread: threading.Thread) -> None:
        """Stop the trio run and wait for its thread, at most STOP_SECONDS, also when cancelled."""
        self._is_stopping = True
        self.to_trio.post(self._request_stop)
        deadline = self._loop.time() + STOP_SECONDS
        was_cancelled = False
        while not self._has_ended.done() and (left := deadline - self._loop.time()) > 0:
            try:
                await asyncio.wait({self._has_ended}, timeout=left)
            except asyncio.CancelledError:
                was_cancelled = True
        if self._has_ended.done():
            thread.join(1.0)  # it has posted its last word: this takes no time
        else:
            _log.error("the network thread did not end within %.0f s", STOP_SECONDS)
        if was_cancelled:
            raise asyncio.CancelledError


@asynccontextmanager
async def open_bridge(serve: Serve, on_end: Work) -> AsyncGenerator[Bridge, None]:
    """A trio thread inside `serve`, for as long as the block lasts.

    `on_end` is called on the loop when the thread has ended, by request or by a failure; every
    `call` that waits has failed by then. An error from entering `serve` is raised here.
    """
    bridge = Bridge(asyncio.get_running_loop(), on_end)
    # A daemon, so that even a hung thread cannot keep the process from ending.
    thread = threading.Thread(target=bridge.run, args=(serve,), name="libp2p", daemon=True)
    thread.start()
    try:
        await bridge.start()
        yield bridge
    finally:
        await bridge.end(thread)


def _resolve(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _innermost(error: BaseException | None) -> BaseException | None:
    """The one error inside the groups that nurseries wrap around it."""
    inner = cast(tuple[BaseException, ...], getattr(error, "exceptions", ()))
    return _innermost(inner[0]) if len(inner) == 1 else error
