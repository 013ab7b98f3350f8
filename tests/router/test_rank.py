from __future__ import annotations

from dataclasses import replace

import pytest

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import NoProvider, NotFound, PeerLost, Unsupported
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Label
from monai_node.router.candidate import Ranking
from monai_node.router.demand import Demand, Sieve, of_label
from monai_node.router.estimate import Estimate
from monai_node.router.health import Health
from monai_node.router.match import Match, Matches
from monai_node.router.named import rank_models
from monai_node.router.offer import Offer, PeerLabel
from monai_node.router.policy import Policy, listed
from monai_node.router.rank import CANDIDATES_MAX, rank, rank_general, rank_named
from monai_node.router.worth import Knowledge


def chat(
    peer: str,
    alias: str = "tiny",
    parameters: int = 135_000_000,
    *,
    label: PeerLabel = "trusted",
    features: tuple[str, ...] = (),
    running: int = 0,
    skill: str = "chat",
    is_general: bool = True,
) -> Offer:
    card = Skill(id=skill, name=skill, description="answers", model=alias, is_general=is_general)
    model = ModelInfo(alias=alias, parameter_count=parameters, features=list(features))
    return Offer(PeerId(peer), f"{peer}'s node", label, card, model, running)


def sums(peer: str, *, label: PeerLabel = "trusted", running: int = 0, queued: int = 0) -> Offer:
    card = Skill(id="sums", name="sums", description="calculates", is_idempotent=False)
    return Offer(PeerId(peer), f"{peer}'s node", label, card, None, running, queued)


def match(offer: Offer, fit: float) -> Match:
    return Match((offer,), fit, fit, fit, "What is 12 * 9?")


def replicas(fit: float, *offers: Offer) -> Match:
    return replace(match(offers[0], fit), offers=offers)


def ranked(*matches: Match, label: Label = "trusted", health: Health | None = None) -> Ranking:
    return rank(Matches(matches, 0.1), Sieve(of_label(label)), Knowledge(health or Health()), 0.0)


def peers(ranking: Ranking) -> list[str]:
    return [candidate.peer for candidate in ranking.candidates]


def test_a_narrow_skill_that_matches_stands_before_a_general_one() -> None:
    ranking = ranked(match(chat("c"), 0.3), match(sums("a"), 0.71))
    assert peers(ranking) == ["a", "c"]
    best = ranking.candidates[0]
    assert (best.skill, best.model, best.is_general, best.is_idempotent) == ("sums", "", False, False)
    assert best.reasons == (
        "fits 0.71",
        "example 'What is 12 * 9?' is 0.71 alike",
        "0 running, 0 queued",
    )
    assert "135M parameters" in ranking.candidates[1].reasons


def test_a_narrow_skill_that_fits_too_little_is_passed_over_with_the_reason() -> None:
    ranking = ranked(match(chat("c"), 0.1), match(sums("a"), 0.29))
    assert peers(ranking) == ["c"]
    assert (ranking.decision, ranking.none) == ("fallback", 0.1)
    ((offer, reason),) = ranking.filtered
    assert offer.peer == "a"
    assert reason == "fits 0.29, 0.30 is needed"


def test_where_no_skill_fits_and_no_general_one_is_there_the_nearest_is_named() -> None:
    with pytest.raises(NoProvider, match="no general model can be reached; the nearest is 'sums'"):
        ranked(match(sums("a"), 0.29))
    denied = Policy("trusted", denied=listed(["model:tiny"]))
    with pytest.raises(NoProvider, match=r"no general model may be asked \(c's node: model:tiny is denied\)"):
        rank(
            Matches((match(sums("a"), 0.29),), 0.9),
            Sieve(Demand(denied)),
            Knowledge(Health()),
            0.0,
            offers=lambda: [sums("a"), chat("c")],
        )
    assert ranked().decision == "none"
    assert ranked(match(sums("a"), 0.9), label="local").decision == "none"


@pytest.mark.parametrize(
    ("label", "expected"), [("local", ["s"]), ("trusted", ["s", "t"]), ("open", ["s", "t", "o"])]
)
def test_only_peers_that_may_see_the_request_are_candidates(label: Label, expected: list[str]) -> None:
    offers = [chat("s", label="self"), chat("t", label="trusted"), chat("o", label="open")]
    ranking = ranked(*(match(offer, 0.5) for offer in offers), label=label)
    assert sorted(peers(ranking)) == sorted(expected)
    assert len(ranking.filtered) == 3 - len(expected)


