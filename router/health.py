"""What this node has seen of its peers: failures, cooling down, seconds. Pure: time is passed in.

Kept per peer and skill, because a node whose model crashes may calculate perfectly well. A lost peer,
or `FAILURES_BEFORE_EJECTION` failures in a row, ejects: ranked last for a while that grows with every
ejection until something succeeds. After that while one attempt is let through; its failure ejects
again. A peer that failed at `SKILLS_BEFORE_PEER_EJECTION` skills, and succeeded at none since, is
ejected from all: one that lies could else fail at every one of a hundred skills in turn. Outlier
ejection as in Envoy (base time 30 s, times the number of ejections, at most 300 s).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from monai_node.registry.errors import Abstained, MonaiError, PeerError, PeerLost, PeerUnreachable
from monai_node.registry.ids import PeerId

FAILURES_BEFORE_EJECTION = 2
SKILLS_BEFORE_PEER_EJECTION = 3
EJECTION_SECONDS = 30.0
EJECTION_SECONDS_MAX = 300.0
# Weight of the newest duration: about the last five tasks count.
_EWMA_WEIGHT = 0.3
# Weight of the newest result's length in what a skill's results have at all peers: it tells a slow peer
# from one that was given long tasks. About the last forty count, by at most this factor.
_LENGTH_WEIGHT = 0.05
_LENGTH_FACTOR_MAX = 8.0
# Peers times skills; the ones unused for longest are forgotten.
STANDINGS_MAX = 8192

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Standing:
    """One peer's record at one skill. `seconds` is None until something was measured, `chars` as long as
    no text was."""

    failures: int = 0  # in a row
    ejections: int = 0  # since the last success
    ejected_until: float = 0.0
    seconds: float | None = None
    chars: float | None = None  # that its results had


_UNKNOWN = Standing()


@dataclass(frozen=True, slots=True)
class _Failing:
    """The skills that a peer failed at since it last succeeded at any, and until when it is ejected."""

    skills: frozenset[str] = frozenset()
    ejected_until: float = 0.0


class Health:
    """Outcomes of attempts, as this node saw them."""

    def __init__(self) -> None:
        self._standings: OrderedDict[tuple[PeerId, str], Standing] = OrderedDict()
        self._failing: OrderedDict[PeerId, _Failing] = OrderedDict()
        self._lengths: OrderedDict[str, float] = OrderedDict()  # skill → characters of a result, anywhere

    def __len__(self) -> int:
        return len(self._standings)

    def standing(self, peer: PeerId, skill: str) -> Standing:
        return self._standings.get((peer, skill), _UNKNOWN)

    def expected_seconds(self, peer: PeerId, skill: str) -> float | None:
        """What a task of usual length would take there; None until something was measured. A model's
        time goes with the length of what it writes, and a few long tasks do not make a peer slow."""
        standing, usual = self.standing(peer, skill), self._lengths.get(skill)
        if standing.seconds is None or standing.chars is None or usual is None:
            return standing.seconds
        factor = usual / max(1.0, standing.chars)
        return standing.seconds * min(max(factor, 1 / _LENGTH_FACTOR_MAX), _LENGTH_FACTOR_MAX)

    def succeeded(self, peer: PeerId, skill: str, seconds: float, chars: int | None = None) -> None:
        """Clears failures and ejection. `chars` is the length of the result, where the time goes with it."""
        self._failing.pop(peer, None)
        before = self.standing(peer, skill)
        length = before.chars if chars is None else _moved(before.chars, chars, _EWMA_WEIGHT)
        self._keep(peer, skill, Standing(seconds=self._averaged(peer, skill, seconds), chars=length))
        if chars is not None:
            self._lengths[skill] = _moved(self._lengths.get(skill), chars, _LENGTH_WEIGHT)
            self._lengths.move_to_end(skill)
            while len(self._lengths) > STANDINGS_MAX:
                self._lengths.popitem(last=False)

    def took(self, peer: PeerId, skill: str, seconds: float) -> None:
        """The caller's time was over after `seconds` of work: no failure, but it was at least so slow."""
        before = self.standing(peer, skill)
        if before.seconds is None or seconds > before.seconds:
            average = self._averaged(peer, skill, seconds)
            self._keep(peer, skill, replace(before, seconds=average))

    def failed(self, peer: PeerId, skill: str, error: MonaiError, now: float) -> None:
        """Count an attempt that failed. Abstaining is an answer, and errors of the caller or of this
        node say nothing of the peer: they are not counted."""
        if not isinstance(error, PeerError) or isinstance(error, Abstained):
            return
        before = self.standing(peer, skill)
        failures, ejections, until = before.failures + 1, before.ejections, before.ejected_until
        if failures >= FAILURES_BEFORE_EJECTION or isinstance(error, PeerLost | PeerUnreachable):
            ejections += 1
            until = now + min(EJECTION_SECONDS * ejections, EJECTION_SECONDS_MAX)
        standing = replace(before, failures=failures, ejections=ejections, ejected_until=until)
        self._keep(peer, skill, standing)
        self._failed_at(peer, skill, now)

    def cooling_seconds(self, peer: PeerId, skill: str, now: float) -> float:
        """How long it stays ejected; 0 when it is not."""
        failing = self._failing.get(peer)
        until = max(self.standing(peer, skill).ejected_until, failing.ejected_until if failing else 0.0)
        return max(0.0, until - now)

    def ejected(self, items: Iterable[_T], key: Callable[[_T], tuple[PeerId, str]], now: float) -> list[_T]:
        """Those of `items` that are cooling down; none when all of them are, because asking a peer
        that failed beats asking nobody."""
        listed = list(items)
        cooling = [item for item in listed if self.cooling_seconds(*key(item), now) > 0]
        return [] if len(cooling) == len(listed) else cooling

    def _failed_at(self, peer: PeerId, skill: str, now: float) -> None:
        before = self._failing.pop(peer, _Failing())
        skills, until = before.skills, before.ejected_until
        if len(skills) < SKILLS_BEFORE_PEER_EJECTION:
            skills |= {skill}
        if len(skills) >= SKILLS_BEFORE_PEER_EJECTION:
            until = now + EJECTION_SECONDS
        self._failing[peer] = _Failing(skills, until)
        while len(self._failing) > STANDINGS_MAX:
            self._failing.popitem(last=False)

    def _averaged(self, peer: PeerId, skill: str, seconds: float) -> float:
        return _moved(self.standing(peer, skill).seconds, seconds, _EWMA_WEIGHT)

    def _keep(self, peer: PeerId, skill: str, standing: Standing) -> None:
        self._standings[peer, skill] = standing
        self._standings.move_to_end((peer, skill))
        while len(self._standings) > STANDINGS_MAX:
            self._standings.popitem(last=False)


def _moved(average: float | None, newest: float, weight: float) -> float:
    return newest if average is None else average + weight * (newest - average)
