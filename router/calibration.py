"""From likenesses to chances: a few numbers, and where they come from. Pure.

All are maximum likelihood of `python tests/bench/router_fit.py --json`, which fits them on one half of
three public sets' skills (CLINC150, MetaTool, Seal-Tools; with 0, 1, 3, 5 and mixed numbers of examples,
lists of 1 to 4,076 skills) and prints how they do on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_node.router.compare import Likeness
from monai_node.router.embed import Vector, Vectors

_Table = NDArray[np.float64]

# Of likeness to the description, to the nearest text, to the centre of all texts and in words, of having
# examples, and of likeness in words where there are examples, which then say more than words do: a strength
# higher by 1 is e times likelier to be the right skill of a list.
STRENGTH = (5.69, 3.89, 8.6, 6.07, -0.76, -1.9)
# The log-odds that no narrow skill fits: a constant, the first five of the strongest skill, its words taken
# as they are, and ln(number of narrow skills). One skill is given even odds; 150, one in seven.
NONE = (3.06, -2.99, -4.09, -5.12, -1.96, 0.98, -0.04)
# The least chance at which a narrow skill is asked before a general one. Low, because the two mistakes
# differ: an agent that is asked in vain abstains in milliseconds, a small model that is asked to calculate
# answers wrongly. On 40 texts that nothing here was fitted to, for an arithmetic, a calendar and a chat
# skill, anything from 0.15 to 0.5 puts the right one first for 37 or more; at 0.3 the other 3 are asked
# of an agent that abstains (tests/mesh/test_embedders.py).
NARROW_FIT = 0.30

# The least chance at which a narrow skill would fit if no likelier one were there for it to be a candidate
# beside that one. Beside a skill that copies a text into its examples, an arithmetic one is left 0.00 of the
# chance that one of them fits, and has 0.88 alone. Of the texts for it named above 12 of 13 have 0.57 and
# more alone, skills for other things mostly 0.40 and less. For CLINC150's 150 skills with 3 examples this
# adds 2 candidates in the mean, and a right one in 59 % of the cases in which the first is wrong.
RIVAL_FIT = 0.6

# Below this no word of the text is known well enough to count its likest skill as alike in words.
_SPARSE_FLOOR = 0.05
# Two skills the centres of whose texts are this alike are one in slightly different words: both are right.
_SAME_COSINE = 0.9


def evidence(likeness: Likeness) -> _Table:
    """What a strength is made of: a row a skill, a column a number of STRENGTH. Likeness in words is
    divided by the root of the highest: of a long text all of it is low."""
    highest = max(float(likeness.sparse.max(initial=0.0)), _SPARSE_FLOOR)
    sparse = likeness.sparse / np.sqrt(highest)
    has = likeness.has_examples
    columns = (likeness.described, likeness.nearest, likeness.centre, sparse, has, sparse * has)
    return np.stack(columns, dtype=np.float64).T


def strengths(likeness: Likeness) -> Vector:
    """One number a skill, to order by."""
    return (evidence(likeness) @ np.array(STRENGTH)).astype(np.float32)


def absence(likeness: Likeness, places: Sequence[int], count: int) -> _Table:
    """What the chance of none is made of: a row for each of `places`, as if it were the strongest of `count`
    narrow skills; a column a number of NONE."""
    columns = (likeness.described, likeness.nearest, likeness.centre, likeness.sparse, likeness.has_examples)
    at, ones = np.array(places, np.intp), np.ones(len(places))
    return np.stack(
        [ones, *(column[at] for column in columns), ones * np.log(max(count, 1))], axis=1, dtype=np.float64
    )


def chances_of_none(likeness: Likeness, places: Sequence[int], count: int) -> _Table:
    """That none of `count` narrow skills fits, for each of `places` as if it were the strongest of them."""
    return 1 / (1 + np.exp(-(absence(likeness, places, count) @ np.array(NONE))))


def shares(strength: Vector, centres: Vectors) -> Vector:
    """Of each skill the chance that it is right if one of them is. Skills that say the same take no
    chance from each other: a copy of a skill is as right as it is."""
    weights = np.exp(strength - strength.max(initial=-np.inf))
    same = centres @ centres.T >= _SAME_COSINE
    # Each group of the same skills counts once, as its strongest: the one that nobody stronger equals.
    stronger = (weights[None] > weights[:, None]) | (
        (weights[None] == weights[:, None]) & np.tri(len(weights), k=-1, dtype=np.bool_)
    )
    counts_once = ~(same & stronger).any(axis=1)
    others = (weights * counts_once)[None] * ~same
    return (weights / (weights + others.sum(axis=1))).astype(np.float32)