def test_replicas_are_ordered_by_when_they_would_be_done() -> None:
    health = Health()
    for peer, seconds in (("slow", 9.0), ("quick", 1.0), ("busy", 1.0)):
        health.succeeded(PeerId(peer), "sums", seconds)
    ranking = ranked(
        replicas(0.7, sums("busy", running=4, queued=2), sums("slow"), sums("quick")), health=health
    )
    assert peers(ranking) == ["quick", "busy", "slow"]
    assert len({candidate.tier for candidate in ranking.candidates}) == 1
    assert "done in about 1.0 s" in ranking.candidates[0].reasons
    assert "4 running, 2 queued" in ranking.candidates[1].reasons


def test_what_cools_down_comes_last_unless_everything_does() -> None:
    health = Health()
    health.failed(PeerId("a"), "sums", PeerLost("x"), now=0.0)
    matches = [match(sums("a"), 0.8), match(sums("b"), 0.8), match(chat("c"), 0.1)]
    ranking = ranked(*matches, health=health)
    assert peers(ranking) == ["b", "c", "a"]
    assert "cooling down after 1 failure" in ranking.candidates[-1].reasons
    health.failed(PeerId("b"), "sums", PeerLost("x"), now=0.0)
    health.failed(PeerId("c"), "chat", PeerLost("x"), now=0.0)
    assert peers(ranked(*matches, health=health)) == ["a", "b", "c"]


def test_general_skills_are_ordered_by_size_then_load() -> None:
    offers = [chat("small"), chat("big", "b", 3_000_000_000, running=1), chat("idle", "b", 3_000_000_000)]
    ranking = ranked(*(match(offer, 0.2) for offer in offers))
    assert peers(ranking) == ["idle", "big", "small"]
    assert "3.0B parameters" in ranking.candidates[0].reasons


def test_a_general_fallback_is_kept_however_many_replicas_there_are() -> None:
    many = [sums(f"a{number}") for number in range(CANDIDATES_MAX + 3)]
    ranking = ranked(replicas(0.9, *many), match(chat("c"), 0.1), match(chat("d", "big", 10**9), 0.1))
    assert len(ranking.candidates) == CANDIDATES_MAX
    assert peers(ranking)[-1] == "d"
    assert len(ranking.filtered) == len(many) + 2 - CANDIDATES_MAX


def test_a_peer_with_many_skills_leaves_places_for_others() -> None:
    liar = [match(chat("liar", skill=f"best-{n}", is_general=False), 0.99) for n in range(CANDIDATES_MAX)]
    giant = match(chat("liar", "giant", parameters=2**62), 0.2)
    ranking = ranked(*liar, giant, match(sums("honest"), 0.71), match(chat("general"), 0.2))
    assert peers(ranking) == ["liar", "liar", "honest", "general", "liar", "liar"]


def test_a_peer_that_calls_itself_by_anothers_id_is_not_taken_for_it() -> None:
    victim = chat("12D3KooWvictim")
    impostor = replace(chat("12D3KooWother!!"), peer_name=victim.peer)
    short_impostor = replace(impostor, peer_name=victim.peer[-8:])
    for asked in (victim.peer, victim.peer[-8:]):
        offers = [impostor, short_impostor, victim]
        ranking = rank_models(offers, "tiny", asked, of_label("trusted"), Knowledge(Health()), 0.0)
        assert peers(ranking) == [victim.peer]


def test_who_was_named_is_asked_whatever_the_words_are_like() -> None:
    why = "skill 'sums' was asked for"
    ranking = rank_named([sums("a")], why, of_label("trusted"), Knowledge(Health()), 0.0)
    assert peers(ranking) == ["a"]
    assert ranking.candidates[0].reasons[0] == why


def test_an_announced_example_cannot_break_the_line_it_is_shown_in() -> None:
    hostile = replace(match(sums("a"), 0.9), best_example="x\n\x1b[31m" + "y" * 500)
    reason = ranked(hostile).candidates[0].reasons[1]
    assert reason.isprintable()
    assert len(reason) < 100


