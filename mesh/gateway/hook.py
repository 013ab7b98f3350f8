"""The owner's own say: a function of theirs that is shown every request before any of it is done.

    # policy.py, given as `--hook policy.py:no_secrets`
    from monai_node.mesh.gateway.hook import HookRequest, HookVerdict

    def no_secrets(request: HookRequest) -> HookVerdict | None:
        if "secret" in str((request.messages, request.tasks, request.tools)):
            return HookVerdict("this gateway's owner wants no secrets in it")
        return None

It may refuse and change nothing, neither of the request nor of the answer. Clients are told that there is
one: by `x-mesh-hook`, and at the model `mesh` in the list of models.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.errors import HookFailed, NotAllowed
from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.registry.errors import MonaiError, SetupError, log_defect
from monai_node.registry.events import RunEvent
from monai_node.registry.wire import Label

_SECONDS = 2.0  # every request waits for it
_CALLS_MAX = 8  # at once; one that does not return keeps its thread
_SENTENCE_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class HookRequest:
    """What is asked: to `run` or to `plan` something, or for an `embedding`. `messages` have `role` and
    `content`: of texts to embed, or to go on with, the text, or the ids of its tokens where those came
    instead. Those that call tools, or answer a call, have `extra` too, in JSON. `tasks` are the texts of a
    plan that came with a request, `tools` what a model is told of each tool, in JSON. `key` is the id of the
    caller's key, "" when none was needed; `privacy` None when the request does not say."""

    kind: Literal["run", "plan", "embedding"]
    model: str
    messages: tuple[dict[str, str], ...]
    tasks: tuple[str, ...] = ()
    key: str = ""
    privacy: Label | None = None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HookVerdict:
    """Refuses; `refusal` is told to the client, in one sentence."""

    refusal: str


# What it returns, or what that gives when it is awaited, is looked at: it is not our code.
HookFunction = Callable[[HookRequest], object]


class Hook:
    """Calls the owner's function, sync or async, in threads of its own. `name` is for headers."""

    def __init__(self, function: HookFunction, name: str, seconds: float = _SECONDS) -> None:
        self.name = quote(name, safe=":.")
        self._function = function
        self._seconds = seconds
        self._slots = asyncio.Semaphore(_CALLS_MAX)

    async def allow(self, request: HookRequest) -> None:
        """Returns when the request may go on; NotAllowed when the owner refuses it. A function that fails, is
        late, or returns anything else refuses too: HookFailed."""
        clock = asyncio.timeout(self._seconds)
        try:
            async with clock:
                verdict = await self._called(request)
        except Exception as error:
            # The owner's code: whatever it raises ends this request, and only it.
            late = isinstance(error, TimeoutError) and clock.expired()
            raise self._failure(TimeoutError() if late else error) from None
        if isinstance(verdict, HookVerdict):
            sentence = str(verdict.refusal)[:_SENTENCE_CHARS_MAX]
            raise NotAllowed(sentence or "this gateway's owner refuses this", code="refused_by_owner")
        if verdict is not None:
            raise self._failure(TypeError())

    def _failure(self, error: Exception) -> MonaiError:
        log_defect(f"the owner's hook {self.name}", error)
        return HookFailed(
            f"the hook {self.name} of this gateway's owner failed, and so nothing was done; the log says how"
        )

    async def _called(self, request: HookRequest) -> object:
        """What the function returns or raises. Its place is free again when it has ended, not when nobody
        waits for it any more."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def deliver(verdict: object, error: Exception | None) -> None:
            self._slots.release()
            if done.done():
                return
            if error is None:
                done.set_result(verdict)
            else:
                done.set_exception(error)

        def work() -> None:
            verdict, error = _outcome(self._function, request, self._seconds)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(deliver, verdict, error)

        # Not from a pool: its threads would be waited for when the process ends.
        threading.Thread(target=work, daemon=True, name="hook").start()
        return await done


def _outcome(function: HookFunction, request: HookRequest, seconds: float) -> tuple[object, Exception | None]:
    try:
        verdict = function(request)
        if inspect.isawaitable(verdict):
            verdict = asyncio.run(_within(verdict, seconds))
    except (Exception, SystemExit) as error:
        # A future takes neither of these two as its exception.
        is_odd = isinstance(error, SystemExit | StopIteration)
        return None, RuntimeError().with_traceback(error.__traceback__) if is_odd else error
    return verdict, None


async def _within(verdict: Awaitable[object], seconds: float) -> object:
    async with asyncio.timeout(seconds):
        return await verdict


class Vetted:
    """Runs that begin only when the owner's hook lets them."""

    def __init__(self, runs: Runs, hook: Hook, caller: Caller) -> None:
        self._runs = runs
        self._hook = hook
        self._caller = caller

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        """As those behind it; NotAllowed or HookFailed before any event."""
        await self._hook.allow(shown_to_hook(request, "run", self._caller))
        async with aclosing(self._runs.run(request)) as events:
            async for event in events:
                yield event


def shown_to_hook(request: RunRequest, kind: Literal["run", "plan"], caller: Caller) -> HookRequest:
    options = request.options
    return HookRequest(
        kind,
        request.model,
        _messages_shown(request),
        tuple(task.text for task in options.plan) if isinstance(options.plan, list) else (),
        caller.key,
        options.privacy,
        tuple(encode_json(tool).decode() for tool in request.parameters.tools),
    )


def _messages_shown(request: RunRequest) -> tuple[dict[str, str], ...]:
    if request.tokens:
        return ({"role": "user", "content": " ".join(map(str, request.tokens))},)
    return tuple(
        {"role": message.role, "content": message.content}
        | ({"extra": encode_json(message.extra).decode()} if message.extra else {})
        for message in request.messages
    )


def texts_shown_to_hook(model: str, texts: Sequence[str | Sequence[int]], caller: Caller) -> HookRequest:
    contents = (text if isinstance(text, str) else " ".join(map(str, text)) for text in texts)
    messages = tuple({"role": "user", "content": content} for content in contents)
    return HookRequest("embedding", model, messages, key=caller.key)


def load_hook(where: str) -> Hook:
    """The hook in `FILE.py:function`; SetupError when there is none. Runs the file."""
    file, _, name = where.rpartition(":")
    path = Path(file).expanduser()
    if not (file and name) or not path.is_file():
        raise SetupError(f"--hook {where}: give a Python file and a function in it, as FILE.py:function")
    spec = importlib.util.spec_from_file_location(f"monai_hook_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SetupError(f"--hook {where}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SetupError(f"--hook {where}: {path} cannot be run: {type(error).__name__}: {error}") from None
    function: object = getattr(module, name, None)
    if not callable(function):
        raise SetupError(f"--hook {where}: {path} has no function {name!r}")
    return Hook(function, f"{path.stem}:{name}")
