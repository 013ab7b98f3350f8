"""The kit's judge: it names the rule that was broken, and leaves good histories alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.breakings import BREAKINGS, Breaking, edit, ends_late, places
from faults.canary import assert_no_text
from faults.checker import assert_holds, check, check_events
from faults.history import (
    GATEWAY,
    Answered,
    Candidates,
    Chunk,
    Ended,
    FaultInjected,
    Record,
    RequestStarted,
)
from faults.samples import REQUEST, RUN, SKILL, good_history, planned
from faults.violations import Rule
from monai_node.registry.events import (
    PlanTask,
    RunCreated,
    RunFailed,
    TaskContinued,
    TaskWasFailed,
)


def rules_broken(records: Sequence[Record]) -> set[Rule]:
    return {violation.rule for violation in check(records)}


good_histories = st.builds(
    good_history,
    tasks=st.integers(2, 4),
    texts=st.integers(1, 3),
    lost=st.lists(st.integers(0, 3), unique=True, max_size=2),
)


@given(good_histories)
def test_good_histories_break_nothing(records: list[Record]) -> None:
    assert check(records) == []


def test_every_rule_has_a_way_to_be_broken() -> None:
    assert {rule for rule, _ in BREAKINGS} == set(Rule)


@pytest.mark.parametrize(
    ("rule", "breaking"), [pytest.param(*each, id=each[1].__name__) for each in BREAKINGS]
)
def test_the_broken_rule_is_named(rule: Rule, breaking: Breaking) -> None:
    for seed in range(5):
        records = good_history(tasks=2, texts=2)
        breaking(records, Random(seed))
        assert rule in rules_broken(records)


@given(good_histories, st.sampled_from(BREAKINGS), st.integers(0, 1 << 16))
def test_the_broken_rule_is_named_in_any_history(
    records: list[Record], broken: tuple[Rule, Breaking], seed: int
) -> None:
    rule, breaking = broken
    breaking(records, Random(seed))
    assert rule in rules_broken(records)


def test_a_failed_run_is_an_honest_end() -> None:
    writer = planned(2)
    writer.dispatch("t0", "peer-a")
    writer.text("t0")
    writer.event(TaskWasFailed(run=RUN, task="t0", code="peer_lost", message="m"))
    writer.finish("error_event")
    assert check(writer.records) == []


def test_a_hedge_may_win_or_lose() -> None:
    for winner in ("peer-a", "peer-b"):
        writer = planned(1)
        writer.dispatch("t0", "peer-a")
        writer.dispatch("t0", "peer-b")
        writer.complete("t0", winner)
        writer.finish()
        assert check(writer.records) == []


@pytest.mark.parametrize(
    ("known", "hurt", "is_allowed"),
    [
        (["peer-a"], [], True),
        (["peer-a", "peer-b"], [], False),
        (["peer-a", "peer-b"], ["peer-b"], True),
        (["peer-a", "peer-b"], ["name of peer-b"], True),
        (["peer-a", "peer-b"], ["peer-b", "thaw peer-b"], False),
    ],
)
def test_who_failed_is_asked_again_only_as_the_last_candidate(
    known: list[str], hurt: list[str], is_allowed: bool
) -> None:
    writer = planned(2)
    writer.dispatch("t0", "peer-b")  # so that its name is known
    writer.complete("t0")
    writer.records.append(Candidates(at=0, peers={SKILL: known}))
    for target in hurt:
        what, _, peer = target.rpartition("thaw ")
        fault = FaultInjected(at=0, what="thaw" if "thaw" in target else "kill", target=peer)
        writer.records.append(fault)
        assert not what
    writer.dispatch("t1", "peer-a")
    writer.event(TaskContinued(run=RUN, task="t1", lost_peer="peer-a", error="e"))
    writer.dispatch("t1", "peer-a")
    writer.complete("t1")
    writer.finish()
    assert rules_broken(writer.records) == (set() if is_allowed else {Rule.ASKED_AGAIN})


def test_a_client_that_left_or_a_gateway_that_was_killed_is_no_violation() -> None:
    whole = good_history()
    text = places(whole, Chunk)[0]
    left = [*whole[: text + 1], Ended(at=1, request=REQUEST, how="cancelled")]
    assert check(left) == []
    killed = [
        *whole[: text + 1],
        FaultInjected(at=0.5, what="kill", target=GATEWAY),
        Ended(at=1, request=REQUEST, how="reset"),
    ]
    assert check(killed) == []
    assert rules_broken([*killed[:-2], killed[-1]]) == {Rule.EXPLICIT_END}


def test_a_run_told_again_to_a_client_that_came_back_is_one_run() -> None:
    whole = good_history()
    cut = places(whole, Chunk)[0] + 1
    first = [*whole[:cut], Ended(at=1, request=REQUEST, how="cancelled")]
    second: list[Record] = [
        record.model_copy(update={"request": "request-2"})
        for record in whole
        if not isinstance(record, Candidates)
    ]
    assert check([*first, *second]) == []
    # A task that was finished before is done anew: no replay, though the numbers would fit.
    dispatch = places(second, "task.dispatched")[0]
    edit(second, dispatch, attempt="another")
    assert Rule.SEQUENCE in rules_broken([*first, *second])


def test_a_refusal_that_says_when_to_retry_is_an_honest_end() -> None:
    records: list[Record] = [
        RequestStarted(at=0, request=REQUEST, deadline_seconds=1),
        Answered(at=0, request=REQUEST, status=503, code="no_provider", retry_after_seconds=2),
        Ended(at=0.1, request=REQUEST, how="http_error"),
    ]
    assert check(records) == []


def test_events_alone_are_judged_too() -> None:
    whole = [RunCreated(run=RUN), PlanTask(run=RUN, seq=1, task="t", text="x", depends_on=[])]
    failed = RunFailed(run=RUN, seq=2, status=503, kind="k", code="no_provider", message="m")
    assert check_events([*whole, failed]) == []
    assert {violation.rule for violation in check_events(whole)} == {Rule.TERMINAL}


def test_what_is_broken_is_listed_for_a_person() -> None:
    records = good_history()
    ends_late(records, Random(0))
    with pytest.raises(AssertionError, match=r"I1\.in_time request-1: it took 6\.1\d* s, 5 s"):
        assert_holds(records)


# --- canaries --------------------------------------------------------------------------------
CANARY = "käse-canary-4711"


@pytest.mark.parametrize(
    "leak",
    [
        f"asked: {CANARY}".encode(),
        b'{"text": "k\\u00e4se-canary-4711"}',
        b"GET /?q=k%C3%A4se-canary-4711",
        *(base64.b64encode(b"a" * n + CANARY.encode() + b"tail") for n in range(4)),
    ],
)
def test_a_canary_is_found_in_any_usual_form(tmp_path: Path, leak: bytes) -> None:
    log = tmp_path / "state" / "node.log"
    log.parent.mkdir()
    log.write_bytes(b"started\n" + leak + b"\n")
    with pytest.raises(AssertionError, match=r"leaked: .*node\.log:2"):
        assert_no_text(tmp_path, CANARY)


def test_logs_without_the_canary_pass_and_are_named(tmp_path: Path) -> None:
    (tmp_path / "stdout-1.log").write_text("ready\n")
    (tmp_path / "runs.sqlite").write_text(CANARY)  # the store may hold it
    assert assert_no_text(tmp_path, CANARY) == [tmp_path / "stdout-1.log"]


def test_searching_nothing_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    with pytest.raises(AssertionError, match="no log"):
        assert_no_text(tmp_path, CANARY)
    with pytest.raises(ValueError, match="at least"):
        assert_no_text(tmp_path, "short")
