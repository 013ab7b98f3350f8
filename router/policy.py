"""Who may be shown what: the label of a request against the label of a peer. One table, no exceptions."""

from __future__ import annotations

from typing import Literal

from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Label

PeerLabel = Literal["self", "trusted", "open"]

_MAY_SEE: dict[Label, frozenset[PeerLabel]] = {
    "local": frozenset({"self"}),
    "trusted": frozenset({"self", "trusted"}),
    "open": frozenset({"self", "trusted", "open"}),
}


def may_see(request_label: Label, peer_label: PeerLabel) -> bool:
    """Whether a peer of this label may be given any part of a request of that label."""
    return peer_label in _MAY_SEE[request_label]


def shows_no_more(label: Label, than: Label) -> bool:
    """Whether whoever may see a request of the one label may see one of the other, too."""
    return _MAY_SEE[label] <= _MAY_SEE[than]


def peer_label(peer: PeerId, me: PeerId, mesh_is_open: bool) -> PeerLabel:
    """What a member of our mesh is to us: in a private mesh it proved that it knows the secret, in an
    open one it proved nothing but its key."""
    if peer == me:
        return "self"
    return "open" if mesh_is_open else "trusted"
