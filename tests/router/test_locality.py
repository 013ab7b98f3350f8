from __future__ import annotations

import numpy as np
import pytest

from monai_node.router.locality import Locality

PEERS = 6


def seen(deviation: float, texts: int = 400, shared: float = 0.0, noise: float = 0.05) -> Locality:
    """Peers that differ so from text to text, seen through noise; `shared` is common to all of them."""
    random, locality = np.random.default_rng(0), Locality()
    near = np.full(PEERS, 30.0)
    for _ in range(texts):
        true = random.normal(0, deviation, PEERS) + random.normal(0, shared)
        halves = [true + random.normal(0, noise, PEERS) for _ in range(2)]
        locality.see((near, near), (halves[0], halves[1]))
    return locality


@pytest.mark.parametrize("deviation", [0.05, 0.1, 0.2])
def test_how_much_peers_differ_is_found_through_noise(deviation: float) -> None:
    assert seen(deviation).variance == pytest.approx(deviation**2, rel=0.25, abs=0.0003)


def test_where_peers_do_not_differ_the_average_at_large_counts_most() -> None:
    assert seen(0.0).prior_outcomes > 100
    assert seen(0.2).prior_outcomes < 10


def test_texts_that_are_hard_for_all_are_no_difference_between_peers() -> None:
    assert seen(0.0, shared=0.3).prior_outcomes > 100


def test_peers_with_few_outcomes_near_and_one_alone_say_nothing() -> None:
    locality, apart = Locality(), np.array([0.5, -0.5])
    for near in (np.array([30.0, 1.0]), np.array([2.0, 2.0])):
        locality.see((near, near), (apart, apart))
    assert locality == Locality()
