"""The one room where it is decided who may be given a task: labels first, then deny lists, then allow lists.

Pure. What the owner of a gateway rules out no request can let in again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from monai_node.registry.ids import PeerId, short
from monai_node.registry.wire import Label
from monai_node.router.offer import Offer, PeerLabel

_MAY_SEE: dict[Label, frozenset[PeerLabel]] = {
    "local": frozenset({"self"}),
    "trusted": frozenset({"self", "trusted"}),
    "open": frozenset({"self", "trusted", "open"}),
}

NAMES_MAX = 64
NAME_CHARS_MAX = 160
_KINDS = ("peer", "model", "skill")


def may_see(request_label: Label, peer_label: PeerLabel) -> bool:
    """Whether a peer of this label may be given any part of a request of that label."""
    return peer_label in _MAY_SEE[request_label]


def seeing(request_label: Label) -> frozenset[PeerLabel]:
    """The labels of peers that may be given a request of this label."""
    return _MAY_SEE[request_label]


def shows_no_more(label: Label, than: Label) -> bool:
    """Whether whoever may see a request of the one label may see one of the other, too."""
    return _MAY_SEE[label] <= _MAY_SEE[than]


def peer_label(peer: PeerId, me: PeerId, mesh_is_open: bool) -> PeerLabel:
    """What a member of our mesh is to us: in a private mesh it proved that it knows the secret, in an
    open one it proved nothing but its key."""
    if peer == me:
        return "self"
    return "open" if mesh_is_open else "trusted"


@dataclass(frozen=True, slots=True)
class Names:
    """Peers by id or short id, models by alias or digest, skills by id. A peer's name for itself is not
    among them: anybody may take it."""

    peers: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    skills: frozenset[str] = frozenset()

    def __str__(self) -> str:
        groups = zip(_KINDS, (self.peers, self.models, self.skills), strict=True)
        return ", ".join(f"{kind}:{name}" for kind, names in groups for name in sorted(names))


def listed(texts: Iterable[str]) -> tuple[Names, ...]:
    """One list from `peer:ID`, `model:ALIAS` or `skill:ID`, and none without any; ValueError, with a
    sentence, for anything else."""
    found: dict[str, set[str]] = {kind: set() for kind in _KINDS}
    for count, text in enumerate(texts, 1):
        kind, _, name = text.partition(":")
        if kind not in found or not name or len(text) > NAME_CHARS_MAX or count > NAMES_MAX:
            raise ValueError(
                f"{text[:NAME_CHARS_MAX]!r} names nobody: write peer:ID, model:ALIAS or skill:ID, each of at"
                f" most {NAME_CHARS_MAX} characters and at most {NAMES_MAX} of them"
            )
        found[kind].add(name)
    return (Names(*(frozenset(found[kind]) for kind in _KINDS)),) if any(found.values()) else ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Under what rules one task is given away.

    An offer must be on every one of the `allowed` lists: for each kind of name that a list has, one of
    its names. Whatever a name of `denied` fits is out, whichever list allows it. `cost_max` is the most
    that the task may cost, in the mesh's own unit.
    """

    label: Label
    allowed: tuple[Names, ...] = ()
    denied: tuple[Names, ...] = ()
    cost_max: float = math.inf

    def within(self, owner: Policy) -> Policy:
        """This policy as a part of the owner's, which it can narrow only. The label is this one's: who
        may see a request is the asker's to say."""
        return Policy(
            self.label,
            (*owner.allowed, *self.allowed),
            (*owner.denied, *self.denied),
            min(owner.cost_max, self.cost_max),
        )


# Of an owner who rules nobody out.
NO_POLICY = Policy("open")


def verdict(offer: Offer, policy: Policy) -> str:
    """Why an offer may not be asked under this policy, in words; "" when it may."""
    if not may_see(policy.label, offer.label):
        return f"a {policy.label!r} request is not for {offer.label!r} peers"
    for names in policy.denied:
        if named := _named(offer, names):
            return f"{named} is denied"
    for names in policy.allowed:
        if not _is_allowed(offer, names):
            return "not among those that are allowed"
    return ""


def nobody_allowed(offers: Iterable[Offer], policy: Policy) -> str:
    """Which allow list names nobody of `offers`, in one sentence; "" when each names somebody."""
    listed = list(offers)
    for names in policy.allowed:
        if not any(_is_allowed(offer, names) for offer in listed):
            return (
                f"nobody that can be reached is among those that are allowed ({names}); name others, or none"
            )
    return ""


def _named(offer: Offer, names: Names) -> str:
    """By which of `names` an offer is meant, written as in a list; "" by none."""
    for name in (offer.peer, short(offer.peer)):
        if name in names.peers:
            return f"peer:{name}"
    for name in _models(offer):
        if name in names.models:
            return f"model:{name}"
    return f"skill:{offer.skill.id}" if offer.skill.id in names.skills else ""


def _is_allowed(offer: Offer, names: Names) -> bool:
    return (
        (not names.peers or offer.peer in names.peers or short(offer.peer) in names.peers)
        and (not names.models or any(name in names.models for name in _models(offer)))
        and (not names.skills or offer.skill.id in names.skills)
    )


def _models(offer: Offer) -> tuple[str, ...]:
    """What the model behind an offer is called; nothing for an agent."""
    named = (offer.skill.model, offer.model.digest if offer.model is not None else "")
    return tuple(name for name in named if name)
