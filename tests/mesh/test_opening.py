from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from monai_node.mesh.opening import announced
from monai_node.mesh.state import read_json

HERE = os.getpid()


def _told(name: str, pid: int = HERE) -> dict[str, object]:
    return {"url": f"http://{name}", "pid": pid}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.json"


def test_a_gateway_is_announced_while_it_runs(file: Path) -> None:
    with announced(file, _told("one")):
        assert read_json(file) == _told("one")
    assert not file.exists()


def test_the_end_of_the_first_gateway_leaves_the_second_announced(file: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(announced(file, _told("one")))
        second.enter_context(announced(file, _told("two")))
        first.close()
        assert read_json(file) == _told("two")


def test_when_the_second_gateway_ends_the_first_is_announced_again(file: Path) -> None:
    with announced(file, _told("one")):
        with announced(file, _told("two")):
            assert read_json(file) == _told("two")
        assert read_json(file) == _told("one")
    assert not file.exists()


def test_a_gateway_that_was_killed_is_not_announced_again(file: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    with ExitStack() as killed:
        killed.enter_context(announced(file, _told("one", int(process.stdout))))
        with announced(file, _told("two")):
            pass
        assert not file.exists()


def test_what_stands_there_wrongly_is_nobody_who_runs(file: Path) -> None:
    for wrong in ('{"pid": "1"}', '{"pid": -1}', '{"pid": 1e99}', "{}", f'{{"pid": {10**30}}}', "no json"):
        file.write_text(wrong)
        with announced(file, _told("one")):
            pass
        assert not file.exists(), wrong
