"""A bad network between a dialer and a node: a TCP proxy whose behaviour a test changes as it runs.

libp2p runs over TCP, so a node dialled under the proxy's port is reached through it. Two things to
know: the dialer also learns the node's own addresses (identify) and may use them for a *new*
connection; and the kernel acknowledges what the proxy has not forwarded yet, so a sender notices a
black hole only by what does not come back.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from faults.conditions import Conditions, Corruption, Direction
from faults.connection import LinkState, LinkStats, carry, make_abrupt
from faults.processes import FaultListener
from monai_node.registry.tasks import task_scope

CONNECTIONS_MAX = 64
CONTROL_SECONDS = 5.0  # for a switch to hold, the thread to start and to end
_POLL_SECONDS = 0.005


class LinkProxy:
    """A link on loopback to `target`, run by its own thread; a context manager for sync tests.

    Every switch holds when its method has returned, for open connections too. What is random
    (jitter, corruption) follows from `seed`, the number of the connection and the direction.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        seed: int = 0,
        name: str = "link",
        on_fault: FaultListener | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self.stats = LinkStats()
        self.port = 0
        self._seed = seed
        self._on_fault = on_fault
        self._failure: BaseException | None = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"link {name}", daemon=True)

    @classmethod
    def to_multiaddr(cls, addr: str, *, seed: int = 0, on_fault: FaultListener | None = None) -> LinkProxy:
        """A link to the node that listens at `addr` (`/ip4/…/tcp/…`, with anything around it)."""
        host, port = _tcp_of(addr).groups()
        return cls((host, int(port)), seed=seed, on_fault=on_fault)

    def through(self, addr: str) -> str:
        """`addr`, or any text that holds one (a join line), with this link in place of the node."""
        found = _tcp_of(addr)
        return f"{addr[: found.start()]}/ip4/127.0.0.1/tcp/{self.port}{addr[found.end() :]}"

    # --- life ------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self._thread.start()
        self._is_ready.wait(CONTROL_SECONDS)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut what is open and end the thread; raises what went wrong in it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(CONTROL_SECONDS)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise AssertionError(f"the thread of {self.name} did not end")

    def wait(self, is_true: Callable[[LinkStats], bool], timeout_seconds: float = 5.0) -> None:
        """Until `is_true(stats)`; AssertionError with the numbers when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while not is_true(self.stats):
            if time.monotonic() >= deadline:
                raise AssertionError(f"{self.name} has only seen {self.stats}")
            time.sleep(_POLL_SECONDS)

    # --- switches ---------------------------------------------------------------------------------
    def slow(self, delay_ms: float, jitter_ms: float = 0.0) -> None:
        """Delay every byte by this much each way; throughput stays."""
        self._switch("slow", lambda now: replace(now, delay_ms=delay_ms, jitter_ms=jitter_ms))

    def trickle(self, bytes_per_second: float) -> None:
        """Let this many bytes through, in each direction of each connection."""
        self._switch("trickle", lambda now: replace(now, bytes_per_second=bytes_per_second))

    def black_hole(self) -> None:
        """Accept and forward nothing, not even that a side has gone; `heal` lets all of it go."""
        self._switch("black_hole", lambda now: replace(now, is_up_open=False, is_down_open=False))

    def half_open(self, works: Direction) -> None:
        """Forward in one direction only."""
        self._switch(
            f"half_open {works}",
            lambda now: replace(now, is_up_open=works == "up", is_down_open=works == "down"),
        )

    def corrupt(
        self,
        *,
        offset: int | None = None,
        probability: float = 0.0,
        direction: Direction = "down",
    ) -> None:
        """Invert the byte at `offset` of each connection's stream, or bytes with `probability`."""
        corruption = Corruption(direction, offset, probability)
        self._switch("corrupt", lambda now: replace(now, corruption=corruption))

    def cut(self) -> None:
        """Reset every open connection at both ends; new ones are accepted."""

        async def cut() -> None:
            cut = self._cut_all()
            if cut:
                await asyncio.wait(cut)

        self._do("cut", cut())

    def cut_after_bytes(self, count: int, direction: Direction = "down") -> None:
        """Reset every connection once `count` more bytes went in `direction`; exactly these do."""

        async def arm() -> None:
            self._state.arm_cut(count, direction)

        self._do(f"cut_after_bytes {count} {direction}", arm())

    def refuse(self) -> None:
        """Refuse new connections, as a port where nobody listens; open ones stay."""

        async def refuse() -> None:
            self._unlisten()

        self._do("refuse", refuse())

    def heal(self) -> None:
        """A good link again: every condition off, new connections accepted."""

        async def heal() -> None:
            self._state.disarm_cuts()
            self._state.change(Conditions())
            self._listen()

        self._do("heal", heal())

    def _switch(self, what: str, change: Callable[[Conditions], Conditions]) -> None:
        async def switch() -> None:
            self._state.change(change(self._state.conditions))

        self._do(what, switch())

    def _do(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        if self._on_fault is not None:
            self._on_fault(what, self.name)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_SECONDS)

    # --- on the thread ---------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # raised in the test's thread by __enter__ or __exit__
            self._failure = error
        finally:
            self._is_ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._state = LinkState(self.stats, self._cut_all)
        self._connections: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        # Bound but never listening: while the link refuses, nobody else can be given its port.
        with _bound_socket(0) as reservation:
            self.port = int(reservation.getsockname()[1])
            async with task_scope() as self._scope:
                self._listen()
                self._is_ready.set()
                await self._stopping.wait()
                self._unlisten()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound_socket(self.port)
            self._listener.listen(CONNECTIONS_MAX)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._accept(self._listener)  # who was let in before stays
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        """Take everyone who waits. Not a task: cancelling `sock_accept` may lose a connection."""
        while True:
            try:
                dialer, _ = listener.accept()
            except BlockingIOError:
                return
            if len(self._connections) >= CONNECTIONS_MAX:
                self.stats.rejected += 1
                make_abrupt(dialer)
                dialer.close()
            else:
                dialer.setblocking(False)
                self._start_connection(dialer)

    def _start_connection(self, dialer: socket.socket) -> None:
        number = self.stats.accepted
        work = carry(dialer, self.target, self._state, f"{self._seed}/{number}")
        task = self._scope.start(work, name=f"connection {number}")
        self._connections.add(task)
        self.stats.accepted += 1
        self.stats.open += 1
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self.stats.open -= 1

    def _cut_all(self) -> set[asyncio.Task[None]]:
        """Cancel every connection, which resets it; the tasks that are about to end so."""
        for task in self._connections:
            task.cancel()
        return set(self._connections)


def _bound_socket(port: int) -> socket.socket:
    """A socket on a loopback port that another one of this process may share."""
    bound = socket.socket()
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _tcp_of(addr: str) -> re.Match[str]:
    found = re.search(r"/ip4/([\d.]+)/tcp/(\d+)", addr)
    if found is None:
        raise ValueError(f"no /ip4/…/tcp/… in {addr!r}")
    return found
