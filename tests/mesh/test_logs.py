from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from monai_node.mesh.logs import PrivateFileHandler, add_to_log_context, log_context, open_log
from monai_node.registry.errors import SetupError

LOG = logging.getLogger("monai_node.test_logs")


@pytest.fixture
def form() -> str:
    return "text"


@pytest.fixture
def log_file(tmp_path: Path, form: str) -> Iterator[Path]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    file = tmp_path / "node.log"
    mask = os.umask(0o022)
    try:
        open_log(file, "debug", form)
        yield file
    finally:
        os.umask(mask)
        for handler in [each for each in root.handlers if each not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.getLogger("monai_node").setLevel(logging.NOTSET)


def test_what_a_peer_says_stays_within_its_line(log_file: Path) -> None:
    LOG.warning("%s refused: %s", "peer", "no\n2026-01-01 ERROR monai_node: forged \x1b[2J\u202e")
    (line,) = log_file.read_text().splitlines()
    assert line.isprintable()
    assert "refused: no\\n2026" in line


def test_a_defect_is_located_without_its_message(log_file: Path) -> None:
    said = "what a user wrote"
    try:
        raise ValueError(said)
    except ValueError:
        LOG.exception("a handler failed")
    text = log_file.read_text()
    assert "ValueError" in text
    assert "test_logs.py" in text
    assert said not in text


def test_only_its_owner_can_read_a_log(log_file: Path) -> None:
    LOG.info("hello")
    assert stat.S_IMODE(log_file.stat().st_mode) == 0o600


def test_a_log_that_others_could_read_is_closed_to_them(log_file: Path) -> None:
    older = log_file.with_name("older.log")
    older.write_text("before\n")
    older.chmod(0o644)
    open_log(older, "debug")
    assert stat.S_IMODE(older.stat().st_mode) == 0o600


# --- as JSON ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["json"])
def test_each_line_is_an_object_with_what_it_is_about(log_file: Path) -> None:
    with log_context(request_id="req-1"):
        add_to_log_context(run="run-1")
        LOG.warning("%s refused: %s", "peer", "no\n\x1b[2J\u202e", extra={"facts": {"seconds": 0.5}})
    LOG.info("afterwards")
    first, second = log_file.read_text().splitlines()
    assert first.isascii()
    line = json.loads(first)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "warning",
        "logger": "monai_node.test_logs",
        "message": "peer refused: no\n\x1b[2J\u202e",
        "request_id": "req-1",
        "run": "run-1",
        "seconds": 0.5,
    }
    assert "run" not in json.loads(second)


@pytest.mark.parametrize("form", ["json"])
def test_an_exception_is_located_in_its_object_without_its_message(log_file: Path) -> None:
    said = "what a user wrote"
    try:
        raise ValueError(said)
    except ValueError:
        LOG.exception("a handler failed")
    line = json.loads(log_file.read_text())
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["trace"]
    assert said not in log_file.read_text()


def test_a_format_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="'yaml' is not a log format"):
        open_log(tmp_path / "node.log", "info", "yaml")


def test_a_log_that_is_full_gives_way_to_a_new_one(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = next(each for each in logging.getLogger().handlers if isinstance(each, PrivateFileHandler))
    monkeypatch.setattr(handler, "maxBytes", 1000)
    for number in range(100):
        LOG.info("line %d of many", number)
    files = sorted(log_file.parent.glob("node.log*"))
    assert len(files) == 4
    assert all(file.stat().st_size < 1200 for file in files)
    assert "line 99 of many" in log_file.read_text()
