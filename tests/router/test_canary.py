from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from monai_node.agents import Agent
from monai_node.agents.examples.arithmetic import agent as arithmetic
from monai_node.agents.examples.calendar_dates import agent as calendar
from monai_node.agents.testing import ask, context
from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.router.canary import (
    AGAIN_SECONDS,
    FIRST_COUNT,
    FIRST_GAP_SECONDS,
    PAIRS_MAX,
    PER_MINUTE_MAX,
    SUSPECT_GAP_SECONDS,
    CanaryRota,
)
from monai_node.router.canary_tasks import Canary, canary_of, has_canary
from monai_node.router.offer import Offer

CHAT = Skill(id="chat", name="Chat", description="answers", model="tiny", is_general=True)
POEMS = Skill(id="poems", name="Poems", description="writes", examples=["a poem about 3 cats in 2 lines"])


def offer(peer: str, skill: Skill = CHAT, running: int = 0) -> Offer:
    return Offer(PeerId(peer), peer, "trusted", skill, ModelInfo(alias="tiny"), running)


def canaries(count: int, skill: Skill = CHAT, seed: int = 0) -> list[Canary]:
    random = Random(seed)
    found = [canary_of(skill, random) for _ in range(count)]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("agent", [arithmetic, calendar])
def test_an_honest_agent_passes_every_canary_for_its_skill(agent: Agent) -> None:
    made = canaries(60, agent.skills[0].card)
    assert len(made) == 60
    for canary in made:
        result = ask(agent, canary.text, context=context("2026-11-20T14:05"))
        assert canary.check.whole(result).kind == "passed", (canary.text, result)


@pytest.mark.parametrize(
    "lie", ["", "I am not sure.", "The answer is 42.", "Tuesday or Friday", "{}", "[" * 5000, "9" * 10**6]
)
def test_other_answers_fail(lie: str) -> None:
    for canary in canaries(100):
        assert canary.check.whole(lie).kind == "failed", canary.text


def test_an_echo_and_a_list_of_guesses_fail() -> None:
    numbers = " ".join(str(number) for number in range(2000))
    weekdays = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday or Sunday"
    for canary in canaries(150):
        for lie in (canary.text, canary.text.upper(), f"{canary.text}\n{canary.text}", numbers, weekdays):
            assert canary.check.whole(lie).kind == "failed", (canary.text, lie[:80])


def test_a_right_answer_passes_in_many_words() -> None:
    lists = [each for each in canaries(600) if each.text.lower().startswith(("sort alpha", "how many words"))]
    assert len(lists) > 10
    for canary in lists:
        items = canary.text.rstrip("?").split(": ")[1].split(", ")
        for said, verdict in ((items, "passed"), (items[1:], "failed")):
            result = f"Sure! **{len(said)}** in all: {'; '.join(sorted(said))}."
            assert canary.check.whole(result).kind == verdict, canary.text


def test_only_a_whole_result_is_judged() -> None:
    (canary,) = canaries(1)
    assert canary.check.held_chars is None
    assert canary.check.early("no").kind == "open"


def test_skills_that_cannot_be_checked_get_none() -> None:
    assert not has_canary(POEMS)
    assert canary_of(POEMS, Random(0)) is None
    recipes = Skill(id="r", name="Recipes", description="converts recipes", examples=["soup for 4 people"])
    assert not has_canary(recipes)


def test_canaries_differ_and_follow_the_seed() -> None:
    made = [each.text for each in canaries(300)]
    assert len(set(made)) > 280
    assert made == [each.text for each in canaries(300)]
    assert len({text.split()[0].lower() for text in made}) > 12


def test_a_newcomer_gets_its_first_ones_soon_and_then_one_now_and_then() -> None:
    rota, offers = CanaryRota(Random(0)), [offer("a")]
    at: list[float] = []
    for now in range(int(4 * AGAIN_SECONDS)):
        found = rota.due(offers, now)
        if found is not None:
            rota.sent(found.peer, found.skill.id, now)
            at.append(now)
    assert at[:FIRST_COUNT] == [0, FIRST_GAP_SECONDS, 2 * FIRST_GAP_SECONDS]
    gaps = [later - earlier for earlier, later in zip(at[FIRST_COUNT - 1 :], at[FIRST_COUNT:], strict=False)]
    assert gaps
    assert all(AGAIN_SECONDS * 0.5 <= gap <= AGAIN_SECONDS * 1.5 + 1 for gap in gaps)
    assert len(set(gaps)) == len(gaps)


