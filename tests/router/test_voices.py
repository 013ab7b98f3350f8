from __future__ import annotations

import numpy as np
import pytest

from monai_node.router.voices import averaged, midmean


def test_a_quarter_that_lies_moves_nothing() -> None:
    honest = np.full(9, 0.8)
    for lie in (0.0, 1.0):
        assert midmean(np.append(honest, [lie] * 3), np.ones(12)) == pytest.approx(0.8)


def test_voices_weigh() -> None:
    values, voices = np.array([0.2, 0.8]), np.array([0.1, 0.9])
    assert midmean(values, voices) == pytest.approx(0.8)
    assert midmean(values, np.ones(2)) == pytest.approx(0.5)


def test_nobody_says_what_is_said_above() -> None:
    assert averaged(np.zeros(0), np.zeros(0), 0.7) == 0.7
    assert averaged(np.array([0.1]), np.zeros(1), 0.7) == 0.7


def test_peers_that_contradict_each_other_have_nothing_in_common() -> None:
    assert averaged(np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4), 0.7) == pytest.approx(0.7)
    assert averaged(np.full(4, 0.2), np.ones(4), 0.7) == pytest.approx(0.3)
