"""A mesh in which some peers lie, simulated around the real ranking, estimates, canaries and health.

Nothing is sent: a peer is the chance that its results are right, and what its wrong ones look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

import numpy as np

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import PeerLost
from monai_node.registry.ids import PeerId
from monai_node.router.canary import CanaryRota
from monai_node.router.candidate import Candidate, Standing, candidate_of
from monai_node.router.demand import Demand
from monai_node.router.embed import Vector
from monai_node.router.estimate import Estimate, Estimates
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.outcome import Ending, Outcome, Source
from monai_node.router.policy import Policy
from monai_node.router.rank import rank_general
from monai_node.router.speed import Speeds
from monai_node.router.worth import Knowledge

# What a liar does: nothing, repeats the task, breaks off, serves a worse model, answers plausibly and wrong;
# the same after a while of honesty, the same but for canaries, both, the same with a huge model announced.
Lie = Literal["", "empty", "echo", "truncated", "weak", "plausible", "turncoat", "wary", "sly", "boaster"]
Trouble = Literal["", "slow", "flapping", "stale"]
# What can be seen of a result: nothing but that it is one, its form, or its value.
Contract = Literal["any", "form", "value"]

SKILL = Skill(id="chat", name="Chat", description="Answers questions.", model="tiny", is_general=True)
# Right answers and parameters of the three models that are served; liars announce the first.
MODELS = ((0.92, 7_000_000_000), (0.86, 3_000_000_000), (0.8, 1_000_000_000))
_BOASTED = 70_000_000_000
WEAK_ACCURACY = 0.45
# Of wrong results of a model, those whose form is broken, too.
_BROKEN_SHARE = 0.3
_KINDS_OF_TASKS = 8
_DIMENSIONS = 64
_CONTRACTS: tuple[tuple[Contract, float], ...] = (("any", 0.25), ("form", 0.55), ("value", 0.2))
_ATTEMPTS_MAX = 3
_RESULT_CHARS = 400
_BETWEEN_SECONDS = 8.0
_FLAP_SECONDS = 90.0
HONEST_REQUESTS = 150  # of a turncoat
TURNING: tuple[Lie, ...] = ("turncoat", "sly")


@dataclass(slots=True)
class Peer:
    offer: Offer
    accuracy: float
    lie: Lie = ""
    trouble: Trouble = ""
    seconds: float = 1.0


@dataclass(slots=True)
class Tally:
    """What came of the requests of one run."""

    right: list[bool] = field(default_factory=list[bool])
    asked_liars: list[float] = field(default_factory=list[float])  # of each request's attempts, the share
    failed: int = 0
    seconds: list[float] = field(default_factory=list[float])
    canaries: int = 0


@dataclass(frozen=True, slots=True)
class Defence:
    """What of the router is used. Without `ranking` peers are taken at random."""

    ranking: bool = True
    contracts: bool = True
    canaries: bool = True
    rated_share: float = 0.0  # of answers that people rate


NO_DEFENCE = Defence(ranking=False, contracts=False, canaries=False)


@dataclass(frozen=True, slots=True)
class _Task:
    vector: Vector
    contract: Contract


def peers_of(count: int, liars: int, lie: Lie, trouble: Trouble, random: Random) -> list[Peer]:
    """`count` peers, of which the first `liars` lie so, or are troubled so."""
    peers: list[Peer] = []
    for at in range(count):
        is_bad = at < liars
        model = 0 if is_bad and lie else at % len(MODELS)
        accuracy, parameters = MODELS[model]
        if is_bad and lie == "boaster":
            parameters = _BOASTED
        if is_bad and lie == "weak":
            accuracy = WEAK_ACCURACY
        info = ModelInfo(alias="tiny", digest=f"sha256:{parameters}", parameter_count=parameters)
        peer = PeerId(f"{random.getrandbits(64):x}")
        seconds = 12.0 if is_bad and trouble == "slow" else random.uniform(0.7, 1.4)
        offer = Offer(peer, f"peer {at}", "open", SKILL, info)
        peers.append(Peer(offer, accuracy, lie if is_bad else "", trouble if is_bad else "", seconds))
    return peers


class Mesh:
    """One gateway's view of such peers, request after request."""

    def __init__(self, peers: list[Peer], defence: Defence, seed: int) -> None:
        self._peers = {peer.offer.peer: peer for peer in peers}
        self._defence = defence
        self._random = Random(seed)
        directions = np.random.default_rng(seed).standard_normal((_KINDS_OF_TASKS + 1, _DIMENSIONS))
        self._kinds = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._noise = np.random.default_rng(seed + 1)
        self._estimates = Estimates()
        self._health = Health()
        self._speeds = Speeds()
        self._rota = CanaryRota(Random(seed))
        self._now = 1_000_000.0
        self._request = 0
        self.tally = Tally()

    def run(self, requests: int) -> Tally:
        for self._request in range(requests):
            self._ask()
            until = self._now + self._random.expovariate(1 / _BETWEEN_SECONDS)
            while self._defence.canaries and self._now < until:
                self._send_canary()
                self._now += 1.0
            self._now = max(self._now, until)
        return self.tally

    def _ask(self) -> None:
        contracts, shares = zip(*_CONTRACTS, strict=True)
        kind = self._random.randrange(_KINDS_OF_TASKS)
        task = _Task(self._vector(kind), self._random.choices(contracts, shares)[0])
        asked: list[Peer] = []
        started, is_right = self._now, None
        for candidate in self._order(task)[:_ATTEMPTS_MAX]:
            asked.append(self._peers[candidate.peer])
            is_right = self._attempt(candidate, task)
            if is_right is not None:
                break
        tally = self.tally
        tally.asked_liars.append(sum(bool(peer.lie) for peer in asked) / len(asked))
        tally.right.append(bool(is_right))
        tally.failed += is_right is None
        tally.seconds.append(self._now - started)
        if is_right is not None and self._random.random() < self._defence.rated_share:
            self._learn(asked[-1], float(is_right), "feedback", task.vector)

    def _order(self, task: _Task) -> Sequence[Candidate]:
        offers = [peer.offer for peer in self._peers.values()]
        self._random.shuffle(offers)
        if not self._defence.ranking:
            return [candidate_of(offer, Standing(1.0, ())) for offer in offers]
        view = self._estimates.view(task.vector, self._now)

        def chance(offer: Offer) -> Estimate:
            return view.of(offer.peer, offer.skill.id, _digest(offer))

        demand = Demand(Policy("open"), has_contract=task.contract != "any")
        knowledge = Knowledge(self._health, self._speeds, chance, self._random.random())
        return rank_general(offers, demand, knowledge, self._now).candidates

    def _attempt(self, candidate: Candidate, task: _Task) -> bool | None:
        """Whether the result is right; None when there is none, or when it breaks the task's contract."""
        peer = self._peers[candidate.peer]
        if self._is_away(peer):
            self._now += 5.0
            self._health.failed(candidate.peer, SKILL.id, PeerLost("gone"), self._now)
            return None
        seconds = peer.seconds * self._random.lognormvariate(0, 0.3)
        self._now += seconds
        is_right, form = self._result(peer)
        ending = Ending(None, None, seconds, 1, first_text_seconds=seconds / 4, chars=_RESULT_CHARS)
        self._speeds.completed(candidate, ending, self._now)
        self._health.succeeded(candidate.peer, SKILL.id, seconds, _RESULT_CHARS)
        is_broken = form == "empty" or (task.contract != "any" and form == "broken")
        is_broken = is_broken or (task.contract == "value" and not is_right)
        if not self._defence.contracts:
            return is_right if form != "empty" else None
        if is_broken or task.contract != "any":
            self._learn(peer, 0.0 if is_broken else 1.0, "contract", task.vector)
        return None if is_broken else is_right

    def _result(self, peer: Peer) -> tuple[bool, Literal["whole", "broken", "empty"]]:
        lie = peer.lie
        if lie in ("empty", "echo"):
            return False, "empty"
        if lie == "truncated":
            return False, "broken"
        if lie in ("plausible", "wary", "boaster"):
            return False, "whole"
        if lie in TURNING and self._request >= HONEST_REQUESTS:
            return False, "whole"
        is_right = self._random.random() < peer.accuracy
        return is_right, "broken" if not is_right and self._random.random() < _BROKEN_SHARE else "whole"

    def _is_away(self, peer: Peer) -> bool:
        return peer.trouble == "stale" or (
            peer.trouble == "flapping" and int(self._now / _FLAP_SECONDS + peer.seconds * 100) % 2 == 1
        )

    def _send_canary(self) -> None:
        offer = self._rota.due(
            [peer.offer for peer in self._peers.values()],
            self._now,
            lambda offer: self._estimates.is_suspect(offer.peer, SKILL.id, _digest(offer)),
        )
        if offer is None:
            return
        peer = self._peers[offer.peer]
        self._rota.sent(offer.peer, SKILL.id, self._now)
        self.tally.canaries += 1
        if not self._is_away(peer):
            honest = replace(peer, lie="") if peer.lie in ("wary", "sly") else peer
            self._learn(peer, float(self._result(honest)[0]), "canary", self._vector(_KINDS_OF_TASKS))

    def _learn(self, peer: Peer, value: float, source: Source, vector: Vector) -> None:
        offer = peer.offer
        self._estimates.learn(Outcome(offer.peer, SKILL.id, _digest(offer), value, source, self._now, vector))

    def _vector(self, kind: int) -> Vector:
        """Of a text of this kind: two of them have a cosine of about 0.5, as the embedder's have."""
        noise = self._noise.standard_normal(_DIMENSIONS)
        mixed = self._kinds[kind] + noise / np.linalg.norm(noise)
        return (mixed / np.linalg.norm(mixed)).astype(np.float32)


def _digest(offer: Offer) -> str:
    return offer.model.digest if offer.model is not None else ""
