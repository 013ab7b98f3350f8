"""A real node with faults: `python -m faults.provider_main --fault kill:delta:5 -- serve …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from faults.frames import faulty_transport, parse_fault
from monai_node.registry.transport import Transport


class NodeMain(Protocol):
    """The node's command line, as `monai_node.mesh.cli.main`."""

    def __call__(
        self,
        argv: list[str],
        /,
        *,
        wrap_transport: Callable[[Transport], Transport] | None = None,
    ) -> int | None: ...


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The kit's options and the node's, which stand after the first `--`."""
    arguments = list(argv)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def run(argv: Sequence[str], node_main: NodeMain) -> int:
    """Run the node under the faults named on the command line; the node's exit status."""
    ours, node_arguments = split_arguments(argv)
    parser = argparse.ArgumentParser(prog="python -m faults.provider_main")
    parser.add_argument("--fault", action="append", default=[], metavar="ACTION:FRAME:N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(ours)
    try:
        faults = [parse_fault(text) for text in cast(list[str], options.fault)]
    except ValueError as error:
        parser.error(str(error))
    wrap = faulty_transport(faults, seed=cast(int, options.seed))
    return node_main(node_arguments, wrap_transport=wrap) or 0


def main() -> int:
    """The command line of this module."""
    from monai_node.mesh.cli import main as node_main

    return run(sys.argv[1:], node_main)


if __name__ == "__main__":
    sys.exit(main())
