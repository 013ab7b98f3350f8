"""What liars get of a gateway's traffic, in a simulation around the real ranking and estimates."""

from __future__ import annotations

import pytest
from liars import WARM_UP, Plan, accuracy, asked
from liars_mesh import HONEST_REQUESTS, NO_DEFENCE, Lie, Tally

PLAN = Plan(requests=120, seeds=1)


@pytest.fixture(scope="module")
def honest() -> list[Tally]:
    return PLAN.run(0.0)


@pytest.mark.parametrize("lie", ["empty", "truncated", "plausible", "boaster"])
def test_liars_get_hardly_anything_once_peers_are_known(lie: Lie, honest: list[Tally]) -> None:
    tallies = PLAN.run(0.49, lie)
    assert asked(tallies, WARM_UP) < 5
    assert accuracy(tallies, WARM_UP) > accuracy(honest, WARM_UP) - 10  # of 70 requests


@pytest.mark.full
def test_turncoats_lose_what_they_had_earned_within_fifty_requests() -> None:
    start = HONEST_REQUESTS + WARM_UP
    assert asked(Plan(start + 60, seeds=4).run(0.3, "turncoat"), start) < 5


def test_without_the_router_every_second_request_goes_to_a_liar() -> None:
    assert asked(PLAN.run(0.49, "plausible", defence=NO_DEFENCE), WARM_UP) > 30


def test_a_run_can_be_repeated() -> None:
    short = Plan(requests=25, seeds=1)
    assert short.run(0.3, "wary") == short.run(0.3, "wary")
