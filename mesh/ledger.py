"""What becomes of every attempt of a task: learnt, kept on disk, and remembered for whoever rates it later.

Without words: a task is remembered by who did it and by the vector of what was asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from monai_node.mesh.sqlite import Unavailable
from monai_node.mesh.store import Considered, Decision, Store, open_store
from monai_node.registry.errors import ContractBroken, NotFound
from monai_node.registry.ids import AttemptId, PeerId
from monai_node.router.candidate import Candidate
from monai_node.router.embed import Vector
from monai_node.router.estimate import Estimates
from monai_node.router.outcome import Ending, Outcome

_log = logging.getLogger(__name__)

# Runs that may still be rated, and the tasks that all of them have together: 25 MB of vectors.
RUNS_MAX = 4096
TASKS_MAX = 16_384
# Ratings that count for or against one peer: whoever rates by a script cannot drown what was checked.
RATINGS_PER_HOUR_MAX = 20
_HOUR_SECONDS = 3600.0
# Peers whose ratings are counted; the one rated longest ago is forgotten first.
_RATED_PEERS_MAX = 1024
# Of a reason in words, which may quote an announced text.
_REASON_CHARS_MAX = 256

# Attempts that gave a whole result, whatever was thought of it.
_WHOLE = ("", ContractBroken.default_code)


@dataclass(frozen=True, slots=True)
class _Work:
    """What was done of a task, and by whom. `rated` is what was last said of it, as it was learnt."""

    peer: PeerId
    skill: str
    digest: str
    vector: Vector | None
    is_whole: bool
    rated: Outcome | None = None


class StoredLedger:
    """Implements `router.outcome.Ledger`: the estimates learn every outcome at once, the store has it a
    moment later. `earlier` are those that were known at the start; `now` is the wall clock, in seconds."""

    def __init__(
        self,
        store: Store,
        estimates: Estimates,
        now: Callable[[], float],
        earlier: Sequence[Outcome] = (),
    ) -> None:
        self.estimates = estimates
        # When each skill of a peer was given canaries before this start: peer, skill, wall-clock seconds.
        self.earlier_canaries = [(o.peer, o.skill, o.at) for o in earlier if o.source == "canary"]
        self._store = store
        self._now = now
        self._runs: OrderedDict[str, dict[str, _Work]] = OrderedDict()
        self._task_count = 0
        self._apart: set[str] = set()
        self._rated: OrderedDict[PeerId, deque[float]] = OrderedDict()

    @contextmanager
    def apart(self, run: str) -> Generator[None]:
        """A run that is no user's: what becomes of it is learnt, and neither told among the decisions nor
        kept for ratings."""
        self._apart.add(run)
        try:
            yield
        finally:
            self._apart.discard(run)

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        if run in self._apart:
            return
        first = candidates[0]
        considered = [_considered(candidate) for candidate in candidates]
        self._store.keep_decision(
            Decision(self._now(), run, task, attempt, first.peer, first.skill, first.model, considered)
        )

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        if run not in self._apart:
            self._store.keep_ending(run, task, attempt, ending)
        # The digest is the announced one, by which the ranking asks: what a peer says of itself afterwards
        # would let it file its bad results elsewhere.
        is_whole = ending.code in _WHOLE
        work = _Work(candidate.peer, candidate.skill, candidate.digest, candidate.vector, is_whole)
        if ending.value is not None and ending.source is not None:
            value, source, at = ending.value, ending.source, self._now()
            self.keep(Outcome(work.peer, work.skill, work.digest, value, source, at, work.vector), run, task)
        if run not in self._apart and (work.is_whole or ending.chars > 0):
            self._remember(run, task, work)

    def keep(self, outcome: Outcome, run: str = "", task: str = "") -> None:
        """Learn an outcome, now and after every start to come."""
        self.estimates.learn(outcome)
        self._store.keep_outcome(outcome, run, task)

    async def decisions(self, limit: int) -> list[Decision]:
        """The last attempts of tasks that were decided on, newest first, also those of earlier starts."""
        await self._store.flush()
        return await self._store.decisions(limit)

    def rate(self, run: str, task: str | None, rating: float) -> list[str]:
        """Take what a user says of a run, or of one of its tasks: 0 for bad to 1 for good. The tasks for
        which it counts. Rating one again takes the place of what was said of it before.

        When a run has several tasks nobody knows which of them is meant, and each has its part of the
        blame. A peer of which much was said lately is not rated. NotFound when the run is not known, or
        not any more.
        """
        works = self._runs.get(run)
        if works is None:
            raise NotFound(
                "there is no such run, or it was too long ago, or nobody did any of it",
                code="run_not_found",
                param="run",
            )
        if task is not None and task not in works:
            raise NotFound("nobody did a task of that id in this run", code="task_not_found", param="task")
        named = [task] if task is not None else list(works)
        value = 1 - (1 - rating) / len(named)
        return [name for name in named if self._rate(run, name, works, value)]

    def _rate(self, run: str, task: str, works: dict[str, _Work], value: float) -> bool:
        work = works[task]
        if work.rated is not None and work.rated.value == value:
            return True
        if not self._may_rate(work.peer):
            return False
        if work.rated is not None:
            self.estimates.forget(work.rated)
        outcome = Outcome(work.peer, work.skill, work.digest, value, "feedback", self._now(), work.vector)
        works[task] = replace(work, rated=outcome)
        self.keep(outcome, run, task)
        return True

    def _may_rate(self, peer: PeerId) -> bool:
        """Whether another rating of this peer counts, which is then counted."""
        now = self._now()
        times = self._rated.setdefault(peer, deque(maxlen=RATINGS_PER_HOUR_MAX))
        self._rated.move_to_end(peer)
        if len(self._rated) > _RATED_PEERS_MAX:
            self._rated.popitem(last=False)
        if len(times) == RATINGS_PER_HOUR_MAX and 0 <= now - times[0] < _HOUR_SECONDS:
            return False
        times.append(now)
        return True

    def _remember(self, run: str, task: str, work: _Work) -> None:
        works = self._runs.setdefault(run, {})
        before = works.get(task)
        if before is not None and before.is_whole and not work.is_whole:
            return
        self._task_count += before is None
        works[task] = work
        self._runs.move_to_end(run)
        while len(self._runs) > RUNS_MAX or self._task_count > TASKS_MAX:
            _, forgotten = self._runs.popitem(last=False)
            self._task_count -= len(forgotten)


@asynccontextmanager
async def open_ledger(path: Path, embedder: str, now: Callable[[], float]) -> AsyncGenerator[StoredLedger]:
    """A ledger that knows what the one before it, in the same file, has learnt. `embedder` is the
    fingerprint of what makes the vectors of tasks.

    SetupError when the file cannot be used. One that cannot be read is told in the log: a gateway that has
    to begin anew still answers.
    """
    async with open_store(path, embedder) as store:
        estimates, outcomes = Estimates(), list[Outcome]()
        try:
            outcomes = await store.outcomes()
        except Unavailable as error:
            _log.warning("what was learnt of peers is not known: %s", error)
        else:
            await asyncio.to_thread(_learn, estimates, outcomes)
        yield StoredLedger(store, estimates, now, outcomes)


def _learn(estimates: Estimates, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        estimates.learn(outcome)


def _considered(candidate: Candidate) -> Considered:
    return Considered(
        peer=candidate.peer,
        peer_name=candidate.peer_name,
        skill=candidate.skill,
        model=candidate.model,
        tier=candidate.tier,
        terms=candidate.terms,
        reasons=[reason[:_REASON_CHARS_MAX] for reason in candidate.reasons],
    )
