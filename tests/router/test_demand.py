from __future__ import annotations

from dataclasses import replace

import pytest

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.router.demand import FILTERED_TOLD_MAX, Demand, Sieve, cost_of, eligible, of_label, unspoken
from monai_node.router.offer import Offer
from monai_node.router.policy import Policy, listed

ASKED = of_label("trusted")


def offer(price: float = 0.0, *, modes: tuple[str, ...] = ("text/plain",), **model: object) -> Offer:
    info = ModelInfo.model_validate({"alias": "tiny", **model})
    card = Skill(
        id="chat",
        name="",
        description="",
        model="tiny",
        price=price,
        input_modes=list(modes),
        output_modes=list(modes),
    )
    return Offer(PeerId("a"), "a", "trusted", card, info)


AGENT = Offer(PeerId("b"), "b", "trusted", Skill(id="sums", name="", description="", price=3.0))


@pytest.mark.parametrize(
    ("given", "demand", "reason"),
    [
        (offer(), replace(ASKED, takes=frozenset({"image/png"})), "takes text/plain, not image/png"),
        (
            offer(),
            replace(ASKED, makes=frozenset({"image/png", "audio/wav"})),
            "makes text/plain, not audio/wav or image/png",
        ),
        (
            offer(n_ctx=512),
            replace(ASKED, prompt_chars=1600),
            "reads 512 tokens at most, about 600 are needed",
        ),
        (offer(), replace(ASKED, features=frozenset({"tools"})), "cannot call tools"),
        (AGENT, replace(ASKED, features=frozenset({"tools"})), "cannot call tools"),
        (
            offer(5.0),
            replace(ASKED, policy=Policy("trusted", cost_max=0.5)),
            "would cost about 1, 0.5 is the most",
        ),
        (
            offer(),
            replace(ASKED, policy=Policy("trusted", denied=listed(["model:tiny"]))),
            "model:tiny is denied",
        ),
    ],
)
def test_what_cannot_be_given_a_task_is_filtered_with_numbers(
    given: Offer, demand: Demand, reason: str
) -> None:
    assert eligible(given, demand) == reason
    assert eligible(given, ASKED) == ""


@pytest.mark.parametrize(
    ("given", "demand"),
    [
        (
            offer(modes=("image/*",)),
            replace(ASKED, takes=frozenset({"image/png"}), makes=frozenset({"image/png"})),
        ),
        (offer(modes=("*/*",)), replace(ASKED, takes=frozenset({"text/plain", "audio/wav"}))),
        (offer(languages=["en"]), replace(ASKED, language="de")),
        (offer(n_ctx=600), replace(ASKED, prompt_chars=1600)),
        (offer(features=["tools"]), replace(ASKED, features=frozenset({"tools"}))),
        (offer(5.0), replace(ASKED, policy=Policy("trusted", cost_max=1.0))),
    ],
)
def test_what_can_be_given_a_task_passes(given: Offer, demand: Demand) -> None:
    assert eligible(given, demand) == ""


def test_a_model_costs_by_the_length_of_its_result_and_an_agent_by_the_task() -> None:
    assert cost_of(offer(2.0), 4000) == 2.0
    assert cost_of(AGENT, 4000) == 3.0


def test_a_price_that_is_no_number_is_too_much() -> None:
    card = AGENT.skill.model_copy(update={"price": float("nan")})
    assert "would cost" in eligible(replace(AGENT, skill=card), ASKED)


def test_a_sieve_lets_through_what_is_eligible_and_no_more() -> None:
    free = replace(AGENT, skill=AGENT.skill.model_copy(update={"price": 0.0}))
    offers = [offer(), offer(n_ctx=512), offer(5.0), offer(modes=("image/png",)), AGENT, free]
    offers += [replace(each, label=label) for each in offers for label in ("self", "open")]
    asks: list[dict[str, object]] = [
        {},
        {"prompt_chars": 1600},
        {"takes": frozenset({"image/png"})},
        {"makes": frozenset({"image/png"})},
        {"features": frozenset({"tools"})},
        {"policy": Policy("open", cost_max=0.5)},
        {"policy": Policy("trusted", denied=listed(["model:tiny"]))},
        {"policy": Policy("open", allowed=listed(["skill:sums"]))},
    ]
    for ask in asks:
        sieve = Sieve(replace(ASKED, **ask))
        able = [each for each in offers if not eligible(each, sieve.demand)]
        assert list(map(id, sieve(offers))) == list(map(id, able)), ask
        assert {id(each) for each, _ in sieve.filtered} == {*map(id, offers)} - {*map(id, able)}


def test_only_some_of_what_was_filtered_is_told() -> None:
    sieve = Sieve(of_label("local"))
    offers = [replace(AGENT) for _ in range(FILTERED_TOLD_MAX + 5)]
    assert sieve(offers) == []
    assert len(sieve.filtered) == FILTERED_TOLD_MAX


@pytest.mark.parametrize(
    ("announced", "language", "said"),
    [
        (["en", "fr"], "de", "speaks en, fr, not de"),
        (["pt"], "pt-BR", ""),
        (["en-GB"], "en", ""),
        ([], "de", ""),
        (["en"], "", ""),
        (["English"], "de", ""),
    ],
)
def test_a_language_that_is_not_listed_is_told(announced: list[str], language: str, said: str) -> None:
    assert unspoken(offer(languages=announced), replace(ASKED, language=language)) == said
