"""Examines models that may plan, one after the other, in the background, while they are idle."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from monai_node.agents.exam import Exam, Question, draft_of, is_better, questions
from monai_node.agents.plan import Draft, Plan
from monai_node.agents.writer import WRITING_SECONDS_MAX
from monai_node.mesh.marks import MarkBook
from monai_node.registry.errors import DeadlineExceeded, MonaiError, log_defect
from monai_node.registry.ids import short
from monai_node.router.offer import Offer
from monai_node.router.planners import Mark, Writer, writer_of

_log = logging.getLogger(__name__)

# How often somebody new is looked for: a glance at a local table.
_LOOK_SECONDS = 5.0
# A peer that fails during its exam so often is not examined again before we start anew.
_ATTEMPTS_MAX = 3
# Models whose exams are remembered to have begun or failed; those that were tried longest ago are forgotten.
_REMEMBERED_MAX = 1024
# Between two questions: until the peer's own load, told in its beacons, is that of others again.
_BETWEEN_SECONDS = 1.0
# A peer that others keep busy so long is examined another time.
_BUSY_SECONDS_MAX = 60.0
# Of a model that is known to plan well only the speed is measured, with the first few requests.
_SPEED_QUESTIONS = 5

PlanBy = Callable[[Offer, Draft], Awaitable[Plan | None]]
PlanLocally = Callable[[Draft], Awaitable[Plan]]


class Examiner:
    """Who plans better than the local labeller.

    `offers` are those of models that may plan, one each, with their load of this moment; `plan_by` asks
    one of them, and raises a MonaiError when it fails; `plan_locally` never fails. `clock` is monotonic.
    """

    def __init__(
        self,
        book: MarkBook,
        offers: Callable[[], Sequence[Offer]],
        plan_by: PlanBy,
        plan_locally: PlanLocally,
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._offers = offers
        self._plan_by = plan_by
        self._plan_locally = plan_locally
        self._clock = clock
        self._begun: Counter[Writer] = Counter()
        self._failed: Counter[Writer] = Counter()
        self._local: Sequence[Plan] = ()
        self._local_score: float | None = None

    def better(self) -> dict[Writer, Mark]:
        """The marks of those that plan better than the local labeller, quickly enough."""
        local = self._local_score
        if local is None:
            return {}
        marks = self.marks().items()
        return {writer: mark for writer, mark in marks if is_better(mark.score, mark.seconds, local)}

    def marks(self) -> dict[Writer, Mark]:
        """What is known of those that are reachable now."""
        return self._book.marks(self._offers(), self._local_score or 0.0)

    async def keep_examined(self) -> None:
        """Examine whoever has no mark yet, one at a time, until cancelled."""
        while True:
            try:
                if self._local_score is None:
                    await self.examine_locally()
                await self.examine_next()
            except Exception as error:  # an entry point: a defect here must not end the gateway
                log_defect("the exam", error)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def examine_next(self) -> None:
        """Examine one model that has no mark yet and is idle, if there is any."""
        offer = self._next()
        if offer is not None:
            await self.examine(offer)

    async def examine_locally(self) -> None:
        """The local labeller takes the exam, which is what the others have to beat."""
        self._local = [await self._plan_locally(draft_of(question.text)) for question in questions()]
        exam = await asyncio.to_thread(Exam, self._local)
        self._local_score = exam.local_score
        _log.info("the local planner reached %.2f in the exam", exam.local_score)

    def _next(self) -> Offer | None:
        local = self._local_score or 0.0
        waiting = [
            offer
            for offer in self._offers()
            if offer.load == 0
            and self._failed[writer_of(offer)] < _ATTEMPTS_MAX
            and self._book.mark(offer, local) is None
        ]
        # Whoever is always busy as soon as its exam has begun keeps nobody else from theirs.
        return min(waiting, key=lambda offer: self._begun[writer_of(offer)], default=None)

    async def examine(self, offer: Offer) -> None:
        """One model takes the exam, which ends early when it cannot win. What it reached is kept; when
        its peer fails or is needed by others, nothing is, and it may be tried again."""
        local = self._local_score or 0.0
        _count(self._begun, writer_of(offer))
        has_score = self._book.needs_only_speed(offer, local)
        asked = questions()[:_SPEED_QUESTIONS] if has_score else questions()
        exam = await asyncio.to_thread(Exam, self._local[: len(asked)], asked)
        try:
            async with asyncio.timeout(_seconds_max(len(asked))):
                await self._take(exam, offer, may_stop=not has_score)
        except TimeoutError:
            _log.info("the exam of %s was broken off: others need its peer", _name(offer))
            return
        except MonaiError as error:
            _count(self._failed, writer_of(offer))
            _log.info("the exam of %s was broken off: %s", _name(offer), error)
            return
        is_whole = exam.next_question is None
        await asyncio.to_thread(
            self._book.note,
            offer,
            score=None if has_score else exam.score,
            seconds=exam.median_seconds,
            beaten_by=None if is_whole else local,
        )
        _log.info("%s reached %.2f in the exam, %.1f s a plan", _name(offer), exam.score, exam.median_seconds)

    async def _take(self, exam: Exam, offer: Offer, *, may_stop: bool) -> None:
        while (question := exam.next_question) is not None and not (may_stop and exam.is_hopeless):
            await self._until_idle(offer)
            started = self._clock()
            plan = await self._answer(question, offer)
            exam.answered(plan, self._clock() - started)

    async def _answer(self, question: Question, offer: Offer) -> Plan | None:
        limit = asyncio.timeout(WRITING_SECONDS_MAX)
        try:
            async with limit:
                return await self._plan_by(offer, draft_of(question.text))
        except DeadlineExceeded:
            return None
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    async def _until_idle(self, offer: Offer) -> None:
        """Return when nobody else wants the peer; TimeoutError when somebody does for too long, or it
        has gone."""
        async with asyncio.timeout(_BUSY_SECONDS_MAX):
            while True:
                now = [each for each in self._offers() if writer_of(each) == writer_of(offer)]
                if any(each.load == 0 for each in now):
                    return
                await asyncio.sleep(_BETWEEN_SECONDS)


def _count(times: Counter[Writer], writer: Writer) -> None:
    times[writer] = times.pop(writer, 0) + 1
    while len(times) > _REMEMBERED_MAX:
        del times[next(iter(times))]


def _seconds_max(question_count: int) -> float:
    return question_count * (WRITING_SECONDS_MAX + _BUSY_SECONDS_MAX)


def _name(offer: Offer) -> str:
    return f"{offer.skill.model}@{short(offer.peer)}"
