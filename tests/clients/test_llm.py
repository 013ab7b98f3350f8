"""The command `llm` before a gateway, as people type it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clients.parrot import BREAKS, Gateway

pytestmark = pytest.mark.full

FUNCTIONS = """
def weather(city: str) -> str:
    "How the weather is in a city."
    return f"rain in {city}"
"""


def llm(gateway: Gateway, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "llm"),
            "openai",
            "endpoint",
            gateway.base,
            "--key",
            "none",
            *args,
        ],
        env={"PATH": os.defpath, "LLM_USER_PATH": str(folder), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_models_are_listed(gateway: Gateway, tmp_path: Path) -> None:
    assert "mesh" in llm(gateway, tmp_path, "--models").stdout.split()


@pytest.mark.parametrize("how", [(), ("--no-stream",), ("--responses",)])
def test_a_prompt_is_answered(gateway: Gateway, tmp_path: Path, how: tuple[str, ...]) -> None:
    assert llm(gateway, tmp_path, "-m", "mesh", *how, "hello there").stdout == "hello there\n"


def test_a_function_is_called_and_a_schema_kept(gateway: Gateway, tmp_path: Path) -> None:
    asked = llm(gateway, tmp_path, "-m", "mesh", "--functions", FUNCTIONS, "How is the weather?")
    assert asked.stdout == "It is rain in Oslo\n"
    assert llm(gateway, tmp_path, "-m", "mesh", "--schema", "name, people int", "?").stdout == (
        '{"name":"Oslo","people":7}\n'
    )


def test_an_answer_that_breaks_off_is_an_error_with_the_reason(gateway: Gateway, tmp_path: Path) -> None:
    asked = llm(gateway, tmp_path, "-m", "mesh", BREAKS)
    assert asked.returncode != 0
    assert "anna is gone" in asked.stderr
