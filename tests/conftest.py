"""Fixtures of the fault kit, for every test that breaks something on purpose."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults.checker import assert_holds
from faults.history import History
from faults.link import LinkProxy
from faults.processes import NodeProcess, StartNode


@pytest.fixture
def history(tmp_path: Path) -> Generator[History]:
    """A history on disk; the test fails at its end if what it recorded breaks a promise."""
    history = History(tmp_path / "history.jsonl")
    yield history
    assert_holds(history.records)


@pytest.fixture
def start_node(tmp_path: Path, history: History) -> Generator[StartNode]:
    """Starts node processes; their faults are in `history`, and nothing of them is left behind."""
    with ExitStack() as stack:

        def start(
            command: Sequence[str], name: str = "node", env: Mapping[str, str] | None = None
        ) -> NodeProcess:
            directory = tmp_path / name
            directory.mkdir()
            node = NodeProcess(command, directory, name=name, env=env, on_fault=history.fault)
            return stack.enter_context(node)

        yield start


@pytest.fixture
def link_to(history: History) -> Generator[Callable[[str], LinkProxy]]:
    """Opens a link to the node at a multiaddr; its faults are in `history`."""
    with ExitStack() as stack:
        yield lambda addr: stack.enter_context(LinkProxy.to_multiaddr(addr, on_fault=history.fault))
