"""Processes that start in any order and end when those they belong to have gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from faults.processes import node_command
from live import LiveMesh, wait_until

pytestmark = pytest.mark.processes

MEET_SECONDS = 8.0
END_SECONDS = 10.0  # of a process that was just started on a busy machine
ECHO = """
from monai_node.agents import Agent

agent = Agent("echo")


@agent.skill(examples=["Say it again", "Repeat this", "Echo my words"])
def echo(text: str) -> str:
    '''Says the same again.'''
    return text
"""
LOADS_LONG = "import time\n\nprint('loading', flush=True)\ntime.sleep(50)\n"


def test_a_provider_that_started_first_joins_its_gateway_when_that_appears(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    with LiveMesh(tmp_path) as mesh:
        mesh.serve("early", str(tmp_path / "echo.py")).wait_ready()
        mesh.open_gateway()
        mesh.wait_state("early", "alive", MEET_SECONDS)


def test_a_provider_whose_owner_went_away_ends_although_its_model_is_still_loading(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(LOADS_LONG)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MONAI_")}
    with subprocess.Popen(
        node_command("serve", str(tmp_path / "slow.py"), "--until-stdin-closes"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment, "MONAI_STATE_DIR": str(tmp_path / "state")},
    ) as provider:
        assert provider.stdin is not None
        try:
            # The lock is taken before the first source is loaded.
            wait_until(lambda: any((tmp_path / "state").rglob("*lock*")), END_SECONDS, "it did not start")
            provider.stdin.close()
            assert provider.wait(END_SECONDS) == 0
        finally:
            provider.kill()
