"""Plan a request by the best reader there is: sources in order, each under a deadline, rules at last.

A source is a small labeller in a child process, or a large model somewhere on the mesh. When one fails
or is late the next is asked, and the rules, which cannot fail, are always there: planning ends every
request with a plan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from monai_node.agents.demand import policy_of
from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.plan import Draft, Plan, PlannerName, begin, finish
from monai_node.agents.request import RunRequest
from monai_node.agents.segment import Segment
from monai_node.registry.errors import MonaiError
from monai_node.registry.wire import ChatMessage, Label
from monai_node.router.policy import Policy

_log = logging.getLogger(__name__)

# Of a request's time, for each source and for all of them: the rest is left for the work.
SOURCE_SHARE_MAX = 0.25
PLANNING_SHARE_MAX = 0.5


@dataclass(frozen=True, slots=True)
class Source:
    """One way to plan: `seconds` is the longest it may take. `plan` is given the draft and the policy
    under which it may be shown to peers; None or a MonaiError: it has no plan to offer. `takes_whole`:
    it is also asked about requests that are one task to anybody who only reads them."""

    name: PlannerName
    seconds: float
    plan: Callable[[Draft, Policy], Awaitable[Plan | None]]
    takes_whole: bool = False


# What a plan in words becomes when more is known than words; returns it as it is when that says nothing.
Refine = Callable[[Draft, Plan, Policy], Awaitable[Plan]]
# Who read words and nothing but words, if anybody had to.
_READERS: tuple[PlannerName | None, ...] = ("rules", "small", "lora", None)
_REFINING_SECONDS = 3.0
# A conversation this short is begun in 1.3 ms of processor time, and as one task planned in less: what
# handing it to a thread and back takes while other requests are served. A longer one may be a megabyte.
_SHORT_CHARS = 500


def _tell_nobody(_: str) -> None: ...


def labelling(
    name: PlannerName, seconds: float, read: Callable[[Sequence[Segment]], Awaitable[Reading]]
) -> Source:
    """The source that a labeller makes; `read` may raise a MonaiError."""

    async def planned(draft: Draft, _: Policy) -> Plan:
        reading = await read(draft.segments)
        return await asyncio.to_thread(finish, draft, reading, name)

    return Source(name, seconds, planned)


def by_rules(draft: Draft) -> Plan:
    """The plan that the rules make; theirs is the one reading that always succeeds."""
    return finish(draft, Reading(()) if draft.whole else label_by_rules(draft.segments))


class Planner:
    """Plans requests; `sources` are asked in their order, and what was read in the words alone is given
    to `refine`."""

    def __init__(self, sources: Sequence[Source] = (), refine: Refine | None = None) -> None:
        self._sources = tuple(sources)
        self._refine = refine

    async def plan(
        self, request: RunRequest, label: Label, foresee: Callable[[str], None] = _tell_nobody
    ) -> Plan:
        """The plan of a request, in at most PLANNING_SHARE_MAX of its time. `foresee` is told the text of a
        request that is one task to anybody who only reads it, as soon as that is plain: nearly always the
        plan's only task.

        InvalidRequest when the conversation has no text, or when a plan that the caller sent cannot be
        run; no other error.
        """
        allowance = _Allowance(request.options.deadline_seconds, asyncio.get_running_loop().time)
        is_short = _is_short(request.messages)
        begun = begin(request) if is_short else await asyncio.to_thread(begin, request)
        if isinstance(begun, Plan):
            return begun
        if begun.whole is not None:
            foresee(begun.text)
        policy = policy_of(request, label)
        found = await self.read(begun, policy, allowance.seconds)
        seconds = allowance.seconds(_REFINING_SECONDS)
        if self._refine is None or found.planner not in _READERS or not seconds:
            return found
        return await _within(seconds, "by types", self._refine(begun, found, policy)) or found

    async def read(
        self, draft: Draft, policy: Policy, allowed: Callable[[float], float] = lambda wanted: wanted
    ) -> Plan:
        """The plan of the first source that has one, else the rules'; no error. `allowed` says how many
        of the seconds that a source wants it may have; 0: it is not asked."""
        for source in self._sources:
            seconds = allowed(source.seconds)
            if not seconds or (draft.whole is not None and not source.takes_whole):
                continue
            found = await _within(seconds, source.name, source.plan(draft, policy))
            if found is not None:
                return found
        if draft.whole is not None and len(draft.text) <= _SHORT_CHARS and _is_short(draft.earlier):
            return by_rules(draft)
        return await asyncio.to_thread(by_rules, draft)


def _is_short(messages: Iterable[ChatMessage]) -> bool:
    return sum(len(message.content) for message in messages) <= _SHORT_CHARS


class _Allowance:
    """What planning may take of the time of one request."""

    def __init__(self, deadline_seconds: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._share = deadline_seconds * SOURCE_SHARE_MAX
        self._end = clock() + deadline_seconds * PLANNING_SHARE_MAX

    def seconds(self, wanted: float) -> float:
        """What the next may take that wants so many; 0 when nothing is left."""
        return max(0.0, min(wanted, self._share, self._end - self._clock()))


async def _within(seconds: float, name: str, planning: Awaitable[Plan | None]) -> Plan | None:
    """The plan; None when there is none, or whoever makes it fails or is late."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await planning
    except MonaiError as error:
        # What a peer says may quote the request, which no log may.
        said = error.code if name == "model" else error
        _log.warning("the planner %s failed, the next is asked: %s", name, said)
    except TimeoutError:
        if not limit.expired():
            raise
        _log.warning("the planner %s took longer than %.1f s, the next is asked", name, seconds)
    return None
