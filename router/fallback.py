"""Who is asked next when an attempt failed. Pure; one `Fallback` per task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monai_node.registry.errors import (
    Abstained,
    CallerError,
    ContractBroken,
    MonaiError,
    PeerBusy,
    PeerLost,
    PeerRefused,
    PeerUnreachable,
)
from monai_node.registry.ids import PeerId
from monai_node.router.rank import Candidate

ATTEMPTS_MAX = 4
# Of them, those that a broken contract may cause. Where three results are not what was asked for, a
# fourth hardly is: the task is beyond these peers, or the contract asks for too much.
CONTRACT_RETRIES_MAX = 2

# Nothing was done yet when these were said.
_UNDONE = (PeerBusy, PeerRefused, Abstained)
# The same peer may do better a moment later. A failed engine is not asked the same again: a request
# that crashes a model must not crash it until it is quarantined.
_PASSING = (PeerLost, PeerUnreachable)
# Whoever is busy did nothing, and will have time: such answers are no attempts. With a dispatcher's pauses,
# so many of one peer take a minute.
BUSY_ANSWERS_MAX = 32


class Fallback:
    """Walks the candidates of one task, best first, at most ATTEMPTS_MAX times.

    It says who may be asked next, best first; whoever is asked of them is told to it (`asked`).
    A peer that failed is passed over while others are left; one that abstained from one skill may
    still be asked for another. Those that were busy are asked again when nobody else is left, without
    being counted. Once text was shown only a candidate that can continue it is asked. That the request
    itself is at fault is believed when two peers say so: one that lies would else end every run that
    reaches it.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._untried = list(candidates)
        self._failed_peers: set[PeerId] = set()
        self._author: Candidate | None = None
        self._attempts = 0
        self._repeats = 0
        self._busy: list[Candidate] = []  # when they were asked last; the longest ago first
        self._busy_answers = 0
        self._is_blamed = False  # a peer said that the request is at fault
        self._broken = 0

    @property
    def attempts(self) -> int:
        return self._attempts

    @property
    def untried(self) -> Sequence[Candidate]:
        return tuple(self._untried)

    def can_escalate(self, candidate: Candidate) -> bool:
        """Whether somebody else may be asked when this candidate's result is not what was asked for."""
        is_bounded = self._broken < CONTRACT_RETRIES_MAX and not self._is_over
        return is_bounded and candidate.is_idempotent and bool(self._untried)

    def showed_text(self, candidate: Candidate) -> None:
        """From here on the result is this candidate's: what follows must fit it."""
        self._author = self._author or candidate

    def first(self, is_alive: Callable[[PeerId], bool]) -> Sequence[Candidate]:
        return self._choice(self._untried, is_alive)

    def asked(self, candidate: Candidate) -> None:
        """It is asked now; also one that was asked before, beyond ATTEMPTS_MAX if need be."""
        self._attempts += 1
        self._repeats += candidate not in self._untried
        for waiting in (self._untried, self._busy):
            if candidate in waiting:
                waiting.remove(candidate)

    @property
    def repeats(self) -> int:
        """How often somebody was asked who had been asked before."""
        return self._repeats

    def after(
        self,
        candidate: Candidate,
        error: MonaiError,
        *,
        was_sent: bool,
        is_alive: Callable[[PeerId], bool],
    ) -> Sequence[Candidate]:
        """Who may be asked after this failure, best first; empty when nobody may be. `was_sent` says whether
        the request may have reached the peer."""
        is_blame = isinstance(error, CallerError) and was_sent and not self._is_blamed
        self._is_blamed = self._is_blamed or is_blame
        if isinstance(error, ContractBroken):
            if not self.can_escalate(candidate):
                return ()
            self._broken += 1
        if isinstance(error, PeerBusy):
            self._busy.append(candidate)
            self._busy_answers += 1
        if not (error.is_retryable or is_blame) or self._is_over:
            return ()
        if was_sent and not candidate.is_idempotent and not isinstance(error, _UNDONE):
            return ()
        if not isinstance(error, Abstained):
            self._failed_peers.add(candidate.peer)
        left = [other for other in self._untried if self._can_continue(other)]
        if isinstance(error, ContractBroken) and candidate.model:
            # The very model would most likely write the same again, wherever it runs.
            left.sort(key=lambda other: other.model == candidate.model)
        again = [other for other in self._busy if self._can_continue(other)]
        if is_blame:  # by another peer, or the first one would confirm itself
            left = [other for other in left if other.peer not in self._failed_peers]
            again = [other for other in again if other.peer != candidate.peer]
        if left:
            return self._choice(left, is_alive)
        if again:
            return self._by_author([other for other in again if is_alive(other.peer)] or again)
        return (candidate,) if isinstance(error, _PASSING) else ()

    @property
    def _is_over(self) -> bool:
        is_counted = self._attempts - self._busy_answers >= ATTEMPTS_MAX
        return is_counted or self._busy_answers >= BUSY_ANSWERS_MAX

    def _choice(self, left: Sequence[Candidate], is_alive: Callable[[PeerId], bool]) -> Sequence[Candidate]:
        fresh = [candidate for candidate in left if candidate.peer not in self._failed_peers]
        alive = [candidate for candidate in fresh if is_alive(candidate.peer)]
        return self._by_author(alive or fresh or left)

    def _by_author(self, choice: Sequence[Candidate]) -> Sequence[Candidate]:
        """As they stand; of those that can continue a text, with the very model that began it first."""
        author = self._author
        if author is None:
            return choice
        return sorted(choice, key=lambda candidate: candidate.model != author.model)

    def _can_continue(self, candidate: Candidate) -> bool:
        author = self._author
        if author is None or candidate.skill == author.skill:
            return True
        return bool(author.model) and candidate.model == author.model
