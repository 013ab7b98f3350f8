from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.registry.errors import TaskFailed
from monai_node.registry.ids import AttemptId, PeerId
from monai_node.registry.wire import TOKENS_MAX, TaskCompleted, TokenLogprob
from monai_node.router.attempt import Attempt
from monai_node.router.rank import Candidate
from monai_node.router.verdict import Verdict


@dataclass(frozen=True)
class Loud:
    """A right result has no small letter."""

    held_chars: int | None

    def early(self, beginning: str) -> Verdict:
        return Verdict("failed", "not loud") if any(map(str.islower, beginning)) else Verdict("open")

    def whole(self, text: str) -> Verdict:
        return Verdict("failed", "not loud") if any(map(str.islower, text)) else Verdict("passed")


def attempt(held_chars: int | None, *, is_held: bool = True, prefix: str = "") -> Attempt:
    candidate = Candidate(PeerId("a"), "a", "chat", "tiny", is_general=True, score=1.0, reasons=())
    return Attempt(
        AttemptId("x"),
        candidate,
        2,
        started=10.0,
        prefix=prefix,
        check=Loud(held_chars),
        is_held=is_held,
    )


@given(
    texts=st.lists(st.text("Ab \n", min_size=1, max_size=8), max_size=12),
    held_chars=st.none() | st.integers(0, 20),
    is_held=st.booleans(),
)
def test_every_character_is_shown_once_in_order_or_still_held(
    texts: list[str], held_chars: int | None, is_held: bool
) -> None:
    trial, shown = attempt(held_chars, is_held=is_held), ""
    for text in texts:
        trial.take(text, 11.0)
        if trial.judge_beginning():
            break
        shown += trial.showable()
        assert not is_held or not shown or not shown.isspace()
    taken = "".join(texts)
    assert taken.startswith(shown + trial.held)
    if not is_held:
        assert shown == taken
    elif held_chars is None:
        assert shown == ""


def test_a_beginning_is_judged_once_when_there_is_enough_of_it() -> None:
    trial = attempt(3)
    judged: list[bool] = []
    for text in ("  ", "Ab", "b", "b", "b"):  # white space before the first word does not count
        trial.take(text, 11.0)
        judged.append(trial.judge_beginning())
    assert judged == [False, False, False, True, False]
    assert trial.broken().message == "not loud"


def test_what_passes_by_its_beginning_is_held_no_longer() -> None:
    class Short(Loud):
        def early(self, beginning: str) -> Verdict:
            return Verdict("passed" if "!" in beginning else "failed")

    candidate = Candidate(PeerId("a"), "a", "chat", "tiny", is_general=True, score=1.0, reasons=())
    trial = Attempt(AttemptId("x"), candidate, 1, started=0.0, prefix="", check=Short(20), is_held=True)
    shown: list[str] = []
    for text in (" ", "HO", "! ", "ho"):
        trial.take(text, 1.0)
        assert not trial.judge_beginning()
        shown.append(trial.showable())
    assert shown == ["", "", " HO! ", "ho"]


def test_an_ending_tells_what_came_when_and_what_it_is_worth() -> None:
    trial = attempt(None)
    trial.take("HO", 10.5)
    trial.completed = TaskCompleted(attempt="x", model_digest="d")
    trial.judge_whole("", None)
    ending = trial.ending(12.0)
    assert (ending.value, ending.source, ending.verdict) == (1.0, "contract", Verdict("passed"))
    assert (ending.seconds, ending.first_text_seconds, ending.chars, ending.attempts) == (2.0, 0.5, 2, 2)
    assert (ending.code, ending.digest) == ("", "d")


@pytest.mark.parametrize(
    ("text", "tokens_max", "kind"),
    [
        ("the moon is", 10, "open"),
        ("the moon is", 100, "failed"),
        ("the moon is", None, "failed"),
        ("moon " * 40, None, "open"),
        ("m", 1, "open"),
    ],
)
def test_a_result_counts_as_cut_only_where_it_is_as_long_as_it_may_be(
    text: str, tokens_max: int | None, kind: str
) -> None:
    trial = attempt(None)
    trial.take(text, 11.0)
    trial.completed = TaskCompleted(attempt="x", finish_reason="length")
    trial.judge_whole("", tokens_max)
    assert trial.verdict is not None
    assert trial.verdict.kind == kind


def test_an_attempt_that_nobody_waits_for_ends_as_cancelled_and_one_that_fails_with_its_error() -> None:
    trial = attempt(None)
    assert (trial.ending(11.0).code, trial.ending(11.0).value) == ("cancelled", None)
    trial.error = TaskFailed("broke")
    assert (trial.ending(11.0).code, trial.ending(11.0).value) == ("task_failed", 0.0)


def test_text_that_another_peer_began_is_no_evidence() -> None:
    trial = attempt(0, is_held=False, prefix="HE")
    trial.completed = TaskCompleted(attempt="x")
    trial.judge_whole("HEy", None)
    assert trial.is_broken
    assert (trial.ending(11.0).value, trial.ending(11.0).source) == (None, None)


def test_no_more_is_told_of_tokens_than_a_result_may_have_however_often_it_is_shown() -> None:
    trial, told = attempt(None, is_held=False), 0
    for _ in range(3):
        trial.take("a", 11.0, [TokenLogprob(token="a", logprob=-1.0)] * (TOKENS_MAX // 2))
        told += len(trial.release_logprobs())
    assert told == TOKENS_MAX
