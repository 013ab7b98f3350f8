"""Plan a request by the best reader there is: sources in order, each under a deadline, rules at last.

A source is a small labeller in a child process, or a large model somewhere on the mesh. When one fails
or is late the next is asked, and the rules, which cannot fail, are always there: planning ends every
request with a plan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.plan import Draft, Plan, PlannerName, begin, finish
from monai_node.agents.request import RunRequest
from monai_node.agents.segment import Segment
from monai_node.registry.errors import MonaiError
from monai_node.registry.wire import Label

_log = logging.getLogger(__name__)

# Of a request's time: whoever plans must leave the rest for the work.
PLANNING_SHARE_MAX = 0.25


@dataclass(frozen=True, slots=True)
class Source:
    """One way to plan: `seconds` is the longest it may take. `plan` is given the draft and the label
    under which it may be shown to peers; None or a MonaiError: it has no plan to offer. `takes_whole`:
    it is also asked about requests that are one task to anybody who only reads them."""

    name: PlannerName
    seconds: float
    plan: Callable[[Draft, Label], Awaitable[Plan | None]]
    takes_whole: bool = False


def labelling(
    name: PlannerName, seconds: float, read: Callable[[Sequence[Segment]], Awaitable[Reading]]
) -> Source:
    """The source that a labeller makes; `read` may raise a MonaiError."""

    async def planned(draft: Draft, _: Label) -> Plan:
        reading = await read(draft.segments)
        return await asyncio.to_thread(finish, draft, reading, name)

    return Source(name, seconds, planned)


def by_rules(draft: Draft) -> Plan:
    """The plan that the rules make; theirs is the one reading that always succeeds."""
    return finish(draft, Reading(()) if draft.whole else label_by_rules(draft.segments))


class Planner:
    """Plans requests; `sources` are asked in their order."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self._sources = tuple(sources)

    async def plan(self, request: RunRequest, label: Label) -> Plan:
        """The plan of a request, in at most PLANNING_SHARE_MAX of its time for each source.

        InvalidRequest when the conversation has no text, or when a plan that the caller sent cannot be
        run; no other error.
        """
        # In a thread: a request may be a megabyte.
        begun = await asyncio.to_thread(begin, request)
        if isinstance(begun, Plan):
            return begun
        share = request.options.deadline_seconds * PLANNING_SHARE_MAX
        for source in self._sources:
            if begun.whole is not None and not source.takes_whole:
                continue
            found = await _ask(source, begun, label, min(source.seconds, share))
            if found is not None:
                return found
        return await asyncio.to_thread(by_rules, begun)


async def _ask(source: Source, draft: Draft, label: Label, seconds: float) -> Plan | None:
    """The source's plan; None when it has none, fails or is late."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await source.plan(draft, label)
    except MonaiError as error:
        _log.warning("the planner %s failed, the next is asked: %s", source.name, error)
    except TimeoutError:
        if not limit.expired():
            raise
        _log.warning("the planner %s took longer than %.1f s, the next is asked", source.name, seconds)
    return None
