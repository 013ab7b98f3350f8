"""`monai-node service`: a systemd unit for a node, printed and not installed.

What is forbidden to the node is what neither it nor llama.cpp, torch and libp2p need (systemd.exec(5)). Two
usual lines are missing on purpose: PrivateDevices would hide a GPU, MemoryDenyWriteExecute forbids the
callbacks that ctypes makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_node.mesh.cli_parser import build_parser
from monai_node.mesh.state import state_path
from monai_node.registry.errors import SetupError

# Over what a node leaves to its runs: it closes connections and ends its children.
_STOP_GRACE_SECONDS = 20
_SECRETS = ("--join",)

_UNIT = """\
# {install}
[Unit]
Description=monai-node {role}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Secrets, such as MONAI_JOIN=…, belong here: this file is readable by everybody.
EnvironmentFile=-{environment}
{state}
Restart=on-failure
RestartSec=2
# Loading a large model takes minutes.
TimeoutStartSec=15min
# What is under way is ended first, which the node itself does; its children are its own to end.
TimeoutStopSec={stop_seconds:.0f}
KillMode=mixed
WatchdogSec=60
# A model larger than the memory makes the whole machine slow before it fails: set what it may have.
#MemoryMax=8G
LimitNOFILE=65536
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy={target}
"""

_SYSTEM_STATE = """\
DynamicUser=yes
StateDirectory=monai-node
StateDirectoryMode=0700
CacheDirectory=monai-node
Environment=MONAI_STATE_DIR=%S/monai-node HOME=%S/monai-node XDG_CACHE_HOME=%C/monai-node
ProtectHome=read-only"""

_USER_STATE = """\
Environment={environment}
ReadWritePaths={writable}"""


def run_service(options: argparse.Namespace) -> int:
    """Print the unit; SetupError when the command in it would hold a secret, or cannot stand in one."""
    arguments = [_absolute(argument) for argument in options.arguments]
    for secret in _SECRETS:
        if any(argument.split("=")[0] == secret for argument in arguments):
            raise SetupError(
                f"{secret} holds a secret: put it into the unit's EnvironmentFile as MONAI_JOIN=…"
            )
    asked = build_parser().parse_args([options.role, *arguments])  # what cannot be meant ends here
    command = " ".join(map(_quoted, [*_program(), options.role, *arguments]))
    stop_seconds = asked.drain_seconds + _STOP_GRACE_SECONDS
    print(
        _system_unit(options.role, command, stop_seconds)
        if options.system
        else _user_unit(options, command, stop_seconds),
        end="",
    )
    return 0


def _system_unit(role: str, command: str, stop_seconds: float) -> str:
    return _UNIT.format(
        install="As /etc/systemd/system/monai-node.service; then: systemctl enable --now …",
        role=role,
        command=command,
        environment="/etc/monai-node/environment",
        state=_SYSTEM_STATE,
        stop_seconds=stop_seconds,
        target="multi-user.target",
    )


def _user_unit(options: argparse.Namespace, command: str, stop_seconds: float) -> str:
    state = state_path(options.state_dir).absolute()
    # Of what does not exist yet, its folder: a path that is not there ends the unit's start.
    writable = next(path for path in (state, *state.parents) if path.exists())
    return _UNIT.format(
        install="As ~/.config/systemd/user/monai-node.service; then: systemctl --user enable --now …",
        role=options.role,
        command=command,
        environment="%h/.config/monai-node/environment",
        state=_USER_STATE.format(
            environment=_quoted(f"MONAI_STATE_DIR={state}"), writable=_quoted(str(writable))
        ),
        stop_seconds=stop_seconds,
        target="default.target",
    )


def _program() -> Sequence[str]:
    """This installation's command: the one on somebody's PATH may be another."""
    script = Path(sys.executable).with_name("monai-node")
    return [str(script)] if script.exists() else [sys.executable, "-m", "monai_node.mesh.cli"]


def _absolute(argument: str) -> str:
    """A file that is here by its whole path: a unit starts elsewhere."""
    path = Path(argument)
    return str(path.absolute()) if not argument.startswith("-") and path.is_file() else argument


def _quoted(word: str) -> str:
    """A word of a command line as systemd.syntax(7) and systemd.service(5) read it."""
    if not word.isprintable():
        raise SetupError(f"{word!r} cannot stand in a unit; leave out what is not printable")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    is_plain = word and not set(word) & set(" \t'\";\\")
    return escaped if is_plain else f'"{escaped}"'
