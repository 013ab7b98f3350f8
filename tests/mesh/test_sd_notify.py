"""What systemd hears of a node, on a datagram socket as systemd's own."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from monai_node.mesh.cli_node import Console
from monai_node.mesh.sd_notify import Supervisor


@contextmanager
def listener(address: str | bytes) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(address)
        link.settimeout(5)
        yield link


def test_ready_and_stopping_arrive_as_datagrams(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listener(path) as link:
        supervisor = Supervisor(path)
        supervisor.tell("READY=1")
        supervisor.tell("STOPPING=1", "STATUS=about to stop")
        assert link.recv(4096) == b"READY=1"
        assert link.recv(4096) == b"STOPPING=1\nSTATUS=about to stop"


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract sockets are Linux's")
def test_an_abstract_address_is_understood() -> None:
    name = f"monai-test-{os.getpid()}"
    with listener(f"\0{name}") as link:
        Supervisor(f"@{name}").tell("READY=1")
        assert link.recv(4096) == b"READY=1"


def test_a_node_that_is_ready_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "notify")
    with listener(path) as link:
        try:
            Console(is_json=False, supervisor=Supervisor(path)).ready([], {})
        finally:
            gc.unfreeze()
        assert link.recv(4096) == b"READY=1"
    assert capsys.readouterr().out == "ready\n"


def test_the_watchdog_hears_twice_in_its_time_and_only_while_the_loop_turns(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    environment = {
        "NOTIFY_SOCKET": path,
        "WATCHDOG_USEC": "50000",
        "WATCHDOG_PID": str(os.getpid()),
        "A": "b",
    }
    with listener(path) as link:
        supervisor = Supervisor.take_from(environment)

        async def live() -> None:
            async with asyncio.timeout(5):
                telling = asyncio.create_task(supervisor.keep_telling())
                for _ in range(3):
                    assert await asyncio.to_thread(link.recv, 4096) == b"WATCHDOG=1"
                telling.cancel()

        asyncio.run(live())
    assert environment == {"A": "b"}, "what we start is not to speak for us"


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "often"}, {"WATCHDOG_USEC": "0"}],
)
def test_nobody_who_asked_for_nothing_is_told_anything(environment: dict[str, str]) -> None:
    asyncio.run(asyncio.wait_for(Supervisor.take_from(environment).keep_telling(), 5))


def test_a_supervisor_that_is_gone_does_not_end_the_node(tmp_path: Path) -> None:
    Supervisor(str(tmp_path / "nobody")).tell("READY=1")
