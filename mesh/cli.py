"""The command line: `monai-node <command>`. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from monai_node.mesh.cli_parser import build_parser

if TYPE_CHECKING:
    from monai_node.registry.transport import Transport

    WrapTransport = Callable[[Transport], Transport]


def main(argv: Sequence[str] | None = None, *, wrap_transport: WrapTransport | None = None) -> int:
    """Run one command; 0 done, 1 failed with one sentence on stderr, 2 wrong usage, 130 interrupted.

    `wrap_transport` (a `Transport -> Transport`) is for fault injection by tests.
    """
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.version:
        from importlib.metadata import version

        print(f"monai-node {version('monai-node')}")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    _check(parser, options)
    try:
        status = _run(options, wrap_transport)
        sys.stdout.flush()  # here, so that a reader that has gone is noticed here
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`monai-node peers | head`): nothing to say, nobody to hear.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What argparse cannot express; exits with 2 as it does."""
    if options.command == "ask" and options.text is None and options.plan is None:
        parser.error("nothing is asked: give the request, or a plan with --plan FILE")
    if options.command == "ask" and options.plan is not None and options.no_plan:
        parser.error("--plan and --no-plan contradict each other")
    if options.command == "recipes" and (options.action == "forget") != (options.id is not None):
        parser.error("recipes forget takes the ID of one recipe; list and clear take none")


def _run(options: argparse.Namespace, wrap_transport: WrapTransport | None) -> int:
    from monai_node.registry.errors import MonaiError

    try:
        match options.command:
            case "up" | "serve" | "gateway":
                from monai_node.mesh.cli_node import run_node

                return run_node(options, wrap_transport)
            case "ps":
                from monai_node.mesh.cli_ps import run_ps

                return run_ps(options)
            case "diagnostics":
                from monai_node.mesh.diagnostics import run_diagnostics

                return run_diagnostics(options)
            case "service":
                from monai_node.mesh.service import run_service

                return run_service(options)
            case _:
                from monai_node.mesh.cli_client import run_client

                return run_client(options)
    except MonaiError as error:
        from monai_node.mesh.cli_text import one_line

        # It may quote a peer.
        print(f"monai-node: {one_line(error.message)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
