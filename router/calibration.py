"""From likenesses to chances: a few numbers, and where they come from. Pure."""

from __future__ import annotations

import numpy as np

from monai_node.router.compare import Likeness
from monai_node.router.embed import Vector

# The least chance at which a narrow skill is asked before a general one.
NARROW_FIT = 0.30

_NEAREST_WEIGHT = 0.7


def fused(likeness: Likeness) -> Vector:
    """One score a skill, for ordering: 0 to 1."""
    score = _NEAREST_WEIGHT * likeness.nearest + (1 - _NEAREST_WEIGHT) * likeness.centre
    return np.clip(score, 0.0, 1.0).astype(np.float32)
