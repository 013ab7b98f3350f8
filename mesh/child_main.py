"""Where a child process starts: `python -m monai_node.mesh.child_main <entry> <boot json>`.

It limits itself, ties its life to its parent's, and calls `entry(channel, config)`. Nothing heavy
is imported before the limits hold.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import traceback

from monai_node.mesh.child_channel import Channel

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIGKILL = 9


def main(arguments: list[str]) -> None:
    """Limit this process, then run `entry(channel, config)` named by its dotted path."""
    entry, boot = arguments[0], json.loads(arguments[1])
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # printed text goes to the parent's log
    _die_with(boot["parent"])
    _limit(boot["memory_bytes"], boot["nice"])
    channel = Channel(socket.socket(fileno=boot["fd"]))
    try:
        module, _, name = entry.rpartition(".")
        getattr(importlib.import_module(module), name)(channel, boot["config"])
    except Exception as error:  # entry point: said to the parent before the process leaves
        traceback.print_exc()
        channel.refuse(error)
        sys.exit(1)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(0)


def _limit(memory_bytes: int | None, nice: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what users wrote
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    if nice:
        os.nice(nice)


if __name__ == "__main__":
    main(sys.argv[1:])