def test_no_more_than_a_few_a_minute_and_nobody_is_left_out() -> None:
    rota, sent = CanaryRota(Random(0)), Counter[PeerId]()
    known = offer("known")
    for _ in range(FIRST_COUNT):
        rota.sent(known.peer, CHAT.id, -1000.0)
    crowd = [offer(f"new {at}") for at in range(40)]
    minutes = 60
    for now in range(60 * minutes):
        found = rota.due([*crowd, known], now)
        if found is not None:
            rota.sent(found.peer, found.skill.id, now)
            sent[found.peer] += 1
    assert sum(sent.values()) <= PER_MINUTE_MAX * minutes
    assert set(sent) == {each.peer for each in [*crowd, known]}


def known_rota(peer: PeerId) -> CanaryRota:
    """One that sent this peer its first canaries, the last of them at 0, and has none due for a while."""
    rota = CanaryRota(Random(0))
    for at in range(1 - FIRST_COUNT, 1):
        rota.sent(peer, CHAT.id, at * 60.0)
    return rota


def test_who_is_suspected_is_asked_at_once_and_then_less_and_less_often() -> None:
    suspect, calm = offer("a"), offer("b")
    rota = known_rota(suspect.peer)
    for second in range(FIRST_COUNT):
        rota.sent(calm.peer, CHAT.id, float(second))
    offers, begins = [suspect, calm], 100
    assert all(rota.due(offers, now) is None for now in range(10, begins))
    at: list[float] = []
    for now in range(begins, begins + 300):
        found = rota.due(offers, now, lambda each: each is suspect)
        if found is not None:
            assert found is suspect
            rota.sent(found.peer, found.skill.id, now)
            at.append(now)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert at[0] == begins
    assert gaps == [SUSPECT_GAP_SECONDS * 2**step for step in range(len(gaps))]
    assert len(gaps) > 2


def test_who_is_suspected_no_more_waits_for_its_turn_again() -> None:
    known = offer("a")
    rota = known_rota(known.peer)
    assert rota.due([known], 100, lambda _: True) is known
    rota.sent(known.peer, CHAT.id, 100)
    assert all(rota.due([known], now) is None for now in range(101, 300))
    assert rota.due([known], 300, lambda _: True) is known, "and anew when it is suspected anew"


def test_who_stays_suspected_is_asked_at_the_usual_pace_in_the_end() -> None:
    known = offer("a")
    rota, asked = known_rota(known.peer), 0
    for now in range(int(10 * AGAIN_SECONDS)):
        found = rota.due([known], now, lambda _: True)
        if found is not None:
            rota.sent(found.peer, found.skill.id, now)
            asked += 1
    assert asked <= 2 * 10 + 10  # at least half of AGAIN_SECONDS apart, but for the first few


def test_who_is_busy_cannot_be_checked_or_would_do_it_twice_is_not_asked() -> None:
    once = CHAT.model_copy(update={"id": "once", "is_idempotent": False})
    offers = [offer("a", running=1), offer("b", POEMS), offer("c", once)]
    rota = CanaryRota(Random(0))
    assert rota.due(offers, 0.0, lambda _: True) is None
    assert rota.due([*offers, offer("d")], 0.0) == offer("d")


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    rota = CanaryRota(Random(0))
    for _ in range(FIRST_COUNT):
        rota.sent(PeerId("a"), CHAT.id, 1e9)
    assert rota.due([offer("a")], 0.0) == offer("a")


def test_what_is_remembered_is_bounded() -> None:
    rota = CanaryRota(Random(0))
    for at in range(PAIRS_MAX + 100):
        rota.sent(PeerId(f"p{at}"), CHAT.id, float(at))
    rota.due([offer(f"q{at}") for at in range(50)], 1e6)
    assert len(rota) == PAIRS_MAX
