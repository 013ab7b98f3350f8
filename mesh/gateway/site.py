"""What all routes of one gateway share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.access import Access
from monai_node.mesh.gateway.backend import Backend, Planned, Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.feed import Feed, Watcher
from monai_node.mesh.gateway.gate import RunGate
from monai_node.mesh.gateway.hook import Hook, Vetted, shown_to_hook, texts_shown_to_hook


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

    def feed(self, request: RunRequest, caller: Caller, runs: Runs | None = None) -> Feed:
        """The events of a run that begins when the feed is pumped; `runs` stands before the backend."""
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
