"""Which tasks of a plan are those of a gold plan: what every measure of planners here begins with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from monai_node.agents.lexicon import words

# Token F1 from which two texts are the same task: as in the measurements that planners were designed by.
SAME_TASK_F1 = 0.6


def same_tasks(
    gold: Sequence[str], found: Sequence[Sequence[str]], *, is_last_first: bool = True
) -> list[tuple[int, int]]:
    """Pairs of places, gold and found, best pairs first and each place used once. A found task may be
    given in several readings, of which the likest counts. `is_last_first`: which goes first of pairs that
    are equally like; figures that were published one way stay comparable that way only."""
    sign = -1 if is_last_first else 1
    likely = sorted(
        (
            (max(token_f1(one, other) for other in readings), i, j)
            for i, one in enumerate(gold)
            for j, readings in enumerate(found)
        ),
        key=lambda each: (-each[0], sign * each[1], sign * each[2]),
    )
    pairs: list[tuple[int, int]] = []
    for f1, i, j in likely:
        if f1 >= SAME_TASK_F1 and all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def token_f1(left: str, right: str) -> float:
    """The words that two texts share, each as often as both have it; 0 for two texts without words."""
    mine, rest = words(left), words(right)
    total, common = len(mine) + len(rest), 0
    for word in mine:
        if word in rest:
            rest.remove(word)
            common += 1
    return 2 * common / total if total else 0.0
