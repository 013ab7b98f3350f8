"""What systemd is told of this process, where it asks: the datagrams of sd_notify(3), without its library."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Self

_log = logging.getLogger(__name__)

_ALIVE_TIMES = 2  # within the time after which systemd takes us for hung, as sd_watchdog_enabled(3) advises


class Supervisor:
    """Whoever supervises this process; nobody, where `address` is "". Neither waits nor raises."""

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        """`address` is a path, or a name that begins with "@" (unix(7), abstract)."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds

    @classmethod
    def take_from(cls, environment: MutableMapping[str, str]) -> Self:
        """The one that the environment names, which is then no longer named there: the processes that we
        start are none of its business."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        is_ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        has_watchdog = is_ours and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if has_watchdog else None)

    def tell(self, *assignments: str) -> None:
        """Such as "READY=1"."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
                link.setblocking(False)
                link.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            _log.warning("systemd could not be told: %s", error.strerror)

    async def keep_telling(self) -> None:
        """Say, until cancelled, that the event loop turns; returns at once where nobody asked for it."""
        while self._watchdog_seconds is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / _ALIVE_TIMES)
