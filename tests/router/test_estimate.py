from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

import numpy as np
import pytest

from monai_node.registry.ids import PeerId
from monai_node.router.embed import Vector
from monai_node.router.estimate import (
    CLAIM_CHANCE_MAX,
    EXPLORATION_SHARE,
    HALF_LIFE_SECONDS,
    PRIOR_CHANCE,
    Estimate,
    Estimates,
    explored,
)
from monai_node.router.outcome import Outcome, Source

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
GOOD = "sha256:good"
_RANDOM = np.random.default_rng(0)
_KINDS = _RANDOM.standard_normal((4, 384))


def like(kind: int) -> Vector:
    """A text of this kind: about 0.5 alike with others of it, and not at all with those of other kinds."""
    noise = _RANDOM.standard_normal(384) * np.linalg.norm(_KINDS[kind]) / math.sqrt(384)
    mixed = _KINDS[kind] + noise
    return (mixed / np.linalg.norm(mixed)).astype(np.float32)


def outcome(
    peer: PeerId,
    value: float,
    kind: int = 0,
    *,
    skill: str = "chat",
    digest: str = GOOD,
    source: Source = "contract",
    at: float = 0.0,
) -> Outcome:
    return Outcome(peer, skill, digest, value, source, at, like(kind))


def learnt(outcomes: Iterable[Outcome], outcomes_max: int = 8192) -> Estimates:
    estimates = Estimates(outcomes_max)
    for each in outcomes:
        estimates.learn(each)
    return estimates


def chance(estimates: Estimates, peer: PeerId, kind: int = 0, digest: str = GOOD, now: float = 0.0) -> float:
    return estimates.view(like(kind), now).of(peer, "chat", digest).chance


def test_of_whom_nothing_is_known_the_prior_is_said_and_that_it_is_uncertain() -> None:
    estimate = Estimates().view(like(0), 0.0).of(A, "chat", GOOD)
    assert estimate.chance == pytest.approx(PRIOR_CHANCE)
    assert (estimate.weight, estimate.near) == (0.0, 0.0)
    known = learnt(outcome(A, 1.0) for _ in range(30)).view(like(0), 0.0).of(A, "chat", GOOD)
    assert known.spread < estimate.spread / 3
    assert known.weight > 30


def test_what_is_forgotten_counts_no_more_and_nothing_else_is_forgotten() -> None:
    others = [outcome(A, float(at % 3 > 0), at=float(at)) for at in range(9)]
    wrong = outcome(A, 0.0, at=9.0)
    estimates, without = learnt([*others, wrong]), learnt(others)
    estimates.forget(wrong)
    estimates.forget(wrong)
    estimates.forget(outcome(A, 0.5, at=3.0))
    estimates.forget(outcome(B, 0.0, at=9.0))
    assert estimates.view(None, 9.0).of(A, "chat", GOOD) == without.view(None, 9.0).of(A, "chat", GOOD)


def test_what_a_peer_does_well_depends_on_the_task() -> None:
    estimates = learnt(outcome(A, float(at % 2 == 0), kind=at % 2) for at in range(80))
    assert chance(estimates, A, 0) > 0.8
    assert chance(estimates, A, 1) < 0.2
    assert 0.4 < chance(estimates, A, 2) < 0.6


def test_a_few_failures_among_many_successes_change_little() -> None:
    rows = [outcome(A, 1.0, kind=at % 4) for at in range(200)] + [outcome(A, 0.0) for _ in range(2)]
    assert chance(learnt(rows), A) > 0.9


def test_abstaining_lowers_the_chance_for_such_texts_only() -> None:
    done = [outcome(A, 1.0, 0) for _ in range(20)]
    before = learnt(done)
    after = learnt(done + [outcome(A, 0.0, 1, source="abstained") for _ in range(10)])
    assert chance(after, A, 1) < chance(before, A, 1) - 0.3
    assert chance(after, A, 0) == pytest.approx(chance(before, A, 0), abs=0.02)
    assert chance(after, A, 2) == pytest.approx(chance(before, A, 2), abs=0.02)


def test_replicas_of_a_model_share_what_is_known_of_it() -> None:
    estimates = learnt(
        [outcome(A, 0.1, digest="sha256:bad") for _ in range(40)] + [outcome(C, 0.9) for _ in range(40)]
    )
    assert chance(estimates, B, digest="sha256:bad") < chance(estimates, B, digest=GOOD) - 0.1


def test_the_digest_of_a_good_model_is_worth_less_than_a_record() -> None:
    estimates = learnt(outcome(peer, 1.0) for peer in (A, B) for _ in range(50))
    assert chance(estimates, C) <= CLAIM_CHANCE_MAX
    assert chance(estimates, A) > 0.95
    for _ in range(3):
        estimates.learn(outcome(C, 0.0, source="canary"))
    assert chance(estimates, C) < 0.25


def test_liars_with_the_digest_of_a_good_model_do_not_harm_its_honest_replicas() -> None:
    honest = [outcome(PeerId(f"honest {at}"), 1.0) for at in range(3) for _ in range(12)]
    lies = [outcome(PeerId(f"liar {at}"), 0.0) for at in range(7) for _ in range(12)]
    with_liars = chance(learnt(honest + lies), PeerId("honest 0"))
    assert with_liars > chance(learnt(honest), PeerId("honest 0")) - 0.05


def test_a_peer_has_one_voice_however_many_models_it_had() -> None:
    honest = [outcome(PeerId(f"honest {at}"), 1.0) for at in range(3) for _ in range(20)]
    lies = [outcome(A, 0.0, digest=f"sha256:{at}") for at in range(30) for _ in range(20)]
    assert chance(learnt(honest + lies), B, digest="sha256:new") > 0.6


