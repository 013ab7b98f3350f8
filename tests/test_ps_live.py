"""`ps` and `diagnostics` on real nodes: while they run, when one is killed, when all have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from live import LiveMesh, wait_until
from monai_node.mesh.state import read_json

pytestmark = [pytest.mark.processes, pytest.mark.full]

ECHO = """
from monai_node.agents import Agent

agent = Agent("echo")


@agent.skill(examples=["Say it again", "Repeat this", "Echo my words"])
def echo(text: str) -> str:
    '''Says the same again.'''
    return text
"""


def test_nodes_are_listed_while_they_run_and_told_as_stale_when_killed(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    with LiveMesh(tmp_path) as mesh:
        mesh.open_gateway("gateway", "--embedder", "gguf", "--planner", "rules")
        mesh.serve("echo", str(tmp_path / "echo.py")).wait_ready()
        mesh.wait_state("echo", "alive", 10)
        rows = {row["name"]: row for row in mesh.cli("ps", "--json").json["data"]}
        assert {name: row["state"] for name, row in rows.items()} == {"gateway": "running", "echo": "running"}
        assert rows["gateway"]["pid"] == mesh.nodes["gateway"].pid
        assert rows["gateway"]["url"] == mesh.url
        assert rows["gateway"]["running"] == rows["echo"]["running"] == 0
        assert rows["echo"]["skills"] == ["echo"]
        assert rows["echo"]["rss_bytes"] > 10 << 20
        report = mesh.cli("diagnostics")
        assert report.code == 0, report.stderr
        assert '"/ready": "200 in' in report.stdout
        assert "is alive" in report.stdout
        told = read_json(mesh.state_dir / "gateway.json") or {}
        assert str(told["join"]).rpartition("#")[2] not in report.stdout
        assert mesh.ready.peer not in report.stdout
        mesh.nodes["echo"].kill()
        wait_until(lambda: "stale" in mesh.cli("ps").stdout, 10, "a killed node is not told as such")
        assert mesh.nodes["gateway"].terminate() == 0
        assert [row["name"] for row in mesh.cli("ps", "--json").json["data"]] == ["echo"]
