from __future__ import annotations

from random import Random

import pytest

from monai_node.router.drift import Drift


def turned_at(drift: Drift, values: list[float]) -> int | None:
    return next((at for at, value in enumerate(values) if drift.add(value) is not None), None)


def test_six_failures_in_a_row_of_one_that_hardly_ever_failed_are_a_turn() -> None:
    drift = Drift()
    assert turned_at(drift, [1.0] * 100) is None
    assert turned_at(drift, [0.0] * 6) == 5


def test_the_outcomes_that_show_what_it_is_like_now_are_counted() -> None:
    drift = Drift()
    for _ in range(100):
        drift.add(1.0)
    assert [drift.add(0.0) for _ in range(6)] == [None] * 5 + [6]


@pytest.mark.parametrize("chance", [0.95, 0.7, 0.3])
def test_one_that_does_as_before_does_not_turn(chance: float) -> None:
    random = Random(1)
    assert turned_at(Drift(), [float(random.random() < chance) for _ in range(5000)]) is None


@pytest.mark.parametrize(("before", "after"), [(0.95, 0.5), (0.7, 0.2)])
def test_one_that_gets_half_as_good_turns_within_forty_outcomes(before: float, after: float) -> None:
    random, drift = Random(2), Drift()
    assert turned_at(drift, [float(random.random() < before) for _ in range(200)]) is None
    found = turned_at(drift, [float(random.random() < after) for _ in range(40)])
    assert found is not None


def test_one_failure_of_one_that_hardly_ever_failed_is_suspect_until_it_does_well_again() -> None:
    drift = Drift()
    for value in [1.0] * 40:
        drift.add(value)
        assert not drift.is_suspect
    drift.add(0.0)
    assert drift.is_suspect
    drift.add(1.0)
    assert not drift.is_suspect


def test_canaries_done_well_do_not_clear_one_that_fails_at_tasks() -> None:
    drift = Drift()
    for _ in range(40):
        drift.add(1.0)
    drift.add(0.0)
    for _ in range(20):
        drift.add(1.0, is_canary=True)
    assert drift.is_suspect


def test_failures_at_tasks_and_at_canaries_add_up() -> None:
    drift = Drift()
    for _ in range(40):
        drift.add(1.0)
    assert [drift.add(0.0, is_canary=at % 2 == 0) for at in range(6)] == [None] * 5 + [6]


def test_one_failure_of_one_that_often_fails_is_no_news() -> None:
    drift = Drift()
    for value in [1.0, 1.0, 0.0] * 20 + [1.0, 1.0]:
        drift.add(value)
    drift.add(0.0)
    assert not drift.is_suspect


def test_of_a_newcomer_nothing_is_said() -> None:
    assert turned_at(Drift(), [1.0] * 5 + [0.0] * 5) is None
