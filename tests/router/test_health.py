from __future__ import annotations

import pytest

from monai_node.registry.errors import (
    Abstained,
    DeadlineExceeded,
    InvalidRequest,
    MonaiError,
    PeerLost,
    PeerUnreachable,
    TaskFailed,
)
from monai_node.registry.ids import PeerId
from monai_node.router.health import FLAP_SECONDS, PROBE_SECONDS, STANDINGS_MAX, Health

A, B = PeerId("a"), PeerId("b")


def key(peer: PeerId) -> tuple[PeerId, str]:
    return peer, "chat"


def test_two_failures_in_a_row_eject_for_half_a_minute() -> None:
    health = Health()
    health.failed(A, "chat", TaskFailed("x"), now=0.0)
    assert health.cooling_seconds(A, "chat", now=0.0) == 0
    health.failed(A, "chat", TaskFailed("x"), now=0.0)
    assert health.cooling_seconds(A, "chat", now=10.0) == 20
    assert health.cooling_seconds(A, "chat", now=31.0) == 0


def test_a_peer_that_fails_at_one_skill_after_another_is_ejected_from_all() -> None:
    health = Health()
    for skill in ("a", "b"):
        health.failed(A, skill, TaskFailed("x"), now=0.0)
    assert health.cooling_seconds(A, "new", now=0.0) == 0
    health.failed(A, "c", TaskFailed("x"), now=0.0)
    assert health.cooling_seconds(A, "new", now=10.0) == 20
    assert health.cooling_seconds(B, "new", now=10.0) == 0
    health.failed(A, "d", TaskFailed("x"), now=40.0)
    assert health.cooling_seconds(A, "new", now=40.0) == 30
    health.succeeded(A, "a", 1.0)
    assert health.cooling_seconds(A, "new", now=40.0) == 0


@pytest.mark.parametrize("error", [PeerLost("x"), PeerUnreachable("x")])
def test_a_lost_peer_is_ejected_at_once(error: MonaiError) -> None:
    health = Health()
    health.failed(A, "chat", error, now=0.0)
    assert health.cooling_seconds(A, "chat", now=0.0) == 30


def test_ejections_grow_to_five_minutes_until_something_succeeds() -> None:
    health = Health()
    cooled: list[float] = []
    for _ in range(12):
        health.failed(A, "chat", PeerLost("x"), now=0.0)
        cooled.append(health.cooling_seconds(A, "chat", now=0.0))
    assert cooled[:3] == [30, 60, 90]
    assert max(cooled) == cooled[-1] == 300
    health.succeeded(A, "chat", 1.0)
    assert health.cooling_seconds(A, "chat", now=0.0) == 0
    health.failed(A, "chat", PeerLost("x"), now=0.0)
    assert health.cooling_seconds(A, "chat", now=0.0) == 30


@pytest.mark.parametrize("error", [Abstained("x"), InvalidRequest("x"), DeadlineExceeded("x")])
def test_what_is_not_the_peers_fault_is_not_counted(error: MonaiError) -> None:
    health = Health()
    for _ in range(5):
        health.failed(A, "chat", error, now=0.0)
    assert health.standing(A, "chat").failures == 0


def test_one_skill_of_a_peer_does_not_eject_another() -> None:
    health = Health()
    health.failed(A, "chat", PeerLost("x"), now=0.0)
    assert health.cooling_seconds(A, "sums", now=0.0) == 0


def test_ejection_is_ignored_when_everybody_is_ejected() -> None:
    health = Health()
    health.failed(A, "chat", PeerLost("x"), now=0.0)
    assert health.ejected([A, B], key, now=0.0) == [A]
    health.failed(B, "chat", PeerLost("x"), now=0.0)
    assert health.ejected([A, B], key, now=0.0) == []


def test_seconds_follow_the_latest_tasks() -> None:
    health = Health()
    health.succeeded(A, "chat", 10.0)
    for _ in range(20):
        health.succeeded(A, "chat", 1.0)
    assert health.standing(A, "chat").seconds == pytest.approx(1.0, abs=0.1)