def models(*offers: Offer, alias: str, peer: str | None = None, label: Label = "trusted") -> list[str]:
    ranking = rank_models(offers, alias, peer, of_label(label), Knowledge(Health()), 0.0)
    return [candidate.peer for candidate in ranking.candidates]


LONG = "12D3KooWabcdefgh"


@pytest.mark.parametrize("peer", [LONG, "abcdefgh", f"{LONG}'s node"])
def test_a_model_is_found_everywhere_or_at_one_peer(peer: str) -> None:
    offers = [chat("b", running=1), chat(LONG), chat("c", "other"), sums("d")]
    assert models(*offers, alias="tiny") == [LONG, "b"]
    assert models(*offers, alias="tiny", peer=peer) == [LONG]


def test_no_alias_takes_the_place_of_a_model_at_a_peer() -> None:
    liar = chat("liar", f"tiny@{LONG}")
    assert models(liar, chat(LONG), alias="tiny", peer=LONG) == [LONG]
    with pytest.raises(NotFound):
        models(liar, chat("b"), alias="tiny", peer=LONG)


def test_a_model_with_several_skills_is_one_candidate_with_the_general_skill() -> None:
    offers = [chat("a", skill="code", is_general=False), chat("a")]
    ranking = rank_models(offers, "tiny", None, of_label("trusted"), Knowledge(Health()), 0.0)
    assert [(each.peer, each.skill, each.model) for each in ranking.candidates] == [("a", "chat", "tiny")]


@pytest.mark.parametrize("alias", ["huge", "tiny@nowhere"])
def test_an_unknown_model_is_refused_with_those_that_are_known(alias: str) -> None:
    with pytest.raises(NotFound, match=r"known are m00, m01, .* and 2 more") as refused:
        models(*(chat("a", f"m{number:02}") for number in range(12)), alias=alias)
    assert refused.value.code == "model_not_found"
    with pytest.raises(NotFound, match="no model is served"):
        models(sums("a"), alias=alias)


def test_a_model_that_only_others_may_serve_is_not_reached() -> None:
    with pytest.raises(Unsupported, match="may not see"):
        models(chat("a"), alias="tiny", label="local")


def general(*offers: Offer, features: frozenset[str] = frozenset()) -> list[str]:
    demand = replace(of_label("trusted"), features=features)
    ranking = rank_general(offers, demand, Knowledge(Health()), 0.0)
    return [candidate.peer for candidate in ranking.candidates]


def test_a_conversation_goes_to_the_largest_general_model() -> None:
    offers = [chat("small"), chat("big", "b", 10**9), chat("code", is_general=False), sums("d")]
    assert general(*offers) == ["big", "small"]
    assert general(sums("d")) == []


def test_required_tools_need_a_model_that_calls_them() -> None:
    able = chat("able", features=("tools",))
    assert general(chat("big", "b", 10**9), able, features=frozenset({"tools"})) == ["able"]
    with pytest.raises(Unsupported, match="tools"):
        general(chat("big"), features=frozenset({"tools"}))


def test_a_skill_that_copies_the_words_of_a_task_does_not_shut_out_one_that_does_it() -> None:
    other = Skill(id="exact", name="exact", description="reckons")
    liar, honest = match(sums("liar"), 0.996), Offer(PeerId("honest"), "", "trusted", other)
    beside = replace(match(honest, 0.001), alone=0.88)
    general = match(chat("c"), 0.004)
    assert peers(ranked(replace(liar, alone=0.996), beside, general)) == ["liar", "honest", "c"]
    assert peers(ranked(liar, replace(beside, alone=0.5), general)) == ["liar", "c"]

    def known(offer: Offer) -> Estimate:
        return Estimate(0.3 if offer.peer == "liar" else 0.8, 0.05, 12.0, 12.0)

    matches = Matches((replace(liar, alone=0.996), beside, general), 0.004)
    order = rank(matches, Sieve(of_label("trusted")), Knowledge(Health(), chance=known), 0.0)
    assert peers(order) == ["honest", "liar", "c"]
    assert order.candidates[0].reasons[0] == "fits 0.00 beside a likelier skill, 0.88 without it"
