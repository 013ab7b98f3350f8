"""The unit that `monai-node service` prints, read by systemd itself where that is here."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from monai_node.mesh.cli import main

KINDS = ("--user", "--system")


def unit(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["service", *arguments]) == 0
    return capsys.readouterr().out


def value(text: str, name: str) -> str:
    """Of a setting that stands in it once."""
    (found,) = [line for line in text.splitlines() if line.startswith(f"{name}=")]
    return found.partition("=")[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["up", "gateway", "serve"])
def test_systemd_finds_nothing_to_say_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, role: str
) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    sources = ["--", "/srv/a model.gguf", "--name", '50% "b"'] if role == "serve" else []
    file = tmp_path / "monai-node.service"
    file.write_text(unit(capsys, kind, "--state-dir", str(tmp_path / "state"), "--role", role, *sources))
    manager = ["--user"] if kind == "--user" else []
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [analyze, *manager, "verify", "--man=no", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_told_when_the_node_is_ready_and_gives_it_time_to_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    text = unit(
        capsys, kind, "--state-dir", str(tmp_path), "--role", "gateway", "--", "--drain-seconds", "90"
    )
    parsed = configparser.ConfigParser(strict=True, interpolation=None)
    parsed.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    parsed.read_string(text)
    service = parsed["Service"]
    assert (service["Type"], service["NotifyAccess"], service["KillMode"]) == ("notify", "main", "mixed")
    assert float(service["TimeoutStopSec"]) > 90
    assert float(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"
    for name in ("NoNewPrivileges", "PrivateTmp"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["ExecStart"].endswith("gateway --drain-seconds 90")


def test_a_node_of_the_system_has_a_user_and_a_folder_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    text = unit(capsys, "--system")
    assert value(text, "DynamicUser") == "yes"
    assert value(text, "StateDirectory") == "monai-node"
    assert "MONAI_STATE_DIR=%S/monai-node" in value(text, "Environment")


def test_a_user_s_node_keeps_its_state_where_the_commands_look_for_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = tmp_path / "my state"
    text = unit(capsys, "--state-dir", str(state))
    assert value(text, "Environment") == f'"MONAI_STATE_DIR={state}"'
    assert value(text, "ReadWritePaths") == str(tmp_path), "what is not there cannot be opened to it"
    state.mkdir()
    assert value(unit(capsys, "--state-dir", str(state)), "ReadWritePaths") == f'"{state}"'


def test_files_are_named_by_their_whole_paths(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dice.py").touch()
    assert value(unit(capsys, "--role", "serve", "--", "dice.py"), "ExecStart").endswith(
        f"serve {tmp_path}/dice.py"
    )


def test_what_systemd_would_take_for_its_own_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    text = unit(capsys, "--role", "serve", "--", "/m.gguf", "--skill", 'costs 5 $ or 3 % "more"; \\o/')
    assert value(text, "ExecStart").endswith(r'--skill "costs 5 $$ or 3 %% \"more\"; \\o/"')


def test_a_secret_does_not_stand_in_a_file_that_everybody_reads(capsys: pytest.CaptureFixture[str]) -> None:
    for join in (["--join", "/ip4/1.2.3.4#s3cret"], ["--join=/ip4/1.2.3.4#s3cret"]):
        assert main(["service", "--role", "serve", "--", "m.gguf", *join]) == 1
        said = capsys.readouterr()
        assert (said.out, "s3cret" in said.err) == ("", False)
        assert "EnvironmentFile" in said.err


def test_a_command_that_could_not_start_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["service", "--role", "gateway", "--", "--no-such-option"])
    assert capsys.readouterr().out == ""
