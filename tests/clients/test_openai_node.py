"""openai-node before a gateway, installed into a folder of the test."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from clients.parrot import BREAKS, Gateway

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

SCRIPT = Path(__file__).with_name("openai_node.mjs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the client and the script."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=0", "openai@6"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, timeout=180, check=False)
    if installed.returncode != 0:
        pytest.skip("needs npm's registry, or its cache, to install openai")
    shutil.copy(SCRIPT, folder)
    return folder


def test_chat_tools_responses_embeddings_and_errors(gateway: Gateway, folder: Path) -> None:
    ran = subprocess.run(
        ["node", SCRIPT.name, gateway.base, BREAKS],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["chat"] == told["response"] == told["streamed"] == "hello there"
    assert told["deltas"] == ["hello", " there"]
    assert told["usage"] == 5
    assert told["tools"] == "It is rain in Oslo"
    assert (told["kinds"][0], told["kinds"][-1]) == ("response.created", "response.completed")
    unpacked, plain = told["embeddings"]
    assert plain == [pytest.approx(row) for row in unpacked]
    assert told["models"] == ["mesh", "parrot", "parrot@12D3KooWanna", "three-numbers"]
    assert told["unknown"] == ["NotFoundError", 404, "model_not_found", "model"]
    assert told["broken"][:2] == ["APIError", "peer_lost"]
    assert "anna is gone" in told["broken"][2]
