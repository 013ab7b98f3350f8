"""Who offers what at this moment: for the router, and for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monai_node.mesh.gateway.backend import ModelEntry, PeerView
from monai_node.mesh.node import Node
from monai_node.registry.advert import Advert, Beacon, ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.registry.membership import PeerRecord
from monai_node.router.offer import Offer
from monai_node.router.policy import peer_label


@dataclass(frozen=True, slots=True)
class _Said:
    """What the offers of one peer are made from."""

    advert: Advert
    load: tuple[int, int]
    heard_at: float


class Offers:
    """Everything that one node knows to be offered, itself included."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[PeerId, tuple[_Said, list[Offer]]] = {}
        self._listed: Sequence[Offer] = ()
        self._own: tuple[object, ...] = ()

    def now(self) -> Sequence[Offer]:
        """Every skill that may be given a task now: our own, and those of peers that are alive and accept
        tasks. The very same list as long as nothing has changed."""
        known: dict[PeerId, tuple[_Said, list[Offer]]] = {}
        has_changed = False
        for record, advert in self._announced():
            if record.beacon is None or record.beacon.admission == "accepting":
                # Every answer to a probe brings the load along.
                said = _Said(advert, _load(record.beacon), record.heard_at)
                before = self._known.get(record.peer)
                if before is None or not _is_same(before[0], said):
                    before = (said, self._of_peer(record.peer, said))
                    has_changed = True
                known[record.peer] = before
        own = (self._node.provider.skills, self._node.provider.models, self._own_load())
        if has_changed or own != self._own or known.keys() != self._known.keys():
            self._own = own
            self._listed = [*self._of_this_node(), *(offer for _, mine in known.values() for offer in mine)]
        self._known = known
        return self._listed

    def models(self) -> Sequence[ModelEntry]:
        return [
            ModelEntry(
                alias=model.alias,
                peer=peer,
                peer_name=name,
                digest=model.digest,
                architecture=model.architecture,
                parameter_count=model.parameter_count,
                quantisation=model.quantisation,
                n_ctx=model.n_ctx,
                licence=model.licence,
            )
            for peer, name, model in self._models()
        ]

    def peers(self, now: float) -> Sequence[PeerView]:
        """This node, then all that are known, in order of peer id. `now` is on the directory's clock."""
        records = sorted(self._node.directory.membership.records(), key=lambda record: record.peer)
        return [self._self_view(), *(_view(record, now) for record in records)]

    def _own_load(self) -> tuple[int, int]:
        return self._node.provider.running, self._node.provider.queued

    def _of_this_node(self) -> list[Offer]:
        node = self._node
        said = (node.provider.models, self._own_load(), math.inf)
        return [self._offer(node.peer_id, node.config.name, skill, *said) for skill in node.provider.skills]

    def _of_peer(self, peer: PeerId, said: _Said) -> list[Offer]:
        advert = said.advert
        return [
            self._offer(peer, advert.name, skill, advert.models, said.load, said.heard_at)
            for skill in advert.skills
        ]

    def _offer(
        self,
        peer: PeerId,
        name: str,
        skill: Skill,
        models: Sequence[ModelInfo],
        load: tuple[int, int],
        told_at: float,
    ) -> Offer:
        return Offer(
            peer=peer,
            peer_name=name,
            label=peer_label(peer, self._node.peer_id, self._node.mesh.is_open),
            skill=skill,
            model=next((model for model in models if model.alias == skill.model), None),
            running=load[0],
            queued=load[1],
            load_told_at=told_at,
        )

    def _announced(self) -> Iterator[tuple[PeerRecord, Advert]]:
        for record in self._node.directory.membership.alive():
            if record.advert is not None:
                yield record, record.advert

    def _models(self) -> Iterator[tuple[PeerId, str, ModelInfo]]:
        for model in self._node.provider.models:
            yield self._node.peer_id, self._node.config.name, model
        for record, advert in self._announced():
            for model in advert.models:
                yield record.peer, advert.name, model

    def _self_view(self) -> PeerView:
        node = self._node
        running, queued = self._own_load()
        return PeerView(
            id=node.peer_id,
            name=node.config.name,
            state="self",
            addrs=list(node.transport.addrs),
            models=[model.alias for model in node.provider.models],
            skills=[skill.id for skill in node.provider.skills],
            running=running,
            queued=queued,
        )


def _is_same(one: _Said, other: _Said) -> bool:
    # The identity of an advert, for comparing all its words would cost more than making its offers.
    return one.advert is other.advert and (one.load, one.heard_at) == (other.load, other.heard_at)


def _view(record: PeerRecord, now: float) -> PeerView:
    advert = record.advert
    running, queued = _load(record.beacon)
    return PeerView(
        id=record.peer,
        name=advert.name if advert else "",
        state=record.liveness,
        addrs=list(record.addrs),
        models=[model.alias for model in advert.models] if advert else [],
        skills=[skill.id for skill in advert.skills] if advert else [],
        running=running,
        queued=queued,
        last_heard_seconds=round(now - record.heard_at, 3),
    )


def _load(beacon: Beacon | None) -> tuple[int, int]:
    return (beacon.running, beacon.queued) if beacon else (0, 0)
