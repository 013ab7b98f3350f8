from __future__ import annotations

import pytest

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import PeerLost
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Label
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.planners import PLANNER_FEATURE, Mark, Writer, may_plan, planners
from monai_node.router.policy import PeerLabel, Policy, listed
from monai_node.router.rank import Candidate

B = 1_000_000_000
TRUSTED = Policy("trusted")


def offer(
    peer: str,
    parameters: int = 4 * B,
    *,
    alias: str = "large",
    label: PeerLabel = "trusted",
    features: tuple[str, ...] = (),
    skill: str = "chat",
    is_general: bool = True,
    price: float = 0.0,
) -> Offer:
    card = Skill(id=skill, name=skill, description="answers", model=alias, is_general=is_general, price=price)
    model = ModelInfo(alias=alias, parameter_count=parameters, features=list(features))
    return Offer(PeerId(peer), f"{peer}'s node", label, card, model)


def order(
    *offers: Offer,
    marks: dict[Writer, Mark] | None = None,
    policy: Policy = TRUSTED,
    health: Health | None = None,
) -> list[Candidate]:
    return planners(offers, marks or {}, policy=policy, health=health or Health(), now=0.0)


def peers(candidates: list[Candidate]) -> list[str]:
    return [candidate.peer for candidate in candidates]


def test_a_model_may_plan_by_its_size_or_by_its_owner_s_word() -> None:
    assert may_plan(offer("a", 3 * B))
    assert not may_plan(offer("a", 3 * B - 1))
    assert not may_plan(offer("a", 0))
    assert may_plan(offer("a", 0, features=(PLANNER_FEATURE,)))
    assert may_plan(offer("a", 0, features=(PLANNER_FEATURE,), is_general=False))
    assert not may_plan(offer("a", 9 * B, is_general=False)), "its owner gave it another task"


def test_an_agent_never_plans() -> None:
    card = Skill(id="sums", name="sums", description="calculates")
    assert not may_plan(Offer(PeerId("a"), "a", "self", card))


def test_a_skill_of_another_model_does_not_make_a_planner() -> None:
    mixed = offer("a")
    card = mixed.skill.model_copy(update={"model": "tiny"})
    assert not may_plan(Offer(mixed.peer, "a", "trusted", card, mixed.model))


def test_the_best_mark_comes_first_then_the_largest_without_one() -> None:
    marks = {(PeerId("a"), "large"): Mark(0.7, 1.0), (PeerId("b"), "large"): Mark(0.9, 2.0, 3 * 86_400.0)}
    found = order(offer("a"), offer("b"), offer("c", 8 * B), offer("d", 70 * B), marks=marks)
    assert peers(found) == ["b", "a", "d", "c"]
    assert "plans 0.90 well in 2.0 s, as an exam found 3 days ago" in found[0].reasons
    assert "took no exam yet" in found[2].reasons
    assert "70.0B parameters" in found[2].reasons


def test_each_model_is_asked_through_one_skill_its_general_one() -> None:
    found = order(
        offer("a", features=(PLANNER_FEATURE,), skill="code", is_general=False),
        offer("a", features=(PLANNER_FEATURE,)),
    )
    assert [candidate.skill for candidate in found] == ["chat"]


@pytest.mark.parametrize(
    ("label", "seen"), [("local", ["a"]), ("trusted", ["a", "b"]), ("open", ["a", "b", "c"])]
)
def test_only_those_that_may_see_the_request_are_named(label: Label, seen: list[str]) -> None:
    offers = (offer("a", label="self"), offer("b", label="trusted"), offer("c", label="open"))
    assert peers(order(*offers, policy=Policy(label))) == seen


def test_nobody_is_named_who_is_denied_or_wants_money() -> None:
    offers = (offer("a"), offer("b"), offer("c", price=0.1), offer("d", alias="other"))
    denied = Policy("trusted", denied=listed(["peer:a", "model:other"]))
    assert peers(order(*offers, policy=denied)) == ["b"]


def test_who_is_cooling_down_comes_last() -> None:
    health = Health()
    health.failed(PeerId("a"), "chat", PeerLost("gone"), 0.0)
    assert peers(order(offer("a", 70 * B), offer("b"), health=health)) == ["b", "a"]
