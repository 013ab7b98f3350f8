"""A gateway that others can reach, as a process: from no key at all to a revoked one."""

from __future__ import annotations

import json
import stat
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from certificates import self_signed

from live import LiveMesh, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.model, pytest.mark.full]

HOOK = """
from monai_node.mesh.gateway.hook import HookVerdict

def no_poems(request):
    if any("poem" in message["content"] for message in request.messages):
        return HookVerdict("no poems here")
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path / "mesh") as mesh:
        yield mesh


def test_it_starts_with_a_key_only_serves_its_owner_without_one_and_nobody_with_a_revoked_one(
    mesh: LiveMesh, tmp_path: Path
) -> None:
    files = self_signed(tmp_path)
    (tmp_path / "policy.py").write_text(HOOK)
    reach = ("--host", "0.0.0.0", "--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    assert "monai-node keys create" in mesh.cli("gateway", "--port", "0", *reach).sentence
    made = mesh.cli("keys", "create", "--rate", "100/min", "--json").json

    mesh.open_gateway("gateway", *reach, "--hook", f"{tmp_path / 'policy.py'}:no_poems")
    told = mesh.state_dir / "gateway.json"
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    assert mesh.cli("peers").code == 0
    assert mesh.cli("decisions").code == 0
    assert "no poems here" in mesh.cli("ask", "Write a poem").sentence

    def models(secret: str | None) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return httpx.get(f"{mesh.url}/v1/models", headers=headers, verify=False, trust_env=False)

    assert mesh.url.startswith("https://127.0.0.1:")
    assert models(None).status_code == 401
    known = models(made["key"])
    assert known.status_code == 200
    assert known.headers["x-mesh-hook"] == "policy:no_poems"
    assert known.headers["x-ratelimit-remaining-requests"] == "99"
    assert mesh.cli("keys", "revoke", made["id"]).code == 0
    wait_until(lambda: models(made["key"]).status_code == 401, 5, "the key is still good")
    assert mesh.cli("peers").code == 0

    secrets = (made["key"], json.loads(told.read_text())["key"])
    for file in mesh.folder.rglob("*"):
        if file.is_file() and file != told:
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], file
