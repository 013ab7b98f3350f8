"""One task on its way and each attempt at it: what came of it, what of that may be shown, what is kept
to be given when nobody does better, how it ended. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from monai_node.registry.errors import ContractBroken, MonaiError
from monai_node.registry.ids import AttemptId, new_attempt_id
from monai_node.registry.wire import TOKENS_MAX, TaskCompleted, TaskRequest, TokenLogprob
from monai_node.router.fallback import Fallback
from monai_node.router.outcome import Ending, value_of
from monai_node.router.rank import Candidate
from monai_node.router.verdict import Check, Verdict

# A result that is not what was asked for is replaced only while this share of the task's time is left:
# whoever is asked next is often larger, and slower.
_ESCALATION_SHARE = 0.25
# What the way of a kept result to its reader may take.
_KEPT_SECONDS = 0.5
# Of a result that fails only as a whole, so much is looked at as it grows: it may pass by it.
_LOOKED_AT_CHARS_MAX = 256
# A result was cut at its length only if it is that long, whatever its peer says: a byte a token at least.
# Where the caller named no length, it is cut at the peer's own, and no peer's is less.
_TOKENS_MAX_USUAL = 128
# Of so few tokens not even a first character need come.
_TOKENS_WITHOUT_TEXT = 4
_CANCELLED = "cancelled"


class Attempt:
    """`number` counts from 1, `started` is a time of the caller's clock, `prefix` the text that the result
    begins with. `check` is None where nothing is judged.

    With `is_held`, text is kept back as the check wants it, and none is shown before a first word: a
    result that is white space, as a small model gives it, can then still be replaced.
    """

    def __init__(
        self,
        name: AttemptId,
        candidate: Candidate,
        number: int,
        *,
        started: float,
        prefix: str,
        check: Check | None,
        is_held: bool,
    ) -> None:
        self.name = name
        self.candidate = candidate
        self.number = number
        self.prefix = prefix
        self.started = started
        self.completed: TaskCompleted | None = None
        self.error: MonaiError | None = None
        self.verdict: Verdict | None = None
        self._check = check
        self._held_chars = check.held_chars if check is not None and is_held else 0
        self._is_open = check is None or not is_held  # everything that comes is shown
        self._texts: list[str] = []  # not shown yet
        self._logprobs: list[TokenLogprob] = []  # of the same, more or less
        self._told_count = 0  # tokens of which something was told: no result has more than TOKENS_MAX
        self._word_chars = 0  # of them, from the first word on
        self._chars = 0
        self._first_text_at: float | None = None

    @property
    def has_text(self) -> bool:
        return self._chars > 0

    @property
    def held(self) -> str:
        """What came and was not shown."""
        if len(self._texts) > 1:
            self._texts[:] = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    def take(self, text: str, now: float, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """More text of the result, as it arrives, and what is told of its tokens."""
        told = logprobs[: TOKENS_MAX - self._told_count]
        self._told_count += len(told)
        self._logprobs += told
        if self._first_text_at is None:
            self._first_text_at = now
        self._chars += len(text)
        self._texts.append(text)
        if self._word_chars or not text.isspace():
            self._word_chars += len(text)

    def judge_beginning(self) -> bool:
        """Judge the beginning as it grows, until it passes or there is enough of it; whether there is and
        it fails. What comes after it is shown unless the caller gives the attempt up."""
        if self._is_open or self._check is None or not self._word_chars:
            return False
        limit = _LOOKED_AT_CHARS_MAX if self._held_chars is None else self._held_chars
        is_enough = self._held_chars is not None and self._word_chars > limit
        is_looked_at = limit > 0 and (is_enough or self._word_chars <= limit)
        early = self._check.early(self.held) if is_looked_at else Verdict("open")
        self._is_open = is_enough or early.kind == "passed"
        if is_enough and early.kind == "failed":
            self.verdict = early
            return True
        return False

    def judge_whole(self, shown: str, tokens_max: int | None) -> None:
        """Judge the whole result, `shown` and what is still held. One that was cut at the length the
        caller asked for breaks nothing by what it lacks."""
        if self._check is None or self.completed is None:
            return
        text, limit = shown + self.held, tokens_max or _TOKENS_MAX_USUAL
        verdict = self._check.whole(text)
        if verdict.kind == "failed" and self.completed.finish_reason == "length":
            is_cut = not verdict.is_hollow and len(text.encode(errors="replace")) >= limit
            verdict = Verdict("open") if is_cut or limit <= _TOKENS_WITHOUT_TEXT else verdict
        self.verdict = verdict

    @property
    def is_broken(self) -> bool:
        return self.verdict is not None and self.verdict.kind == "failed"

    def broken(self) -> ContractBroken:
        """The failure that a result is which is not what was asked for."""
        return ContractBroken(self.verdict.why if self.verdict else "")

    def showable(self) -> str:
        """The text to show now, which is then no longer held; "" for none."""
        return self.release() if self._is_open else ""

    def release(self) -> str:
        """All that is held, which is then no longer held."""
        text = self.held
        self._texts.clear()
        return text

    def release_logprobs(self) -> tuple[TokenLogprob, ...]:
        """All that was told of tokens and goes with the text that was released."""
        told = tuple(self._logprobs)
        self._logprobs.clear()
        return told

    def ending(self, now: float) -> Ending:
        """How it ended, at the time `now`. A verdict on text that another peer began says nothing of
        either of them."""
        value, source = value_of(None if self.prefix else self.verdict, self.error)
        completed, first = self.completed, self._first_text_at
        ending = Ending(
            value=value,
            source=source,
            seconds=now - self.started,
            attempts=self.number,
            verdict=self.verdict,
            code=self.error.code if self.error else "" if completed else _CANCELLED,
            first_text_seconds=None if first is None else first - self.started,
            chars=self._chars,
        )
        if completed is None:
            return ending
        return replace(
            ending, digest=completed.model_digest, usage=completed.usage, timings=completed.timings
        )


@dataclass(slots=True)
class Progress:
    """One task on its way: what it asks, who may do it, what was shown of its result.

    `deadline` and `started` are times of the caller's clock.
    """

    request: TaskRequest
    fallback: Fallback
    deadline: float
    started: float
    check: Check | None = None
    shown: list[str] = field(default_factory=list[str])
    refusers: list[Candidate] = field(default_factory=list[Candidate])  # said that it is malformed
    kept: Attempt | None = None  # a whole result that is not what was asked for: better than none
    cut: Candidate | None = None  # given up at its beginning, which was not what was asked for

    @property
    def text(self) -> str:
        if len(self.shown) > 1:
            self.shown[:] = ["".join(self.shown)]
        return self.shown[0] if self.shown else ""

    @property
    def attempt_deadline(self) -> float:
        """Of the next attempt: what was kept must still reach its reader in time."""
        return self.deadline - (_KEPT_SECONDS if self.kept else 0.0)

    def begin(self, candidate: Candidate, now: float) -> Attempt:
        """An attempt at this candidate. Nothing is held back where nothing could replace it."""
        can_be_replaced = self.kept is not None or self.fallback.can_escalate(candidate)
        return Attempt(
            new_attempt_id(),
            candidate,
            self.fallback.attempts,
            started=now,
            prefix=self.text,
            check=self.check,
            is_held=can_be_replaced and candidate is not self.cut and not self.text,
        )

    def show(self, attempt: Attempt, text: str) -> None:
        self.shown.append(text)
        self.fallback.showed_text(attempt.candidate)

    def keep(self, attempt: Attempt) -> None:
        """Keep the first result, which is of who was thought to do best: where none satisfies what was asked
        for, that may ask for too much. One in which nothing was done gives way to any other."""
        if self.kept is None or _is_hollow(self.kept):
            self.kept = attempt

    def judge(self, attempt: Attempt) -> None:
        """Judge a whole result. One that calls a tool, where it may, has no text to judge."""
        completed = attempt.completed
        if completed is not None and not (completed.tool_calls and self.request.parameters.tools):
            attempt.judge_whole(self.text, self.request.parameters.max_tokens)

    def can_replace(self, candidate: Candidate, now: float) -> bool:
        """Whether a result of this candidate that is not what was asked for may be given up."""
        is_escalation = self.fallback.can_escalate(candidate) and self.has_time_to_escalate(now)
        return self.kept is not None or is_escalation

    def has_time_to_escalate(self, now: float) -> bool:
        return self.deadline - now >= _ESCALATION_SHARE * (self.deadline - self.started)


def _is_hollow(attempt: Attempt) -> bool:
    return attempt.verdict is not None and attempt.verdict.is_hollow
