"""Who could do the tasks of a plan, before anybody is asked to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from monai_node.agents.demand import demand_of
from monai_node.agents.graph import Task
from monai_node.agents.means import Routes, candidates_for
from monai_node.agents.passthrough import MESH_MODEL
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.registry.errors import MonaiError
from monai_node.registry.wire import Label
from monai_node.router.embed import Embedder
from monai_node.router.rank import Candidate
from monai_node.router.texts import cleaned

_log = logging.getLogger(__name__)

CANDIDATES_MAX = 3
# A plan is worth showing without candidates; a person waits for it.
_SECONDS = 3.0


async def candidates_of(
    plan: Plan, request: RunRequest, label: Label, routes: Routes, embedder: Embedder
) -> dict[str, Sequence[Candidate]]:
    """By the id of each task, the best who could do it; nobody when that cannot be told in time."""
    found: dict[str, Sequence[Candidate]] = {}
    limit = asyncio.timeout(_SECONDS)
    try:
        async with limit:
            if request.model == MESH_MODEL and not plan.is_passthrough:
                await _embed(plan, embedder)
            for task in plan.graph.tasks:
                found[task.id] = (await _for_task(task, plan, request, label, routes))[:CANDIDATES_MAX]
    except TimeoutError:
        if not limit.expired():
            raise
        _log.warning("who could do the tasks of a plan was not known within %g s", _SECONDS)
    return found


async def _embed(plan: Plan, embedder: Embedder) -> None:
    """All tasks at once: the routes then find every vector in the embedder's cache."""
    texts = [cleaned(task.text) for task in plan.graph.tasks if task.skill is None]
    # What goes wrong here goes wrong again in the routes, which know what to do without vectors.
    with suppress(MonaiError):
        await embedder.embed(texts)


async def _for_task(
    task: Task, plan: Plan, request: RunRequest, label: Label, routes: Routes
) -> Sequence[Candidate]:
    """Whom a run would choose among; nobody where it would fail."""
    try:
        return await candidates_for(task, plan, request, demand_of(task, plan, request, label), routes)
    except MonaiError:
        return ()
