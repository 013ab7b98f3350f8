"""What is told of this user's nodes when one lives, one is dead and one does not answer."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from monai_node.mesh.cli import main
from monai_node.mesh.running import processes

KEY = "mk-owners-own-key"
SECRET = "abcdefghijklmnopqrstuvwxyz234567"
JOIN = f"/ip4/203.0.113.7/tcp/4001/p2p/12D3KooWGatewayGatewayGatewayGatewayGatewayGateway#{SECRET}"
ANSWERS = {
    "/metrics": "monai_num_requests_running 2.0\nmonai_num_requests_waiting 1.0\n",
    "/v1/peers": json.dumps(
        {
            "data": [
                {
                    "id": "p2",
                    "state": "alive",
                    "last_heard_seconds": 0.5,
                    "running": 3,
                    "queued": 4,
                    "models": [],
                    "skills": [],
                }
            ]
        }
    ),
    "/health": "{}",
    "/ready": "{}",
    "/v1/models": "{}",
}


@contextmanager
def gateway(answers: dict[str, str]) -> Generator[str]:
    """One that asks for KEY; paths that it does not know are never answered."""
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in answers:
                is_over.wait(30)
                return
            is_known = self.headers["authorization"] == f"Bearer {KEY}"
            body = answers[self.path].encode() if is_known else b"{}"
            self.send_response(200 if is_known else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - its name there

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def say(state: Path, name: str, **said: Any) -> Path:
    folder = state / "nodes" / name
    folder.mkdir(parents=True)
    me = processes().get(os.getpid())
    common = {"pid": os.getpid(), "began": me and me.began, "started": time.time() - 7200, "role": "provider"}
    (folder / "running.json").write_text(json.dumps({**common, **said}))
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_where_nothing_runs_that_is_said_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "none"
    assert "no node of yours runs here" in told(capsys, "ps", "--state-dir", str(state))
    assert json.loads(told(capsys, "ps", "--json", "--state-dir", str(state))) == {"data": []}
    assert not state.exists()


def test_the_living_the_dead_and_those_that_a_gateway_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway(ANSWERS) as url:
        (tmp_path / "gateway.json").write_text(json.dumps({"url": url, "join": JOIN, "key": KEY}))
        say(tmp_path, "gateway", role="gateway", url=url, peer="p1")
        say(tmp_path, "provider", peer="p2", skills=["dice"], models=[])
        say(tmp_path, "dead", pid=2**22 + 1)
        arguments = ("ps", "--state-dir", str(tmp_path))
        rows = {row["name"]: row for row in json.loads(told(capsys, *arguments, "--json"))["data"]}
        lines = told(capsys, *arguments).splitlines()
    assert {name: row["state"] for name, row in rows.items()} == {
        "gateway": "running",
        "provider": "running",
        "dead": "stale",
    }
    assert (rows["gateway"]["running"], rows["gateway"]["queued"]) == (2, 1)
    assert (rows["provider"]["running"], rows["provider"]["queued"]) == (3, 4)
    assert rows["provider"]["uptime_seconds"] == pytest.approx(7200, abs=60)
    assert rows["gateway"]["rss_bytes"] > 1 << 20
    dead, gateway_line, provider = lines
    assert "stale" in dead
    assert url in gateway_line
    assert "2 running, 1 queued" in gateway_line
    assert "2.0 h" in provider
    assert "dice" in provider


def test_a_gateway_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_node.mesh.cli_ps._SECONDS", 0.1)
    with gateway({}) as url:
        say(tmp_path, "gateway", role="gateway", url=url)
        assert "does not answer" in told(capsys, "ps", "--state-dir", str(tmp_path))


# --- diagnostics --------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_report_says_what_helps_and_holds_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    monkeypatch.setenv("MONAI_JOIN", JOIN)
    with gateway(ANSWERS) as url:
        (tmp_path / "gateway.json").write_text(json.dumps({"url": url, "join": JOIN, "key": KEY}))
        (tmp_path / "mesh.json").write_text(json.dumps({"secret": SECRET}))
        folder = say(
            tmp_path, "gateway", role="gateway", url=url, peer="p1", addrs=["/ip4/203.0.113.7/tcp/1"]
        )
        log = f"2026-11-21 20:15:00,000 WARNING x: {JOIN} and Bearer {KEY} at 198.51.100.9\n"
        (folder / "node.log").write_text(log)
        report = told(capsys, "diagnostics", "--state-dir", str(tmp_path), *form)
    for secret in (KEY, SECRET, "203.0.113", "198.51.100", "12D3KooW", str(tmp_path)):
        assert secret not in report
    for found in (
        "MONAI_JOIN",
        "monai-node",
        "pydantic",
        "MemTotal",
        "node.log",
        "20:15:00,000 WARNING",
        "/ready",
    ):
        assert found in report
    if form:
        parsed = json.loads(report)
        assert parsed["gateways"][0]["/metrics"].startswith("200 in ")
        assert parsed["peers"][0]["running"] == 3
        assert parsed["environment"]["MONAI_JOIN"] == "set"


def test_a_report_is_made_where_nothing_ever_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(told(capsys, "diagnostics", "--json", "--state-dir", str(tmp_path / "none")))
    assert report["nodes"] == []
    assert report["state"] == "not known (FileNotFoundError)"
    assert not (tmp_path / "none").exists()
