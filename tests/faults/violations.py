"""The rules that a history can break, numbered as the invariants of the design."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    # I1: every accepted request ends exactly once, well or with a reason, in time.
    ONE_END = "I1.one_end"
    IN_TIME = "I1.in_time"
    EXPLICIT_END = "I1.explicit_end"
    # I2: no stream ends cleanly when its text was cut.
    SILENT_CUT = "I2.silent_cut"
    AFTER_ERROR = "I2.after_error"
    AFTER_END = "I2.after_end"
    MALFORMED = "I2.malformed"
    # I3: a result is used once, by the attempt that is current; what is done is not done again.
    ONE_RESULT = "I3.one_result"
    CURRENT_ATTEMPT = "I3.current_attempt"
    DISPATCH_AFTER_END = "I3.dispatch_after_end"
    TEXT_AFTER_END = "I3.text_after_end"
    # I4: the plan is fixed before results are seen, and nothing is done outside it.
    PLAN_FIXED = "I4.plan_fixed"
    UNPLANNED = "I4.unplanned"
    # I5: a local task never leaves the node.
    LOCAL = "I5.local"
    # I6: a peer that failed is asked again only when it is the last candidate.
    ASKED_AGAIN = "I6.asked_again"
    # I7: a refusal for want of peers says when to try again.
    RETRY_AFTER = "I7.retry_after"
    # The order that registry.events states.
    VOCABULARY = "events.vocabulary"
    SEQUENCE = "events.sequence"
    FIRST = "events.first"
    TERMINAL = "events.terminal"
    DEPENDENCIES = "events.dependencies"


@dataclass(frozen=True, slots=True)
class Violation:
    """`where` is a request or a run; `message` one sentence."""

    rule: Rule
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule} {self.where}: {self.message}"
