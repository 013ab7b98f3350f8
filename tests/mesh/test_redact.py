from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_node.mesh.identity import Identity
from monai_node.mesh.redact import Redaction, redaction_of
from monai_node.registry.errors import SetupError
from monai_node.registry.secret import JoinLine, new_mesh

PEER = Identity(bytes(32)).peer_id


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/ip4/203.0.113.7/tcp/4001", "/ip4/ADDRESS/tcp/4001"),
        ("dialling 192.168.1.10:4001 failed", "dialling ADDRESS:4001 failed"),
        ("/ip6/2001:db8::1/tcp/1 and fe80::1", "/ip6/ADDRESS/tcp/1 and ADDRESS"),
        ("http://127.0.0.1:8642 and ::1 and 0.0.0.0", "http://127.0.0.1:8642 and ::1 and 0.0.0.0"),
        (
            "2026-11-21 20:15:00,123 llama-cpp-python: 0.3.36",
            "2026-11-21 20:15:00,123 llama-cpp-python: 0.3.36",
        ),
        ("/dns4/my-laptop.example/tcp/1", "/dns/…/tcp/1"),
        (f"peer {PEER} is gone", f"peer …{PEER[-8:]} is gone"),
        ("run run-dc628c971393a2265a9a3d2201e1fafe failed", "run run-dc628c97… failed"),
        ("Authorization: Bearer mk-abc_DEF-123", "Authorization: Bearer …"),
        ("key mk-abc_DEF-123.", "key mk-…."),
    ],
)
def test_what_is_nobodys_business_is_taken_out(text: str, shown: str) -> None:
    assert Redaction().text(text) == shown


def test_the_secrets_of_a_state_directory_are_taken_out_wherever_they_stand(tmp_path: Path) -> None:
    mesh = new_mesh()
    join = JoinLine(f"/ip4/203.0.113.7/tcp/4001/p2p/{PEER}", mesh)
    (tmp_path / "mesh.json").write_text(json.dumps({"secret": mesh.text}))
    (tmp_path / "gateway.json").write_text(
        json.dumps({"join": str(join), "key": "an-owners-key", "url": "u"})
    )
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{"id": "key-1", "digest": "d1g35t-of-a-key"}]}))
    clean = redaction_of(tmp_path)
    told = {"a": [f"x{mesh.text}y", {str(join): "an-owners-key"}], "n": 1.5, "d": "d1g35t-of-a-key"}
    shown = json.dumps(clean.value(told))
    for secret in (mesh.text, "an-owners-key", "d1g35t", "203.0"):
        assert secret not in shown
    assert clean.value({"n": 1.5, "key-1": None}) == {"n": 1.5, "key-1": None}
    with pytest.raises(SetupError, match="would hold a secret"):
        clean.check(f"… {mesh.text} …")
    clean.check(shown)


def test_a_home_and_a_state_directory_are_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr("socket.gethostname", lambda: "wonderland")
    clean = redaction_of(Path("/home/alice/.local/state/monai-node"))
    assert clean.text("/home/alice/.local/state/monai-node/nodes") == "STATE/nodes"
    assert clean.text("/home/alice/model.gguf of alice at wonderland") == "~/model.gguf of USER at HOST"
    assert clean.text("malice") == "malice"