def test_a_task_cut_by_its_deadline_can_only_raise_the_seconds() -> None:
    health = Health()
    health.succeeded(A, "chat", 2.0)
    health.took(A, "chat", 0.1)
    assert health.standing(A, "chat").seconds == 2.0
    health.took(A, "chat", 12.0)
    assert health.standing(A, "chat").seconds == pytest.approx(5.0)
    assert health.standing(A, "chat").failures == 0


def test_what_is_remembered_is_bounded() -> None:
    health = Health()
    for number in range(STANDINGS_MAX + 10):
        health.succeeded(PeerId(f"p{number}"), "chat", 1.0)
    assert len(health) == STANDINGS_MAX
    assert health.standing(PeerId("p0"), "chat").seconds is None


def test_a_peer_that_was_given_long_tasks_does_not_count_as_slow() -> None:
    health = Health()
    health.succeeded(A, "chat", 10.0, chars=1000)
    health.succeeded(B, "chat", 8.0, chars=400)
    a, b = health.expected_seconds(A, "chat"), health.expected_seconds(B, "chat")
    assert a is not None
    assert b is not None
    assert b == pytest.approx(2 * a)


def test_where_time_does_not_go_with_length_what_it_took_is_expected() -> None:
    health = Health()
    assert health.expected_seconds(A, "sums") is None
    health.succeeded(A, "sums", 3.0)
    assert health.expected_seconds(A, "sums") == 3.0


def test_the_length_of_a_few_results_moves_what_is_expected_within_bounds() -> None:
    health = Health()
    health.succeeded(B, "chat", 1.0, chars=100_000)
    health.succeeded(A, "chat", 1.0, chars=1)
    assert health.expected_seconds(A, "chat") == 8.0


def test_a_peer_that_has_cooled_down_gets_one_attempt_at_a_time() -> None:
    health = Health()
    health.failed(A, "chat", PeerLost("x"), now=0.0)
    assert health.cooling_seconds(A, "chat", now=31.0) == 0
    health.asked(A, "chat", now=31.0)
    assert health.cooling_seconds(A, "chat", now=32.0) == PROBE_SECONDS - 1
    assert health.cooling_seconds(A, "chat", now=31.0 + PROBE_SECONDS) == 0
    health.succeeded(A, "chat", 1.0)
    health.asked(A, "chat", now=50.0)
    assert health.cooling_seconds(A, "chat", now=50.0) == 0


def test_a_peer_that_comes_back_only_to_be_lost_again_is_ejected_for_longer_each_time() -> None:
    health = Health()
    cooled: list[float] = []
    for round_ in range(4):
        health.failed(A, "chat", PeerLost("x"), now=round_ * 60.0)
        cooled.append(health.cooling_seconds(A, "chat", now=round_ * 60.0))
        health.succeeded(A, "chat", 1.0)
    assert cooled == [30, 30, 60, 90]
    later = 180.0 + FLAP_SECONDS + 1
    health.failed(A, "chat", PeerLost("x"), now=later)
    assert health.cooling_seconds(A, "chat", now=later) == 30


def test_failing_at_one_skill_after_another_is_not_flapping() -> None:
    health = Health()
    for skill in ("a", "b"):
        health.failed(A, skill, PeerLost("x"), now=0.0)
    assert health.cooling_seconds(A, "b", now=0.0) == 30


def test_ejection_is_ignored_in_a_panic_and_not_because_two_peers_of_three_are_gone() -> None:
    health = Health()
    for peer in ("p0", "p1"):
        health.failed(PeerId(peer), "chat", PeerLost("x"), now=0.0)
    listed = [PeerId(f"p{number}") for number in range(5)]
    assert health.ejected(listed[:3], key, now=0.0) == listed[:2]
    health.failed(PeerId("p2"), "chat", PeerLost("x"), now=0.0)
    assert health.ejected(listed, key, now=0.0) == []
    assert health.ejected([*listed, A], key, now=0.0) == listed[:3]


def test_all_that_cools_down_is_listed() -> None:
    health = Health()
    health.failed(A, "chat", PeerLost("x"), now=0.0)
    for skill in ("a", "b", "c"):
        health.failed(B, skill, TaskFailed("x"), now=0.0)
    assert health.cooling(1.0) == {(A, "chat"), B}
    assert health.cooling(31.0) == frozenset()
