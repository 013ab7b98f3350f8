from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from monai_node.router.calibration import chances_of_none, shares, strengths
from monai_node.router.compare import Likeness
from monai_node.router.embed import Vectors


def likeness(*cosines: float, sparse: Sequence[float] = (), has_examples: bool = True) -> Likeness:
    """Skills whose texts are all alike to the text by the same cosine each."""
    dense = np.array(cosines, np.float32)
    words = np.array(sparse or [0.0] * len(cosines), np.float32)
    return Likeness(dense, dense, dense, words, np.full(len(dense), has_examples), {})


def apart(count: int) -> Vectors:
    return np.eye(count, dtype=np.float32)


def test_more_likeness_of_either_kind_is_more_strength() -> None:
    assert np.diff(strengths(likeness(0.1, 0.4, 0.7))).min() > 1
    assert np.diff(strengths(likeness(0.4, 0.4, sparse=(0.1, 0.3)))).min() > 0.5


def test_of_a_long_text_whose_words_are_all_rarely_alike_words_still_count() -> None:
    short, long = (strengths(likeness(0.4, 0.4, sparse=(0.0, words))) for words in (0.4, 0.1))
    assert long[1] - long[0] > 0.4 * (short[1] - short[0])


def test_the_liker_the_best_skill_the_less_likely_is_none() -> None:
    chances = [
        float(chances_of_none(likeness(cosine), [0], 10)[0]) for cosine in (-1.0, 0.1, 0.3, 0.5, 0.7, 1.0)
    ]
    assert chances == sorted(chances, reverse=True)
    assert 0 < chances[-1] < 0.05
    assert 0.9 < chances[0] < 1


def test_shares_add_up_over_different_skills() -> None:
    found = shares(np.array([3.0, 2.0, -60.0], np.float32), apart(3))
    assert found.sum() == pytest.approx(1.0)
    assert found[0] / found[1] == pytest.approx(np.e, rel=1e-4)
    assert shares(np.array([-4.0], np.float32), apart(1)).tolist() == [1.0]


def test_copies_of_a_skill_take_nothing_from_it_and_no_more_than_it_from_others() -> None:
    alone = shares(np.array([3.0, 2.0], np.float32), apart(2))
    copied = shares(np.array([3.0, 3.0, 3.0, 2.0], np.float32), apart(2)[[0, 0, 0, 1]])
    assert copied[:3] == pytest.approx(alone[0])
    assert copied[3] == pytest.approx(alone[1])
