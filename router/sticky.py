"""Who answered a conversation last: its next turn is read sooner there. Bounded, by hashes; holds no text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from monai_node.router.candidate import Candidate
from monai_node.router.demand import Demand, Sticky

CONVERSATIONS_MAX = 4096
# What a peer has read it keeps while it has room; after so long others have mostly taken it.
KEPT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Served:
    sticky: Sticky
    at: float


class Conversations:
    """The conversations that were answered lately. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._served: OrderedDict[str, _Served] = OrderedDict()

    def __len__(self) -> int:
        return len(self._served)

    def former(self, demand: Demand, now: float) -> Sticky | None:
        """Who answered the conversation before its last turn."""
        if demand.conversation is None:
            return None
        served = self._served.get(demand.conversation.before)
        return served.sticky if served is not None and now - served.at <= KEPT_SECONDS else None

    def served(self, demand: Demand, candidate: Candidate, now: float) -> None:
        """The task of this demand was done. Agents keep nothing that they have read."""
        if demand.conversation is None or not candidate.model:
            return
        sticky = Sticky(candidate.peer, candidate.model, demand.prompt_chars)
        self._served[demand.conversation.whole] = _Served(sticky, now)
        self._served.move_to_end(demand.conversation.whole)
        while len(self._served) > CONVERSATIONS_MAX:
            self._served.popitem(last=False)


def stay(candidates: Sequence[Candidate], former: Sticky | None) -> list[Candidate]:
    """The order for a conversation with tool calls, which no other model can go on with as well: whoever
    served it before, then others with its model, each its own tier: time decides nothing here."""
    if former is None:
        return list(candidates)
    same = [it for it in candidates if it.model == former.model]
    others = [it for it in candidates if it.model != former.model]
    same.sort(key=lambda it: it.peer != former.peer)
    tiers = [*(int(it.peer != former.peer) for it in same), *(it.tier + 2 for it in others)]
    return [replace(it, tier=tier) for it, tier in zip([*same, *others], tiers, strict=True)]
