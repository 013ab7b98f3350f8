"""Whom the weighing puts first: by what is known, by what it costs, by when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import PeerLost, TaskFailed, Unsupported
from monai_node.registry.ids import PeerId
from monai_node.router.candidate import Ranking
from monai_node.router.choice import TIER_WIDTH
from monai_node.router.demand import Demand, Sieve, Sticky, of_label
from monai_node.router.estimate import Estimate
from monai_node.router.health import Health
from monai_node.router.match import Match, Matches
from monai_node.router.offer import Offer
from monai_node.router.policy import Policy, listed
from monai_node.router.rank import CANDIDATES_MAX, rank, rank_general, rank_named
from monai_node.router.worth import SHORTLIST_MAX, Knowledge

ASKED = of_label("trusted")
CHECKED = replace(ASKED, has_contract=True)
B = 10**9


def chat(peer: str, billions: float = 1.0, *, price: float = 0.0, digest: str = "", load: int = 0) -> Offer:
    alias = f"m{billions}"
    card = Skill(id="chat", name="", description="", model=alias, is_general=True, price=price, slots=1)
    model = ModelInfo(alias=alias, parameter_count=int(billions * B), digest=digest)
    return Offer(PeerId(peer), peer, "trusted", card, model, running=load)


def agent(peer: str, skill: str = "sums", load: int = 0) -> Offer:
    return Offer(PeerId(peer), peer, "trusted", Skill(id=skill, name="", description=""), running=load)


def match(fit: float, *offers: Offer) -> Match:
    return Match(offers, fit, fit, fit, "")


def knowing(
    chances: Mapping[str, tuple[float, float]], health: Health | None = None, draw: float = 1.0
) -> Knowledge:
    """Chance and weight by peer; of others nothing is known."""

    def chance(offer: Offer) -> Estimate:
        value, weight = chances.get(offer.peer, (0.7, 0.0))
        return Estimate(value, 0.3 / (1 + weight), weight, weight)

    return Knowledge(health or Health(), chance=chance, draw=draw)


def general(
    *offers: Offer, demand: Demand = ASKED, knowledge: Knowledge | None = None, now: float = 0.0
) -> Ranking:
    return rank_general(offers, demand, knowledge or knowing({}), now)


def peers(ranking: Ranking) -> list[str]:
    return [candidate.peer for candidate in ranking.candidates]


def test_a_model_that_does_badly_falls_behind_smaller_ones_by_evidence() -> None:
    offers = (chat("big", 7), chat("small", 1))
    assert peers(general(*offers)) == ["big", "small"]
    known = knowing({"big": (0.2, 30.0), "small": (0.8, 30.0)})
    assert peers(general(*offers, knowledge=known)) == ["small", "big"]


def test_a_checked_task_goes_to_the_smallest_that_does_it_about_as_well() -> None:
    offers = (chat("big", 7), chat("small", 0.5), chat("tiny", 0.1), chat("new", 0.3))
    chances = {"big": (0.95, 20.0), "small": (0.93, 20.0), "tiny": (0.5, 20.0), "new": (0.95, 1.0)}
    known = knowing(chances)
    assert peers(general(*offers, knowledge=known))[0] == "big"
    checked = general(*offers, demand=CHECKED, knowledge=known)
    assert peers(checked)[:2] == ["small", "big"]
    assert any("results are checked" in reason for reason in checked.candidates[0].reasons)
    worse = knowing({**chances, "small": (0.85, 20.0)})
    assert peers(general(*offers, demand=CHECKED, knowledge=worse))[0] == "big"


def test_a_small_model_that_costs_more_is_not_tried_first() -> None:
    known = knowing({"big": (0.95, 20.0), "small": (0.93, 20.0)})
    found = general(chat("big", 7), chat("small", 0.5, price=50.0), demand=CHECKED, knowledge=known)
    assert peers(found) == ["big", "small"]


def test_what_costs_must_be_so_much_better() -> None:
    free, dear = chat("free"), chat("dear", price=5.0)
    assert peers(general(free, dear)) == ["free", "dear"]
    known = knowing({"free": (0.3, 40.0), "dear": (0.9, 40.0)})
    assert peers(general(free, dear, knowledge=known)) == ["dear", "free"]
    assert general(dear).candidates[0].terms["cost"] == 1.0


def test_who_speaks_the_language_of_a_task_comes_before_a_larger_one_that_does_not() -> None:
    def speaking(offer: Offer, tag: str) -> Offer:
        assert offer.model is not None
        return replace(offer, model=offer.model.model_copy(update={"languages": [tag]}))

    offers = (speaking(chat("big", 7), "en"), speaking(chat("small", 1), "de"))
    assert peers(general(*offers, demand=replace(ASKED, language="de"))) == ["small", "big"]
    assert peers(general(*offers, demand=replace(ASKED, language="en"))) == ["big", "small"]
    (alone,) = general(offers[0], demand=replace(ASKED, language="de")).candidates
    assert "speaks en, not de" in alone.reasons


def test_almost_equal_ones_are_one_tier_and_clearly_worse_ones_another() -> None:
    offers = (chat("a", digest="x"), chat("b", digest="y"), chat("c", digest="z"))
    known = knowing({"a": (0.80, 90.0), "b": (0.79, 90.0), "c": (0.6, 90.0)})
    assert [each.tier for each in general(*offers, knowledge=known).candidates] == [0, 0, 1]


def test_replicas_of_one_model_are_one_tier_unless_one_is_clearly_worse() -> None:
    offers = [chat(peer, digest="sha256:1") for peer in "abc"]
    known = knowing({"a": (0.80, 30.0), "b": (0.72, 3.0), "c": (0.3, 30.0)})
    assert [each.tier for each in general(*offers, knowledge=known).candidates] == [0, 0, 1]


def test_a_conversation_stays_where_it_was_read_while_that_pays() -> None:
    long = replace(ASKED, prompt_chars=100_000, sticky=Sticky(PeerId("b"), "m1.0", 90_000))
    one = (chat("a"), chat("b"))
    ranking = general(*one, demand=long)
    assert peers(ranking) == ["b", "a"]
    assert "served this conversation before" in " ".join(ranking.candidates[0].reasons)
    assert ranking.candidates[0].read_chars == 10_000
    short = replace(long, prompt_chars=300, sticky=Sticky(PeerId("b"), "m1.0", 200))
    assert peers(general(chat("a", 70), one[1], demand=short)) == ["a", "b"]
    bad = knowing({"b": (0.1, 90.0)})
    assert peers(general(*one, demand=long, knowledge=bad)) == ["a", "b"], "however slowly it reads"
    assert peers(general(one[0], chat("b", price=50.0), demand=long)) == ["a", "b"]


def test_a_few_tasks_go_to_somebody_of_whom_little_is_known() -> None:
    offers = (chat("old", 7), chat("new", 7), chat("dwarf", 0.1))
    chances = {"old": (0.85, 90.0)}
    assert peers(general(*offers, knowledge=knowing(chances, draw=0.5)))[0] == "old"
    explored = general(*offers, knowledge=knowing(chances, draw=0.02))
    assert peers(explored) == ["new", "old", "dwarf"]
    dear = general(offers[0], chat("new", 7, price=50.0), knowledge=knowing(chances, draw=0.02))
    assert peers(dear) == ["old", "new"], "nobody pays for finding out"
    assert "little is known of it" in " ".join(explored.candidates[0].reasons)
    assert peers(general(*offers, knowledge=knowing(chances, draw=0.029)))[0] != "dwarf"


def test_in_a_panic_ejection_counts_behind_equals_only() -> None:
    health = Health()
    for peer in ("a", "b", "c"):
        health.failed(PeerId(peer), "chat", PeerLost("x"), 0.0)
    offers = [chat(peer) for peer in ("a", "b", "c", "d")] + [chat("dwarf", 0.1)]
    ranking = general(*offers, knowledge=knowing({}, health))
    assert peers(ranking) == ["d", "a", "b", "c", "dwarf"]
    assert "3 of 5 are cooling down" in " ".join(ranking.candidates[1].reasons)
    two = general(*offers[1:], knowledge=knowing({}, health))
    assert peers(two)[-2:] == ["b", "c"], "of four peers two may well be gone"


def test_who_is_known_to_be_good_is_not_drowned_by_what_others_announce() -> None:
    one_liar = [replace(chat("liar", 2**32), peer_name=str(number)) for number in range(64)]
    many_liars = [chat(f"liar{number}", 2**32) for number in range(500)]
    honest = chat("honest", 7, load=1)
    assert "honest" in peers(general(*one_liar, honest)), "a peer takes the place of no more than a few"
    bad = {offer.peer: (0.01, 90.0) for offer in (*one_liar, *many_liars)}
    known = replace(knowing({**bad, "honest": (0.9, 90.0)}), outcomes={PeerId("liar0"): 5, honest.peer: 90})
    assert peers(general(*one_liar, *many_liars, honest, knowledge=known))[0] == "honest"


def test_who_was_known_to_be_good_is_found_among_thousands() -> None:
    many = [chat(f"p{number}", load=1) for number in range(3_000)]
    giant, sticky = chat("giant", 70), many[1_777]
    demand = replace(ASKED, sticky=Sticky(sticky.peer, sticky.skill.model, 10**6), prompt_chars=10**6)
    assert peers(general(*many, giant))[0] == "giant"
    assert sticky.peer in peers(rank_named(many, "asked for", demand, knowing({}), 0.0))
    only = replace(ASKED, policy=Policy("trusted", allowed=listed(["peer:p2999"])))
    assert peers(general(*many, giant, demand=only)) == ["p2999"]
    assert len(many) > SHORTLIST_MAX


def test_an_allow_list_that_names_nobody_and_a_budget_nobody_keeps_are_said() -> None:
    nobody = replace(ASKED, policy=Policy("trusted", allowed=listed(["peer:nobody"])))
    with pytest.raises(Unsupported, match="among those that are allowed \\(peer:nobody\\)"):
        general(chat("a"), demand=nobody)
    with pytest.raises(Unsupported, match=r"would cost about 1, 0\.1 is the most"):
        general(chat("a", price=5.0), demand=replace(ASKED, policy=Policy("trusted", cost_max=0.1)))
    offers = [chat("a"), agent("b")]
    with pytest.raises(Unsupported, match="among those that are allowed"):
        rank(Matches((), 1.0), Sieve(nobody), knowing({}), 0.0, lambda: offers)


_peers = st.sampled_from([f"p{number}" for number in range(8)])
_narrow = st.builds(agent, _peers, st.sampled_from(["sums", "dates"]), st.integers(0, 9))
_general = st.builds(
    chat,
    _peers,
    st.sampled_from([0.1, 1.0, 7.0]),
    price=st.sampled_from([0.0, 0.5, 50.0]),
    digest=st.sampled_from(["", "sha256:1"]),
    load=st.integers(0, 9),
)
_offers = st.lists(
    st.one_of(_narrow, _general), max_size=14, unique_by=lambda it: (it.peer, it.skill.id, it.skill.model)
)
_chances = st.dictionaries(_peers, st.tuples(st.floats(0, 1), st.floats(0, 50)))
_failed = st.lists(_peers, max_size=6)
_names = st.lists(
    st.one_of(_peers.map("peer:{}".format), st.sampled_from(["model:m1.0", "skill:sums", "skill:chat"])),
    max_size=3,
)


def ranked(
    offers: list[Offer], demand: Demand, chances: Mapping[str, tuple[float, float]], failed: list[str]
) -> Ranking:
    health = Health()
    for peer in failed:
        for skill in ("sums", "dates", "chat"):
            health.failed(PeerId(peer), skill, TaskFailed("x"), 0.0)
    matches = [match(0.3 + len(each.skill.id) / 10, each) for each in offers]
    try:
        found, known = Matches(tuple(matches), 0.0), knowing(chances, health)
        return rank(found, Sieve(demand), known, 0.0, lambda: offers)
    except Unsupported:
        return Ranking((), ())


def place(ranking: Ranking, offer: Offer) -> int:
    for at, each in enumerate(ranking.candidates):
        if (each.peer, each.skill, each.model) == (offer.peer, offer.skill.id, offer.skill.model):
            return at
    return CANDIDATES_MAX


@settings(max_examples=80, deadline=None)
@given(_offers, _chances, _failed, _names, _names, st.sampled_from([0.0, 1.0, 100.0]))
def test_nothing_that_was_ruled_out_is_ever_asked(
    offers: list[Offer],
    chances: dict[str, tuple[float, float]],
    failed: list[str],
    allowed: list[str],
    denied: list[str],
    cost_max: float,
) -> None:
    policy = Policy("trusted", listed(allowed), listed(denied), cost_max)
    ranking = ranked(offers, replace(ASKED, policy=policy), chances, failed)
    asked = {(each.peer, each.skill, each.model) for each in ranking.candidates}
    assert not asked & {(it.peer, it.skill.id, it.skill.model) for it, _ in ranking.filtered}
    for each in ranking.candidates:
        names = {f"peer:{each.peer}", f"model:{each.model}", f"skill:{each.skill}"}
        assert not names & set(denied)
        assert each.terms["cost"] <= cost_max


@settings(max_examples=80, deadline=None)
@given(_offers, _chances, _failed, st.booleans(), st.data())
def test_more_load_or_another_failure_never_improves_a_place(
    offers: list[Offer],
    chances: dict[str, tuple[float, float]],
    failed: list[str],
    is_checked: bool,
    data: st.DataObject,
) -> None:
    if not offers:
        return
    demand = CHECKED if is_checked else ASKED
    chosen = data.draw(st.sampled_from(offers))
    before = place(ranked(offers, demand, chances, failed), chosen)
    more = [replace(it, queued=it.queued + 5) if it is chosen else it for it in offers]
    assert place(ranked(more, demand, chances, failed), chosen) >= before
    if sum(it.peer == chosen.peer for it in offers) == 1:
        assert place(ranked(offers, demand, chances, [*failed, chosen.peer]), chosen) >= before


def test_tiers_are_as_wide_as_they_say() -> None:
    first, second = chat("a", digest="x"), chat("b", digest="y")
    for gap, tier in ((TIER_WIDTH * 0.9, 0), (TIER_WIDTH * 1.5, 1)):
        known = knowing({"a": (0.8, 1e9), "b": (0.8 - gap, 1e9)})
        assert general(first, second, knowledge=known).candidates[1].tier == tier


def test_a_narrow_skill_that_is_known_to_do_badly_stands_behind_a_general_model() -> None:
    matches = Matches((match(0.99, agent("liar")), match(0.01, chat("c"))), 0.01)

    def order(chance: float, weight: float) -> Ranking:
        return rank(matches, Sieve(ASKED), knowing({"liar": (chance, weight)}), 0.0)

    assert peers(order(0.1, 20.0)) == ["c", "liar"]
    assert order(0.1, 20.0).decision == "fallback"
    assert "stands among general models" in " ".join(order(0.1, 20.0).candidates[1].reasons)
    assert peers(order(0.1, 2.0)) == ["liar", "c"]
    assert peers(order(0.6, 20.0)) == ["liar", "c"]


def test_a_model_that_does_not_tell_its_size_is_no_smaller_than_the_smallest() -> None:
    unknown = chat("url", 0.0)
    assert peers(general(chat("tiny", 0.135), unknown, chat("big", 7))) == ["big", "url", "tiny"]


def test_a_replica_of_the_small_model_that_was_not_as_lucky_is_asked_where_it_is_sooner() -> None:
    offers = (chat("big", 7), chat("slow", 0.5, load=9), chat("quick", 0.5))
    known = knowing({"big": (0.9, 20.0), "slow": (0.93, 20.0), "quick": (0.86, 20.0)})
    assert peers(general(*offers, demand=CHECKED, knowledge=known))[:2] == ["quick", "slow"]
    worse = knowing({"big": (0.9, 20.0), "slow": (0.93, 20.0), "quick": (0.5, 20.0)})
    assert peers(general(*offers, demand=CHECKED, knowledge=worse))[0] == "slow"
