"""A node with the bundled model lives within the system calls that its unit leaves to it."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from faults.processes import NodeProcess, node_command
from live import run_cli
from monai_node.mesh.cli import main

pytestmark = [pytest.mark.processes, pytest.mark.full, pytest.mark.model]

_NO_NEW_PRIVS = 38  # prctl(2)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # seccomp.h


def _calls(group: str) -> Generator[str]:
    """The system calls of one of systemd's groups, those that it is made of among them."""
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True
    )
    for line in told.stdout.splitlines():
        name = line.strip()
        if line.startswith(" ") and name.startswith("@"):
            yield from _calls(name)
        elif line.startswith(" ") and name and not name.startswith("#"):
            yield name


def run_filtered(calls: list[str], command: list[str]) -> None:
    """Become `command`, to which every other call than these is refused, as to a unit."""
    seccomp, libc = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_ERRNO | errno.EPERM))
    for name in calls:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            assert seccomp.seccomp_rule_add(context, _ALLOW, number, 0) == 0
    assert libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert seccomp.seccomp_load(context) == 0
    os.execv(command[0], command)


def test_what_the_unit_forbids_is_needed_by_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("systemd-analyze") is None or ctypes.util.find_library("seccomp") is None:
        pytest.skip("systemd-analyze or libseccomp is not here")
    assert main(["service", "--system"]) == 0
    unit = capsys.readouterr().out
    assert "SystemCallFilter=@system-service\nSystemCallErrorNumber=EPERM\n" in unit
    calls = sorted(set(_calls("@system-service")))
    assert "mmap" in calls
    assert "mount" not in calls
    command = [sys.executable, __file__, ",".join(calls), *node_command("up", "--port", "0", "--json")]
    state = tmp_path / "state"
    state.mkdir()
    with NodeProcess(command, tmp_path, env={"MONAI_STATE_DIR": str(state)}) as node:
        node.wait_ready(110)
        assert Path(f"/proc/{node.pid}/status").read_text().count("Seccomp:\t2") == 1
        answer = run_cli(
            "ask", "What is 37 * 49, and write a line about rivers", "--json", state_dir=state
        ).json
        assert "1813" in answer["answer"]
        assert len(answer["parts"]) == 2
        assert node.terminate() == 0


if __name__ == "__main__":
    run_filtered(sys.argv[1].split(","), sys.argv[2:])
