"""What this node has seen of its peers: failures, cooling down, seconds. Pure: time is passed in.

Kept per peer and skill, because a node whose model crashes may calculate perfectly well. A lost peer,
or `FAILURES_BEFORE_EJECTION` failures in a row, ejects: ranked last for a while that grows with every
ejection until something succeeds. After that while one attempt is let through; its failure ejects
again. The whiles of a peer grow, too, when it comes back again and again only to be ejected. A peer that
failed at `SKILLS_BEFORE_PEER_EJECTION` skills, and succeeded at none since, is ejected from all: one that
lies could else fail at every one of a hundred skills in turn. Outlier ejection as in Envoy (base time
30 s, times the number of ejections, at most 300 s).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from monai_node.registry.errors import (
    Abstained,
    MonaiError,
    PeerBusy,
    PeerError,
    PeerLost,
    PeerUnreachable,
)
from monai_node.registry.ids import PeerId

FAILURES_BEFORE_EJECTION = 2
SKILLS_BEFORE_PEER_EJECTION = 3
EJECTION_SECONDS = 30.0
EJECTION_SECONDS_MAX = 300.0
# What an attempt at a peer that has cooled down is given to end, before another one may be made.
PROBE_SECONDS = 10.0
# A peer ejected so soon after it last was flaps, whatever succeeded in between.
FLAP_SECONDS = 600.0
# Where more than this share is ejected, and so many are, it is hardly they that fail but this node's own
# way to them: ejection is then ignored (Envoy's panic threshold, 50 %). Of three peers two may well be gone.
PANIC_SHARE = 0.5
PANIC_EJECTED_MIN = 3
# Weight of the newest duration: about the last five tasks count.
NEWEST_WEIGHT = 0.3
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


@dataclass(frozen=True, slots=True)
class _Flaps:
    """How often a peer succeeded only to be ejected soon again; when it last was, and whether it has
    succeeded since."""

    count: int = 0
    ejected_at: float = float("-inf")
    has_recovered: bool = False


class Health:
    """Outcomes of attempts, as this node saw them."""

    def __init__(self) -> None:
        self._standings: OrderedDict[tuple[PeerId, str], Standing] = OrderedDict()
        self._failing: OrderedDict[PeerId, _Failing] = OrderedDict()
        self._flaps: OrderedDict[PeerId, _Flaps] = OrderedDict()
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
        if peer in self._flaps:
            self._flaps[peer] = replace(self._flaps[peer], has_recovered=True)
        before = self.standing(peer, skill)
        length = before.chars if chars is None else moved(before.chars, chars, NEWEST_WEIGHT)
        self._keep(peer, skill, Standing(seconds=self._averaged(peer, skill, seconds), chars=length))
        if chars is not None:
            self._lengths[skill] = moved(self._lengths.get(skill), chars, _LENGTH_WEIGHT)
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
        """Count an attempt that failed. Abstaining, and having no time, are answers, and errors of the caller
        or of this node say nothing of the peer: they are not counted."""
        if not isinstance(error, PeerError) or isinstance(error, Abstained | PeerBusy):
            return
        before = self.standing(peer, skill)
        failures, ejections, until = before.failures + 1, before.ejections, before.ejected_until
        if failures >= FAILURES_BEFORE_EJECTION or isinstance(error, PeerLost | PeerUnreachable):
            ejections += 1
            times = max(ejections, self._flapped(peer, now))
            until = now + min(EJECTION_SECONDS * times, EJECTION_SECONDS_MAX)
        standing = replace(before, failures=failures, ejections=ejections, ejected_until=until)
        self._keep(peer, skill, standing)
        self._failed_at(peer, skill, now)

    def cooling_seconds(self, peer: PeerId, skill: str, now: float) -> float:
        """How long it stays ejected; 0 when it is not."""
        until, failing = self.standing(peer, skill).ejected_until, self._failing.get(peer)
        if failing is not None:
            until = max(until, failing.ejected_until)
        return until - now if until > now else 0.0

    def asked(self, peer: PeerId, skill: str, now: float) -> None:
        """An attempt is made. At a peer that has cooled down it is the only one for PROBE_SECONDS, unless
        it succeeds before."""
        before = self._standings.get((peer, skill))
        if before is not None and before.ejections and before.ejected_until <= now:
            self._keep(peer, skill, replace(before, ejected_until=now + PROBE_SECONDS))

    def cooling(self, now: float) -> frozenset[PeerId | tuple[PeerId, str]]:
        """Every peer, and every skill at a peer, that is cooling down."""
        skills = {key for key, it in self._standings.items() if it.ejected_until > now}
        return frozenset(skills | {peer for peer, it in self._failing.items() if it.ejected_until > now})

    def ejected(self, items: Iterable[_T], key: Callable[[_T], tuple[PeerId, str]], now: float) -> list[_T]:
        """Those of `items` that are cooling down; none in a panic, and none when all of them are, because
        asking a peer that failed beats asking nobody."""
        listed = list(items)
        cooling = [item for item in listed if self.cooling_seconds(*key(item), now) > 0]
        return [] if len(cooling) == len(listed) or is_panic(cooling, listed) else cooling

    def _flapped(self, peer: PeerId, now: float) -> int:
        """Count an ejection; how often in a row the peer came back only to be ejected."""
        before = self._flaps.pop(peer, _Flaps())
        count = before.count
        if now - before.ejected_at > FLAP_SECONDS:
            count = 0
        elif before.has_recovered:
            count += 1
        self._flaps[peer] = _Flaps(count, now)
        while len(self._flaps) > STANDINGS_MAX:
            self._flaps.popitem(last=False)
        return count

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
        return moved(self.standing(peer, skill).seconds, seconds, NEWEST_WEIGHT)

    def _keep(self, peer: PeerId, skill: str, standing: Standing) -> None:
        self._standings[peer, skill] = standing
        self._standings.move_to_end((peer, skill))
        while len(self._standings) > STANDINGS_MAX:
            self._standings.popitem(last=False)


def is_panic(ejected: Collection[object], all_: Collection[object]) -> bool:
    """Whether so many of those that may be asked are ejected that it says nothing of each of them."""
    return len(ejected) >= PANIC_EJECTED_MIN and len(ejected) > PANIC_SHARE * len(all_)


def moved(average: float | None, newest: float, weight: float) -> float:
    """An exponentially weighted average with one value more; `average` is None before the first."""
    return newest if average is None else average + weight * (newest - average)
