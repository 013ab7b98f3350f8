from __future__ import annotations

from dataclasses import replace

import pytest

from monai_node.registry.ids import PeerId, new_attempt_id
from monai_node.registry.wire import Timings
from monai_node.router.candidate import Candidate
from monai_node.router.outcome import Ending
from monai_node.router.speed import COLD_AFTER_SECONDS, PACES_MAX, Measured, SpeedLedger, Speeds

_ATTEMPT = new_attempt_id()
PEER = Candidate(PeerId("a"), "a", "chat", "m", True, 1.0, (), read_chars=1000)


def ending(
    first: float, seconds: float, chars: int = 400, *, queue: float = 0.0, prefill: float = 0.0
) -> Ending:
    timings = Timings(queue_ms=queue * 1000, prefill_ms=prefill * 1000)
    return Ending(None, None, seconds, 1, first_text_seconds=first, chars=chars, timings=timings)


def measured(*endings: Ending, candidate: Candidate = PEER) -> Measured:
    """After a first task, which is a cold one, and these."""
    speeds = Speeds()
    for at, each in enumerate((ending(5.0, 9.0, prefill=4.9), *endings)):
        speeds.completed(candidate, each, float(at))
    found = speeds.of(candidate.peer, candidate.model)
    assert found is not None
    return found


def test_waiting_reading_and_writing_are_told_apart() -> None:
    found = measured(ending(1.1, 5.1, prefill=1.0))
    assert found.path == pytest.approx(0.1)
    assert found.read_char == pytest.approx(0.001)
    assert found.write_char[1] == pytest.approx(0.01)


def test_the_first_task_after_a_pause_says_nothing_of_those_after_it() -> None:
    speeds = Speeds()
    warm, cold = ending(1.1, 5.1, prefill=1.0), ending(31.1, 35.1, prefill=31.0)
    for at, each in enumerate((warm, warm, warm)):
        speeds.completed(PEER, each, float(at))
    before = speeds.of(PEER.peer, "m")
    now = 2.0 + COLD_AFTER_SECONDS + 1
    assert before is not None
    assert before.is_cold(now)
    speeds.completed(PEER, cold, now)
    after = speeds.of(PEER.peer, "m")
    assert after is not None
    assert (after.read_char, after.path) == (before.read_char, before.path)
    assert after.cold == pytest.approx(0.7 * 1.1 + 0.3 * 30.0)
    assert not after.is_cold(now + 1)


@pytest.mark.parametrize(("queue", "prefill"), [(0.0, 1e9), (1e9, 0.0), (0.0, 0.0), (1e9, 1e9)])
def test_whatever_a_peer_says_the_seconds_are_those_of_our_own_clock(queue: float, prefill: float) -> None:
    found = measured(ending(2.0, 6.0, queue=queue, prefill=prefill))
    assert found.path is not None
    spent = found.path + (found.read_char or 0.0) * PEER.read_chars
    assert spent == pytest.approx(2.0), "nothing was said to wait before"
    assert found.write_char[1] == pytest.approx(0.01)


def test_waiting_is_believed_as_far_as_the_load_that_was_told_explains_it() -> None:
    busy = replace(PEER, load=3)
    found = measured(ending(4.0, 8.0, queue=1e9), candidate=busy)
    assert found.path == pytest.approx(1.0)


def test_how_quick_it_writes_is_kept_by_how_many_tasks_there_are_at_once() -> None:
    speeds = Speeds()
    for load in (0, 1, 2, 6):
        speeds.completed(replace(PEER, load=load, slots=8), ending(1.0, 5.0 + load), 0.0)
    found = speeds.of(PEER.peer, "m")
    assert found is not None
    assert sorted(found.write_char) == [1, 2, 3]


def test_a_result_that_came_at_once_says_nothing_of_reading() -> None:
    whole = replace(ending(5.0, 5.0), timings=Timings(generate_ms=4000))
    found = measured(whole)
    assert found.read_char is None
    assert found.write_char[1] == pytest.approx(0.7 * 0.01 + 0.3 * 0.01)


def test_agents_and_attempts_that_failed_are_not_measured() -> None:
    speeds = Speeds()
    ledger = SpeedLedger(speeds, lambda: 0.0)
    ledger.ended("r", "t", _ATTEMPT, replace(PEER, model=""), ending(1.0, 2.0))
    ledger.ended("r", "t", _ATTEMPT, PEER, replace(ending(1.0, 2.0), code="peer_lost"))
    assert len(speeds) == 0
    ledger.ended("r", "t", _ATTEMPT, PEER, ending(1.0, 2.0))
    assert len(speeds) == 1


def test_what_is_remembered_is_bounded() -> None:
    speeds = Speeds()
    for number in range(PACES_MAX + 5):
        speeds.completed(replace(PEER, peer=PeerId(str(number))), ending(1.0, 2.0), 0.0)
    assert len(speeds) == PACES_MAX
    assert speeds.of(PeerId("0"), "m") is None


def test_what_is_under_way_is_counted_from_its_beginning_to_its_end() -> None:
    speeds = Speeds()
    ledger = SpeedLedger(speeds, lambda: 0.0)
    ledger.decided("r", "t1", _ATTEMPT, [PEER])
    ledger.decided("r", "t2", _ATTEMPT, [PEER])
    assert speeds.under_way(PEER.peer, "m") == 2
    ledger.ended("r", "t1", _ATTEMPT, PEER, ending(1.0, 2.0))
    ledger.ended("r", "t2", _ATTEMPT, PEER, replace(ending(1.0, 2.0), code="cancelled"))
    assert speeds.under_way(PEER.peer, "m") == 0


def test_who_serves_the_same_model_is_thought_as_quick_as_the_quickest_of_them() -> None:
    speeds = Speeds()
    assert speeds.elsewhere("m") is None
    quick, slow = replace(PEER, peer=PeerId("quick")), replace(PEER, peer=PeerId("slow"))
    speeds.completed(quick, ending(1.0, 3.0), 0.0)
    speeds.completed(slow, ending(1.0, 30.0), 1.0)
    assert speeds.elsewhere("m") == speeds.of(quick.peer, "m")
    speeds.completed(replace(PEER, peer=PeerId("quicker")), ending(1.0, 2.0), 2.0)
    assert speeds.elsewhere("m") == speeds.of(PeerId("quicker"), "m")
    assert speeds.elsewhere("other") is None
