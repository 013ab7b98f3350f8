"""Asks peers canaries, tasks whose answers are known, in the background, while nobody needs the mesh.

A canary travels as any task of a user does: a peer that could tell it apart would do it well, and nothing
else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime
from random import SystemRandom

from monai_node.agents.means import Sender
from monai_node.mesh.ledger import StoredLedger
from monai_node.registry.errors import Internal, MonaiError, log_defect
from monai_node.registry.ids import new_attempt_id, new_run_id, short
from monai_node.registry.wire import Label, TaskInput, TaskRequest
from monai_node.router.canary import CanaryRota
from monai_node.router.canary_tasks import Canary, canary_of
from monai_node.router.candidate import Candidate, Standing, candidate_of
from monai_node.router.dispatch import Done
from monai_node.router.embed import Embedder
from monai_node.router.offer import Offer
from monai_node.router.outcome import Outcome

_log = logging.getLogger(__name__)

# How often it is looked whose turn it is.
_LOOK_SECONDS = 2.0
# Since the last run ended: whoever reads an answer asks the next thing within seconds.
IDLE_SECONDS = 5.0
# A peer that takes longer for a dozen words is slow, which is not asked here.
CANARY_SECONDS_MAX = 10.0
# What the peer is told to have: the time of a request that says nothing of its own.
_TOLD_SECONDS = 120.0


class Canaries:
    """Sends a canary to whoever is due, one at a time, and keeps what came of it as an outcome.

    `offers` are those that may see a request of `label` and cost nothing, with their load of this moment;
    `clock` is the dispatcher's.
    """

    def __init__(
        self,
        dispatcher: Sender,
        embedder: Embedder,
        offers: Callable[[], Sequence[Offer]],
        ledger: StoredLedger,
        label: Label,
        clock: Callable[[], float],
    ) -> None:
        self._dispatcher = dispatcher
        self._embedder = embedder
        self._offers = offers
        self._ledger = ledger
        self._label: Label = label
        self._clock = clock
        self._random = SystemRandom()  # which nobody can foresee
        self._rota = CanaryRota(self._random)
        for peer, skill, at in ledger.earlier_canaries:
            self._rota.sent(peer, skill, at)
        self._runs = 0
        self._idle_since = clock()
        self._limit: asyncio.Timeout | None = None  # of the canary that is under way

    @contextmanager
    def paused(self) -> Generator[None]:
        """While a user's run is under way: none is sent, and one that is under way is given up."""
        self._runs += 1
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())
        try:
            yield
        finally:
            self._runs -= 1
            self._idle_since = self._clock()

    async def keep_asking(self) -> None:
        """Ask whoever is due while nobody runs anything, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if not self._runs and self._clock() - self._idle_since >= IDLE_SECONDS:
                    await self.ask_next()
            except Exception as error:  # an entry point: a defect here must not end the gateway
                log_defect("a canary", error)
                return

    async def ask_next(self) -> Outcome | None:
        """Send a canary to whoever is due now; what came of it. None when nobody is, or when it says
        nothing of how well the peer does such tasks."""
        # Off the loop: thousands of offers, of which each is looked at.
        offer = await asyncio.to_thread(self._rota.due, self._offers(), time.time(), self._is_suspect)
        canary = canary_of(offer.skill, self._random) if offer is not None else None
        if offer is None or canary is None or self._runs:
            return None
        self._rota.sent(offer.peer, offer.skill.id, time.time())
        try:
            async with asyncio.timeout(CANARY_SECONDS_MAX) as self._limit:
                return await self._ask(offer, canary)
        except TimeoutError:
            _log.debug("a canary was given up: its peer is slow, or a run began")
        except MonaiError as error:
            _log.info("a canary at peer %s failed: %s", short(offer.peer), error)
        finally:
            self._limit = None
        return None

    def _is_suspect(self, offer: Offer) -> bool:
        digest = offer.model.digest if offer.model is not None else ""
        return self._ledger.estimates.is_suspect(offer.peer, offer.skill.id, digest)

    async def _ask(self, offer: Offer, canary: Canary) -> Outcome | None:
        (vector,) = await self._embedder.embed([canary.text])
        candidate = candidate_of(offer, Standing(1.0, ("a task with a known answer",)), vector)
        text = await self._answer(canary.text, candidate)
        verdict = await asyncio.to_thread(canary.check.whole, text)
        if verdict.kind == "open":
            return None
        value = 1.0 if verdict.kind == "passed" else 0.0
        outcome = Outcome(
            offer.peer, offer.skill.id, candidate.digest, value, "canary", time.time(), candidate.vector
        )
        self._ledger.keep(outcome)
        if not value:
            _log.info("%s at peer %s failed a canary", offer.skill.id, short(offer.peer))
        return outcome

    async def _answer(self, text: str, candidate: Candidate) -> str:
        request = TaskRequest(
            run=new_run_id(),
            task="t1",
            attempt=new_attempt_id(),
            skill=candidate.skill,
            model=candidate.model,
            input=TaskInput(text=text),
            remaining_ms=int(_TOLD_SECONDS * 1000),
            label=self._label,
            now=datetime.now().astimezone().isoformat(),
        )
        sending = self._dispatcher.send(request, [candidate], self._clock() + _TOLD_SECONDS)
        with self._ledger.apart(request.run):
            async with aclosing(sending) as events:
                async for event in events:
                    if isinstance(event, Done):
                        return event.text
        raise Internal("the dispatch of a canary ended without a result")
