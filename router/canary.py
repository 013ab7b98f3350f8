"""Who is asked a canary next: whoever is new, and everybody again from time to time. Pure.

Whoever waits for longest comes first, so that a crowd of newcomers delays the others and is delayed, but
nobody is left out. What canaries are, and for which skills there are any, says `router.canary_tasks`.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from monai_node.registry.ids import PeerId
from monai_node.router.canary_tasks import has_canary
from monai_node.router.offer import Offer

# A peer that answers plausibly and wrong passes every contract that sees the form only; three canaries weigh
# more than all that it inherited.
FIRST_COUNT = 3
FIRST_GAP_SECONDS = 10.0
# Of a peer that is known: it may turn. Drawn from half to one and a half of this, so that nobody can tell
# when it is asked.
AGAIN_SECONDS = 900.0
# Of one that lately did worse than it usually does: one at once, the next after this, then twice as long each
# time. Whoever turned is found within minutes, and whoever stays doubtful is not asked without end.
SUSPECT_GAP_SECONDS = 10.0
# Of all peers together: less than anybody notices.
PER_MINUTE_MAX = 6
# Peers times skills; those asked longest ago are forgotten, and count as new.
PAIRS_MAX = 8192


@dataclass(slots=True)
class _Turn:
    """When a skill of a peer is due, how many canaries it had, and when it had the last one. `gap` is how
    long after that it is due again if it is suspected, in seconds."""

    due: float
    count: int = 0
    sent: float = -math.inf
    gap: float = 0.0
    is_checkable: bool = True


class CanaryRota:
    """Whose turn it is. Times are wall-clock seconds, so that stored outcomes can be told at a start."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._turns: OrderedDict[tuple[PeerId, str], _Turn] = OrderedDict()
        self._sent: deque[float] = deque(maxlen=PER_MINUTE_MAX)

    def __len__(self) -> int:
        return len(self._turns)

    def due(
        self, offers: Iterable[Offer], now: float, is_suspect: Callable[[Offer], bool] = lambda _: False
    ) -> Offer | None:
        """The offer to send a canary to now; None when nobody is due or enough were sent this minute.
        Whoever is suspected of having turned is due soon.

        Only peers without load are asked, and no skill for which there is no canary or which must not be
        done twice. Whoever may not see this node's requests is not to be among `offers`."""
        if len(self._sent) == PER_MINUTE_MAX and 0 <= now - self._sent[0] < 60:
            return None
        waiting: list[tuple[float, Offer]] = []
        for offer in offers:
            turn = self._turn(offer, now)
            if not (turn.is_checkable and offer.load == 0 and offer.skill.is_idempotent):
                continue
            if not is_suspect(offer):
                turn.gap = 0.0
            elif turn.sent + turn.gap <= now:
                turn.due = min(turn.due, turn.sent + turn.gap)
            # Later than any turn can be: the clock was set back.
            if not now < turn.due <= now + 2 * AGAIN_SECONDS:
                waiting.append((turn.due, offer))
        return min(waiting, key=lambda each: each[0], default=(now, None))[1]

    def sent(self, peer: PeerId, skill: str, at: float) -> None:
        """A canary went to this skill of the peer, now or in an outcome that was stored."""
        turn = self._turns.setdefault((peer, skill), _Turn(at))
        self._turns.move_to_end((peer, skill))
        turn.count, turn.sent = turn.count + 1, at
        turn.gap = max(SUSPECT_GAP_SECONDS, min(2 * turn.gap, AGAIN_SECONDS))
        again = AGAIN_SECONDS * self._random.uniform(0.5, 1.5)
        turn.due = at + (FIRST_GAP_SECONDS if turn.count < FIRST_COUNT else again)
        self._sent.append(at)
        self._forget()

    def _turn(self, offer: Offer, now: float) -> _Turn:
        key = (offer.peer, offer.skill.id)
        if key not in self._turns:
            self._turns[key] = _Turn(now, is_checkable=has_canary(offer.skill))
            self._forget()
        return self._turns[key]

    def _forget(self) -> None:
        while len(self._turns) > PAIRS_MAX:
            self._turns.popitem(last=False)
