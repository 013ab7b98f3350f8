from __future__ import annotations

import pytest

from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Label
from monai_node.router.policy import PeerLabel, may_see, peer_label

ME = PeerId("me")


@pytest.mark.parametrize(
    ("request_label", "seen_by"),
    [("local", {"self"}), ("trusted", {"self", "trusted"}), ("open", {"self", "trusted", "open"})],
)
def test_each_label_is_seen_by_exactly_these_peers(request_label: Label, seen_by: set[str]) -> None:
    peers: tuple[PeerLabel, ...] = ("self", "trusted", "open")
    assert {peer for peer in peers if may_see(request_label, peer)} == seen_by


def test_peers_of_an_open_mesh_are_not_trusted() -> None:
    assert peer_label(ME, ME, mesh_is_open=True) == "self"
    assert peer_label(PeerId("other"), ME, mesh_is_open=True) == "open"
    assert peer_label(PeerId("other"), ME, mesh_is_open=False) == "trusted"
