from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.registry.advert import ModelInfo, Pace, Skill, Speed
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import RUN_SECONDS_MAX
from monai_node.router.candidate import Candidate
from monai_node.router.delay import Delay, delay_at
from monai_node.router.demand import Demand, Sticky, of_label
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.outcome import Ending
from monai_node.router.speed import COLD_AFTER_SECONDS, Speeds

ASKED = replace(of_label("trusted"), prompt_chars=4000, expected_chars=400)
PEER = PeerId("a")
CURVE = Speed(
    prefill_tokens_per_second=100.0,
    decode=[Pace(streams=1, tokens_per_second=10.0), Pace(streams=4, tokens_per_second=5.0)],
    load_seconds=7.0,
)


def offer(
    *, speed: Speed | None = None, slots: int = 4, load: int = 0, size: int = 0, age: float = 0.0
) -> Offer:
    card = Skill(id="chat", name="", description="", model="m", slots=slots)
    model = ModelInfo(alias="m", parameter_count=10**9, size_bytes=size, speed=speed)
    return Offer(PEER, "a", "trusted", card, model, running=load, load_told_at=-age)


def delay(given: Offer, demand: Demand = ASKED, speeds: Speeds | None = None, now: float = 0.0) -> Delay:
    return delay_at(given, demand, Speeds() if speeds is None else speeds, Health(), now)


def learnt() -> Speeds:
    speeds = Speeds()
    candidate = Candidate(PEER, "a", "chat", "m", True, 1.0, (), read_chars=4000)
    for _ in range(2):
        ending = Ending(None, None, 6.0, 1, first_text_seconds=2.0, chars=400)
        speeds.completed(candidate, ending, 0.0)
    return speeds


def test_an_announced_curve_is_read_where_it_says_something() -> None:
    alone = delay(offer(speed=CURVE))
    assert (alone.read, alone.write, alone.load) == (10.0, 10.0, 0.0)
    assert alone.is_known
    assert delay(offer(speed=CURVE, load=2)).write == 20.0
    assert delay(offer(speed=CURVE, slots=8, load=7)).write == 40.0
    assert delay(offer(speed=CURVE.model_copy(update={"is_resident": False}))).load == 7.0


def test_what_was_measured_here_outweighs_what_is_announced() -> None:
    boast = Speed(decode=[Pace(streams=1, tokens_per_second=1e6)], load_seconds=7.0, is_resident=False)
    assert delay(offer(speed=boast)).write < 0.001
    found = delay(offer(speed=boast), speeds=learnt())
    assert found.write == pytest.approx(4.0)
    assert found.load == 0.0


def test_after_a_pause_the_model_may_have_to_be_loaded_again() -> None:
    assert delay(offer(), speeds=learnt(), now=10.0).load == 0.0
    assert delay(offer(), speeds=learnt(), now=COLD_AFTER_SECONDS + 1).load == pytest.approx(2.0)


def test_without_a_word_the_size_is_all_there_is_to_go_by() -> None:
    small, large = delay(offer(size=10**9)), delay(offer(size=8 * 10**9))
    assert large.write > small.write > 0
    assert not small.is_known


def test_what_the_peer_has_read_before_is_not_read_again() -> None:
    warm = replace(ASKED, sticky=Sticky(PEER, "m", 3000))
    found = delay(offer(speed=CURVE), warm)
    assert (found.read, found.saved) == (2.5, pytest.approx(7.5))
    assert delay(offer(speed=CURVE), replace(ASKED, sticky=Sticky(PeerId("b"), "m", 3000))).saved == 0.0


def test_tasks_that_wait_there_are_waited_for_and_old_news_counts_less() -> None:
    assert delay(offer(speed=CURVE, load=3)).queue == 0.0
    queued = delay(offer(speed=CURVE, load=5))
    assert queued.queue == pytest.approx(queued.work / 2)
    assert delay(offer(speed=CURVE, load=5, age=60.0)).queue == 0.0


_numbers = st.one_of(st.floats(), st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324]))


@settings(max_examples=60, deadline=None)
@given(_numbers, _numbers, _numbers, st.integers(-(2**70), 2**70), st.integers(0, 2**62), _numbers)
def test_no_announced_number_leads_to_one_that_cannot_be_compared(
    prefill: float, pace: float, loading: float, load: int, size: int, age: float
) -> None:
    speed = Speed.model_construct(
        prefill_tokens_per_second=prefill,
        decode=[Pace.model_construct(streams=1, tokens_per_second=pace)],
        load_seconds=loading,
        is_resident=False,
        age_seconds=0.0,
    )
    model = ModelInfo(alias="m", size_bytes=size).model_copy(update={"speed": speed})
    hostile = replace(offer(), model=model, running=load, load_told_at=-age)
    found = delay(hostile)
    for seconds in (found.path, found.queue, found.load, found.read, found.write, found.work, found.total):
        assert 0.0 <= seconds <= RUN_SECONDS_MAX


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 64), st.lists(st.floats(0.001, 1e6), max_size=6), st.booleans())
def test_more_load_never_makes_it_sooner(
    load: int, slots: int, paces: list[float], is_measured: bool
) -> None:
    decode = [Pace(streams=at + 1, tokens_per_second=pace) for at, pace in enumerate(paces)]
    given_offer = offer(speed=Speed(decode=decode), slots=slots, load=load)
    more = replace(given_offer, running=load + 1)
    speeds = learnt() if is_measured else None
    assert delay(more, speeds=speeds).total >= delay(given_offer, speeds=speeds).total


def test_who_serves_the_same_model_is_first_thought_as_quick_as_whoever_was_measured() -> None:
    known, other = learnt(), replace(offer(), peer=PeerId("b"))
    assert delay(other).write != delay(offer(), speeds=known).write
    assert delay(other, speeds=known).write == delay(offer(), speeds=known).write
    assert not delay(other, speeds=known).is_known


def test_what_this_node_has_under_way_at_a_peer_counts_before_the_peer_tells_of_it() -> None:
    speeds, candidate = Speeds(), Candidate(PEER, "a", "chat", "m", True, 1.0, ())
    for _ in range(2):
        speeds.began(candidate)
    assert delay(offer(slots=1), speeds=speeds).queue == delay(offer(slots=1, load=2)).queue > 0
    assert delay(offer(slots=4), speeds=speeds).write == delay(offer(slots=4, load=2)).write
    for _ in range(2):
        speeds.ended(candidate)
    assert delay(offer(slots=1), speeds=speeds).queue == 0
