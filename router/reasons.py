"""Why a candidate stands where it stands, in words with numbers. Pure."""

from __future__ import annotations

from monai_node.registry.wire import one_line
from monai_node.router.health import Health
from monai_node.router.match import Match
from monai_node.router.offer import Offer
from monai_node.router.worth import Option

_EXAMPLE_CHARS = 60
# Less says nothing to a person.
_OUTCOMES_TOLD_MIN = 1.0
_SECONDS_TOLD_MIN = 0.05
# By which a skill fits less because of another.
_FIT_TOLD_MIN = 0.3


def fit(match: Match) -> str:
    if match.alone - match.fit < _FIT_TOLD_MIN:
        return f"fits {match.fit:.2f}"
    return f"fits {match.fit:.2f} beside a likelier skill, {match.alone:.2f} without it"


def alikeness(match: Match) -> str:
    if not match.best_example:
        return f"its description is {match.dense:.2f} alike"
    return f"example '{_shown(match.best_example)}' is {match.dense:.2f} alike"


def evidence(option: Option) -> tuple[str, ...]:
    """What was learnt of the offer, what it costs and how long it would take, as far as that is known."""
    said: list[str] = []
    if option.estimate.weight >= _OUTCOMES_TOLD_MIN:
        known = option.estimate
        said.append(f"does {known.chance:.2f} of such tasks well, after {known.weight:.0f} outcomes")
    if option.cost:
        said.append(f"costs about {option.cost:.3g}")
    if option.delay.is_known:
        total, queue = option.delay.total, option.delay.queue
        waiting = f", {queue:.1f} s of it waiting" if queue >= _SECONDS_TOLD_MIN else ""
        said.append(
            f"done in about {total:.1f} s{waiting}"
            if total >= _SECONDS_TOLD_MIN
            else "done in less than 0.1 s"
        )
    return tuple(said)


def circumstances(offer: Offer, health: Health, now: float) -> tuple[str, ...]:
    """Its load and what this node has seen of it."""
    standing = health.standing(offer.peer, offer.skill.id)
    said = [f"{offer.running} running, {offer.queued} queued"]
    if health.cooling_seconds(offer.peer, offer.skill.id, now) > 0:
        times = "1 failure" if standing.failures == 1 else f"{standing.failures} failures"
        said.append(f"cooling down after {times}")
    return tuple(said)


def size(offer: Offer) -> tuple[str, ...]:
    count = offer.model.parameter_count if offer.model is not None else 0
    if not count:
        return ()
    return (f"{count / 1e9:.1f}B parameters" if count >= 1e9 else f"{count / 1e6:.0f}M parameters",)


def _shown(example: str) -> str:
    """An announced text, fit for a line: a peer may have written anything."""
    line = one_line(example[:_EXAMPLE_CHARS])
    return line if len(example) <= _EXAMPLE_CHARS else line + "…"
