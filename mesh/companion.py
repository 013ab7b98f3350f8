"""The provider process beside a gateway that `up` started."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from monai_node.mesh.node import Say
from monai_node.registry.errors import SetupError
from monai_node.registry.tasks import task_scope

# What it is given to end its tasks before it is killed.
_DRAIN_SECONDS = 5.0
# Between two starts of a provider that keeps ending.
_PAUSE_SECONDS_MAX = 15.0
# A process that it started may keep stderr open after the provider itself has ended.
_LAST_WORDS_SECONDS = 0.5
# What stands before the one sentence in which a command says why it failed (mesh.cli).
_SENTENCE = "monai-node: "


class Companion:
    """The provider process that `up` starts beside its gateway, and starts again when it dies.

    It lives in a process of its own so that a request crosses the real wire, and so that a model
    cannot take the gateway with it. It ends with us: its standard input closes when we do.
    """

    def __init__(self, command: Sequence[str], join_line: str, say: Say) -> None:
        self._command = command
        self._join_line = join_line
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._last_words = ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def run(self, is_up: asyncio.Event) -> None:
        """Keep the provider running; SetupError when it cannot be started in the first place.

        Once it ran it is never given up, however often it ends: the gateway has other peers to ask, or
        says that there are none.
        """
        from monai_node.mesh.child import RestartPolicy

        policy = RestartPolicy(crashes_max=sys.maxsize, delay_seconds_max=_PAUSE_SECONDS_MAX)
        while True:
            status = await self._live(is_up)
            delay = policy.crashed(time.monotonic()) or 0.0
            if not is_up.is_set():
                why = f"the provider process ended ({status}); its log says why"
                raise SetupError(self._last_words or why)
            self._say(f"the provider process ended ({self._last_words or status}); starting it again")
            await asyncio.sleep(delay)

    async def _live(self, is_up: asyncio.Event) -> str:
        # The join line holds the secret: in the environment it is not on every user's process list.
        environment = {**os.environ, "MONAI_JOIN": self._join_line}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._process, self._last_words = process, ""
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with task_scope() as scope:
                listening = scope.start(self._pass_on(process.stderr), name="provider's words")
                async for line in process.stdout:
                    if line.startswith(b"{"):
                        self._say("the provider process is ready")
                        is_up.set()
                code = await process.wait()
                await asyncio.wait({listening}, timeout=_LAST_WORDS_SECONDS)
            return f"signal {-code}" if code < 0 else f"status {code}"
        finally:
            await _end(process)

    async def _pass_on(self, stderr: asyncio.StreamReader) -> None:
        """Show the provider's progress; keep the sentence in which it says why it ended."""
        async for raw in stderr:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if line.startswith(_SENTENCE):
                self._last_words = line.removeprefix(_SENTENCE)
            else:
                print(line, file=sys.stderr, flush=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
