"""A gateway before the page, whose runs a test directs event by event."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from playwright.sync_api import Page

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.backend import ModelEntry, PeerView
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.testing import ScriptedBackend, completed, provenance
from monai_node.registry.events import (
    AnswerDelta,
    PlanTask,
    Provenance,
    RunCreated,
    RunEvent,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasAccepted,
    TaskWasCompleted,
)

WAIT_SECONDS = 15.0
PEERS = {name: f"12D3KooWpeer{name}" for name in ("anna", "bert", "cleo")}


@dataclass(slots=True)
class _Stage(ScriptedBackend):
    """A backend whose runs last until their test ends them."""

    peer_views: list[PeerView] = field(default_factory=list[PeerView])
    loop: asyncio.AbstractEventLoop | None = None
    lines: asyncio.Queue[RunEvent | None] = field(default_factory=asyncio.Queue[RunEvent | None])
    begun: queue.Queue[RunRequest] = field(default_factory=queue.Queue[RunRequest])

    def peers(self) -> Sequence[PeerView]:
        return self.peer_views

    async def play(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        self.lines = asyncio.Queue()
        self.ended.clear()
        self.begun.put(request)
        yield RunCreated(run=request.run)
        while (event := await self.lines.get()) is not None:
            yield event


class Stage:
    """A gateway in a thread of its own, and the words in which a test directs its runs."""

    def __init__(self, access: Access | None = None) -> None:
        self.backend = _Stage(entries=[ModelEntry("smollm2", PEERS["anna"], "anna")])
        self.backend.script = self.backend.play
        self.backend.peer_views = [
            PeerView(peer, name, "alive", models=["smollm2"], skills=["chat"], last_heard_seconds=1.0)
            for name, peer in PEERS.items()
        ]
        self.url = ""
        self.request: RunRequest
        self._access = access
        self._parts: dict[str, Provenance] = {}
        self._words: dict[str, str] = {}
        self._spoke = ""  # whose text the answer ends with
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._stop.set)
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self.backend.loop = asyncio.get_running_loop()
        app = create_app(self.backend, access=self._access)
        async with open_server(app, "127.0.0.1", 0, drain_seconds=1) as address:
            self.url = address.url
            self._ready.set()
            await self._stop.wait()

    def _in_loop(self, call: Callable[[], object]) -> None:
        assert self.backend.loop is not None
        self.backend.loop.call_soon_threadsafe(call)

    # --- directing ----------------------------------------------------------------------------------------
    def wait_run(self) -> RunRequest:
        """The request of the next run that begins."""
        self.request = self.backend.begun.get(timeout=WAIT_SECONDS)
        self._parts.clear()
        self._spoke = ""
        return self.request

    def say(self, *events: RunEvent | None) -> None:
        for event in events:
            self._in_loop(lambda event=event: self.backend.lines.put_nowait(event))

    def plan(self, *tasks: tuple[str, str, list[str]], hidden: Sequence[str] = ()) -> None:
        self._words = {task: words for task, words, _ in tasks}
        self.say(
            *(
                PlanTask(run=self.run, task=task, text=text, depends_on=needs, is_shown=task not in hidden)
                for task, text, needs in tasks
            )
        )

    def send(self, task: str, name: str) -> None:
        attempt = f"{task}-{name}"
        sent = TaskDispatched(
            run=self.run,
            task=task,
            attempt=attempt,
            skill="chat",
            peer=PEERS[name],
            peer_name=name,
            model="smollm2",
            reasons=["fits 0.93", f"{name} is the quickest"],
        )
        self.say(sent, TaskWasAccepted(run=self.run, task=task, attempt=attempt, position=0))

    def lose(self, task: str, name: str) -> None:
        self.say(TaskContinued(run=self.run, task=task, lost_peer=PEERS[name], error=f"{name} was lost"))

    def text(self, task: str, text: str, *, is_shown: bool = True) -> None:
        """A task's result grows, and the answer with it unless it waits or is not shown."""
        self.say(TaskText(run=self.run, task=task, text=text))
        if is_shown:
            self.answer(task, text)

    def answer(self, task: str, text: str) -> None:
        if self._spoke not in ("", task):
            self.say(AnswerDelta(run=self.run, text="\n\n"))
        self._spoke = task
        self.say(AnswerDelta(run=self.run, task=task, text=text))

    def done(self, task: str, name: str, **fields: Any) -> None:
        own = {"text": self._words[task], "peer": PEERS[name], **fields}
        self._parts[task] = provenance(task, peer_name=name).model_copy(update=own)
        self.say(TaskWasCompleted(run=self.run, task=task, provenance=self._parts[task]))

    def finish(self) -> None:
        self.say(completed(self.run, *self._parts.values()), None)

    def tell(self, text: str) -> None:
        """A whole run of one task, which gives this text."""
        self.wait_run()
        self.plan(("t1", "say it", []))
        self.send("t1", "anna")
        self.text("t1", text)
        self.done("t1", "anna")
        self.finish()

    def wait_end(self) -> None:
        """Until the run's iterator is closed: nobody reads it any more."""
        assert self.backend.loop is not None
        ended = asyncio.wait_for(self.backend.ended.wait(), WAIT_SECONDS)
        asyncio.run_coroutine_threadsafe(ended, self.backend.loop).result(WAIT_SECONDS + 1)

    @property
    def run(self) -> str:
        return self.request.run


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