def test_a_new_digest_does_not_clear_a_bad_record() -> None:
    estimates = learnt(outcome(A, 0.0, at % 4) for at in range(40))
    assert chance(estimates, A, digest="sha256:new") < 0.4
    assert chance(estimates, B, digest="sha256:new") > chance(estimates, A, digest="sha256:new") + 0.2


def test_a_canary_says_more_than_a_contract_and_an_error_less() -> None:
    fallen: list[float] = []
    for source in ("canary", "contract", "error"):
        rows = [outcome(A, 1.0) for _ in range(5)] + [outcome(A, 0.0, source=source) for _ in range(2)]
        fallen.append(chance(learnt(rows), A))
    assert fallen == sorted(fallen)
    assert fallen[2] - fallen[0] > 0.2


def test_a_peer_that_turns_is_judged_by_what_it_does_now() -> None:
    estimates = learnt(outcome(A, 1.0, at % 4) for at in range(1000))
    assert chance(estimates, A) > 0.95
    for at in range(12):
        estimates.learn(outcome(A, 0.0, at % 4))
    assert chance(estimates, A) < 0.6


def test_outcomes_age_and_clocks_that_jump_break_nothing() -> None:
    estimates = learnt(outcome(A, 0.0, at=1e9) for _ in range(20))
    fresh, old = chance(estimates, A, now=1e9), chance(estimates, A, now=1e9 + 8 * HALF_LIFE_SECONDS)
    assert fresh < 0.2
    assert old > 0.6
    assert chance(estimates, A, now=0.0) == pytest.approx(fresh, abs=0.05)
    assert chance(estimates, A, now=1e300) == pytest.approx(PRIOR_CHANCE)


def test_a_text_that_was_not_embedded_gets_the_average_of_all_tasks() -> None:
    estimates = learnt(outcome(A, float(at % 2 == 0), kind=at % 2) for at in range(80))
    for vector in (None, np.ones(7, np.float32)):
        estimate = estimates.view(vector, 0.0).of(A, "chat", GOOD)
        assert 0.4 < estimate.chance < 0.6
        assert estimate.near == 0.0


def test_outcomes_without_a_vector_count_for_the_peer_at_large() -> None:
    estimates = learnt(Outcome(A, "chat", GOOD, 0.0, "contract", 0.0) for _ in range(20))
    assert chance(estimates, A) < 0.2
    odd = Outcome(A, "chat", GOOD, 0.0, "contract", 0.0, np.full(384, np.nan, np.float32))
    estimates.learn(odd)
    assert 0.0 <= chance(estimates, A) < 0.2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_learnt(value: float) -> None:
    estimates = learnt([outcome(A, value), outcome(A, 1.0, at=value)])
    assert len(estimates) == 0
    assert chance(learnt([outcome(A, 7.0)]), A) <= 1.0


def test_a_busy_peer_forgets_only_outcomes_of_its_own() -> None:
    estimates = learnt([outcome(B, 0.0) for _ in range(30)], outcomes_max=100)
    for _ in range(500):
        estimates.learn(outcome(A, 1.0))
    assert len(estimates) == 100
    assert estimates.view(like(0), 0.0).of(B, "chat", GOOD).near > 20
    assert chance(estimates, B) < 0.2
    for at in range(500):
        estimates.learn(outcome(PeerId(f"new {at}"), 1.0, skill=f"skill {at}"))
    assert len(estimates) == 100
    assert estimates.view(like(0), 0.0).of(PeerId("new 499"), "skill 499", GOOD).near > 0


def test_replaying_outcomes_restores_what_was_known() -> None:
    random = Random(1)
    rows = [
        outcome(random.choice((A, B, C)), float(random.random() < 0.7), random.randrange(4), at=float(at))
        for at in range(300)
    ]
    first, second, text = learnt(rows, 200), learnt(rows, 200), like(0)
    for peer in (A, B, C):
        assert first.view(text, 400.0).of(peer, "chat", GOOD) == second.view(text, 400.0).of(
            peer, "chat", GOOD
        )


def test_rows_and_groups_that_were_forgotten_leave_no_trace() -> None:
    random = Random(2)
    gone = [outcome(PeerId("gone"), 0.0, at % 4, skill=f"s{at}") for at in range(60)]
    # Of the one that has most the oldest goes: all of "gone" but one for each of these peers.
    rows = [outcome(PeerId(f"p{at % 59}"), float(random.random() < 0.6), at % 4) for at in range(59)]
    used, text = learnt(gone + rows, 60), like(1)
    plain = learnt([gone[-1], *rows])
    for peer in {each.peer for each in rows}:
        found = [each.view(text, 0.0).of(peer, "chat", GOOD) for each in (used, plain)]
        assert found[0].chance == pytest.approx(found[1].chance, abs=0.01)
        assert used.view(text, 0.0).of(peer, "s3", GOOD).weight == 0.0


def test_newcomers_are_explored_and_get_no_more_than_their_share() -> None:
    known, newcomer, bad = (
        Estimate(0.9, 0.03, 60, 40),
        Estimate(0.7, 0.3, 0, 0),
        Estimate(0.1, 0.05, 4, 4),
    )
    random = Random(3)
    found = [explored([known, newcomer, *[newcomer] * 50, bad], random.random()) for _ in range(4_000)]
    taken = [at for at in found if at is not None]
    assert 0.5 * EXPLORATION_SHARE < len(taken) / len(found) < 1.5 * EXPLORATION_SHARE
    assert set(taken) <= set(range(1, 52))
    assert explored([known, bad], 0.0) is None
    assert explored([], 0.0) is None
