from __future__ import annotations

from dataclasses import replace

import pytest

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Label
from monai_node.router.offer import Offer, PeerLabel
from monai_node.router.policy import (
    NAMES_MAX,
    Policy,
    listed,
    may_see,
    nobody_allowed,
    peer_label,
    verdict,
)

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


def offer(peer: str, *, alias: str = "", skill: str = "chat", digest: str = "") -> Offer:
    card = Skill(id=skill, name=skill, description="answers", model=alias)
    model = ModelInfo(alias=alias, digest=digest) if alias else None
    return Offer(PeerId(peer), "a friend", "trusted", card, model)


LONG = "12D3KooWabcdefgh"
TINY = offer(LONG, alias="tiny", digest="sha256:12")


@pytest.mark.parametrize(
    "name", [f"peer:{LONG}", "peer:abcdefgh", "model:tiny", "model:sha256:12", "skill:chat"]
)
def test_whoever_is_named_is_denied_or_the_only_one_allowed(name: str) -> None:
    other = offer("12D3KooWother!!!", alias="big", skill="code")
    assert verdict(TINY, Policy("trusted", denied=listed([name]))).endswith("is denied")
    assert not verdict(other, Policy("trusted", denied=listed([name])))
    assert not verdict(TINY, Policy("trusted", allowed=listed([name])))
    assert verdict(other, Policy("trusted", allowed=listed([name]))) == "not among those that are allowed"


def test_what_a_peer_calls_itself_lets_it_on_no_list() -> None:
    assert verdict(TINY, Policy("trusted", allowed=listed(["peer:a friend"])))


def test_deny_wins_and_the_label_comes_before_both() -> None:
    both = Policy("trusted", allowed=listed(["model:tiny"]), denied=listed(["peer:abcdefgh"]))
    assert verdict(TINY, both) == "peer:abcdefgh is denied"
    assert "not for 'trusted' peers" in verdict(TINY, replace(both, label="local"))


def test_each_kind_of_name_on_an_allow_list_must_fit() -> None:
    policy = Policy("trusted", allowed=listed(["model:tiny", "model:big", "peer:abcdefgh"]))
    assert not verdict(TINY, policy)
    assert verdict(offer("12D3KooWother!!!", alias="tiny"), policy)
    assert verdict(offer(LONG, skill="sums"), policy), "an agent has no model"


def test_a_request_narrows_what_its_owner_allows_and_never_widens_it() -> None:
    owner = Policy("open", allowed=listed(["model:tiny"]), denied=listed(["skill:code"]), cost_max=2.0)
    asked = Policy("trusted", allowed=listed(["model:big"]), cost_max=5.0).within(owner)
    assert (asked.label, asked.cost_max) == ("trusted", 2.0)
    assert verdict(TINY, asked)
    assert verdict(offer("b", alias="big"), asked)
    assert verdict(offer("b", alias="tiny", skill="code"), Policy("trusted").within(owner))


def test_an_allow_list_that_names_nobody_says_so() -> None:
    policy = Policy("trusted", allowed=listed(["model:huge", "peer:abcdefgh"]))
    assert "peer:abcdefgh, model:huge" in nobody_allowed([TINY], policy)
    assert nobody_allowed([TINY], Policy("trusted", allowed=listed(["model:tiny"]))) == ""


@pytest.mark.parametrize("text", ["tiny", "model:", "color:red", "peer:" + "x" * 200])
def test_a_name_that_means_nobody_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write peer:ID, model:ALIAS or skill:ID"):
        listed([text])


def test_lists_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        listed([f"peer:{number}" for number in range(NAMES_MAX + 1)])
