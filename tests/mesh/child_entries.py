"""What the children of test_child.py run: each function is an entry `(channel, config)`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from monai_node.mesh.child_channel import Channel, serve
from monai_node.registry.errors import ContextLengthExceeded, SetupError


def echo(channel: Channel, config: dict[str, Any]) -> None:
    asyncio.run(serve(channel, _handle, {"greeting": config.get("greeting", "")}))


async def _handle(op: str, payload: Any) -> AsyncGenerator[Any, None]:
    match op:
        case "count":
            for number in range(payload):
                yield {"n": number}
        case "slow":
            try:
                yield {"state": "started"}
                await asyncio.sleep(3600)
            finally:
                Path(payload).write_text("cancelled")
        case "deaf":
            yield {"state": "started"}
            time.sleep(3600)  # a handler that holds the loop cannot be cancelled
        case "raise":
            print("words for the log only")
            raise RuntimeError("secret words of a user")
        case "refuse":
            raise ContextLengthExceeded("the request is too long for this model")
        case "unsendable":
            yield {"value": object()}
        case "flood":
            while True:
                yield {"text": "x" * 100_000}
        case "die":
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), getattr(signal, payload))
        case "environment":
            yield {"value": os.environ.get(payload)}
        case _:
            raise AssertionError(op)


def refuses(channel: Channel, config: dict[str, Any]) -> None:
    raise SetupError("there is no such model")


def never_ready(channel: Channel, config: dict[str, Any]) -> None:
    time.sleep(3600)


def exits(channel: Channel, config: dict[str, Any]) -> None:
    sys.exit(3)


def garbage(channel: Channel, config: dict[str, Any]) -> None:
    """Ready like any other, then answers every call with bytes that are no frame."""
    connection = channel._connection  # pyright: ignore[reportPrivateUsage]
    channel.listen(lambda _: connection.sendall(bytes.fromhex(config["bytes"])))
    channel.ready(None)
    time.sleep(3600)


def outlives(channel: Channel, config: dict[str, Any]) -> None:
    """Never looks at its socket: only the kernel can tell it that its parent has gone."""
    Path(config["pid_file"]).write_text(str(os.getpid()))
    channel.ready(None)
    time.sleep(3600)


def hungry(channel: Channel, config: dict[str, Any]) -> None:
    bytearray(4 << 30)
    channel.ready(None)
