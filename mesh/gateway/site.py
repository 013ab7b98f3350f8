"""What all routes of one gateway share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.backend import Backend, Planned, Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.feed import Feed, Watcher, pumped
from monai_node.mesh.gateway.gate import RunGate
from monai_node.mesh.gateway.hook import Hook, Vetted, shown_to_hook, texts_shown_to_hook
from monai_node.registry.errors import DeadlineExceeded

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Site:
    """Every run of every face goes through one `gate`, counts for its caller's `access` and is seen by every
    watcher."""

    backend: Backend
    config: GatewayConfig
    gate: RunGate
    watchers: Sequence[Watcher] = field(default=())
    access: Access = field(default_factory=Access)
    hook: Hook | None = None

    @asynccontextmanager
    async def running(
        self, request: RunRequest, caller: Caller, runs: Runs | None = None
    ) -> AsyncGenerator[Feed]:
        """A run that goes on while this is entered, its events in the feed: it begins when there is a place
        for it, and may finish after its last event. `runs` stands before the backend. MonaiError when it
        gets no place."""
        async with self.gate.admit(caller.key):
            feed = self._feed(request, caller, runs)
            async with pumped(feed.pump(), f"run {request.run}"):
                yield feed

    async def in_turn(self, work: Coroutine[Any, Any, _T], caller: Caller, seconds: float) -> _T:
        """What `work` returns, which is no run and begins when there is a place for it; DeadlineExceeded
        when it then takes longer than `seconds`."""
        with closing(work):  # it may never begin
            async with self.gate.admit(caller.key), _within(seconds):
                return await work

    def _feed(self, request: RunRequest, caller: Caller, runs: Runs | None) -> Feed:
        seconds = request.options.deadline_seconds + self.config.grace_seconds
        watches = [watcher.watch(request, caller) for watcher in (self.access, *self.watchers)]
        runs = runs or self.backend
        return Feed(Vetted(runs, self.hook, caller) if self.hook else runs, request, seconds, watches)

    async def plan(self, request: RunRequest, caller: Caller) -> Planned:
        """The backend's plan for a request that the owner's hook lets through."""
        if self.hook is not None:
            await self.hook.allow(shown_to_hook(request, "plan", caller))
        return await self.backend.plan(request)

    async def vet(self, model: str, texts: Sequence[str | Sequence[int]], caller: Caller) -> None:
        """Returns when the owner's hook lets these texts, or the tokens of texts, be embedded."""
        if self.hook is not None:
            await self.hook.allow(texts_shown_to_hook(model, texts, caller))


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None]:
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            yield
    except TimeoutError:
        if not clock.expired():
            raise
        raise DeadlineExceeded(f"no answer within {seconds:g} seconds") from None
