"""Keys on disk: made, found, revoked, shared by processes, and never kept themselves."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from monai_node.mesh.cli import main
from monai_node.mesh.keys import KEYS_MAX, AccessKey, KeyFile, digest_of, matching, new_key
from monai_node.registry.errors import SetupError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_by_itself_alone_and_is_in_no_file(path: Path) -> None:
    key, secret = new_key(1.0, name="laptop")
    file = KeyFile(path)
    file.add(key)
    file.add(new_key(2.0)[0])
    known = file.keys()
    assert matching(known, secret) == key
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), key.digest, key.id, "mk-é\udcff"):
        assert matching(known, wrong) is None
    kept = path.read_text()
    assert secret not in kept
    assert secret.removeprefix("mk-") not in kept
    assert digest_of(secret) not in repr(key)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {0o600}


def test_keys_are_256_random_bits() -> None:
    secrets = {new_key(0.0)[1] for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {len("mk-") + 43}  # 32 bytes in base64url


def test_a_revoked_key_is_gone_for_every_reader_and_an_unknown_one_is_said_to_be(path: Path) -> None:
    file, other = KeyFile(path), KeyFile(path)
    key, secret = new_key(0.0)
    file.add(key)
    assert matching(other.keys(), secret)
    assert other.revoke(key.id) == key
    assert file.keys() == ()
    with pytest.raises(SetupError, match="there is no key 'key-00000000'"):
        file.revoke("key-00000000")


def test_keys_made_at_once_are_all_kept(path: Path) -> None:
    made = [new_key(float(n))[0] for n in range(20)]
    threads = [threading.Thread(target=KeyFile(path).add, args=(key,)) for key in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    kept = KeyFile(path).keys()
    assert {key.id for key in kept} == {key.id for key in made}


def test_there_is_a_most_keys(path: Path) -> None:
    keys = [new_key(0.0)[0].model_dump(mode="json") for _ in range(KEYS_MAX)]
    path.write_text(json.dumps({"keys": keys}))
    with pytest.raises(SetupError, match="revoke one"):
        KeyFile(path).add(new_key(0.0)[0])


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"keys": 1}', '{"keys": [{}]}', '{"keys": [], "more": 1}', "[" * 100_000, "\0" * 64],
)
def test_a_damaged_file_is_set_aside_and_opens_for_nobody(path: Path, content: str) -> None:
    path.write_text(content)
    assert KeyFile(path).keys() == ()
    assert not path.exists()
    assert path.with_name("keys.json.corrupt-1").read_text() == content


def test_a_file_that_cannot_be_read_is_an_error_and_not_no_keys(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SetupError, match="cannot be used"):
        KeyFile(path).keys()


def test_a_key_expires_at_its_time() -> None:
    key = new_key(0.0, expires=10)[0]
    assert [key.is_expired(now) for now in (9.9, 10.0)] == [False, True]
    assert not new_key(0.0)[0].is_expired(1e12)


# --- the command line ----------------------------------------------------------------------------------
def _run(capsys: pytest.CaptureFixture[str], state: Path, *words: str) -> tuple[int, str, str]:
    status = main(["keys", *words, "--state-dir", str(state)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_create_shows_the_key_once_and_list_never(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wanted = ("--name", "lab\x1b[2J", "--rate", "60/min", "--tokens", "5000/day", "--expires", "2")
    status, told, _ = _run(capsys, tmp_path, "create", *wanted, "--right", "chat", "--right", "admin")
    secret, line, last = told.splitlines()
    assert status == 0
    assert "admin and chat, 60 requests a minute, 5000 tokens a day, until" in line
    assert "\x1b" not in told
    assert "only time" in last
    (key,) = KeyFile(tmp_path / "keys.json").keys()
    assert matching([key], secret) is key
    assert key.expires == key.created + 2 * 86400
    _, listed, _ = _run(capsys, tmp_path, "list")
    assert key.id in listed
    assert secret not in listed
    assert key.digest not in listed


def test_where_no_state_is_there_is_no_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there is no key yet" in _run(capsys, tmp_path / "none", "list")[1]
    assert not (tmp_path / "none").exists()
    assert "there is no key 'key-1'" in _run(capsys, tmp_path / "none", "revoke", "key-1")[2]


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = json.loads(_run(capsys, tmp_path, "create", "--json")[1])
    assert made["rights"] == ["chat"]
    (listed,) = json.loads(_run(capsys, tmp_path, "list", "--json")[1])["keys"]
    assert listed == {field: made[field] for field in made if field != "key"}
    assert set(listed) == set(AccessKey.model_fields) - {"digest"}
    assert json.loads(_run(capsys, tmp_path, "revoke", made["id"], "--json")[1]) == {"revoked": made["id"]}
    assert json.loads(_run(capsys, tmp_path, "list", "--json")[1]) == {"keys": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--rate", "0"), "--rate 0: give a whole number above 0, as in 60/min"),
        (("create", "--rate", "60/day"), "--rate 60/day"),
        (("create", "--tokens", "1e9"), "--tokens 1e9"),
        (("create", "--expires", "0"), "--expires 0"),
        (("create", "--expires", "nan"), "--expires nan"),
        (("create", "--name", "x" * 65), "--name"),
        (("revoke", "key-1"), "there is no key 'key-1'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    status, out, err = _run(capsys, tmp_path, *words)
    assert (status, out) == (1, "")
    assert said in err
    assert not (tmp_path / "keys.json").exists() or KeyFile(tmp_path / "keys.json").keys() == ()
