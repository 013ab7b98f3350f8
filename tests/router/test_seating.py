"""Which task of a run is given to which peer, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from monai_node.registry.ids import PeerId
from monai_node.router.delay import SLOTS_DEFAULT, SLOTS_MAX
from monai_node.router.rank import Candidate
from monai_node.router.seating import Need, Seated, Seating, seconds_for


def peer(
    name: str, seconds: float | None = 1.0, slots: int = 1, *, tier: int = 0, load: int = 0, model: str = "m"
) -> Candidate:
    return Candidate(
        PeerId(name), name, "chat", model, True, 1.0, (), tier=tier, seconds=seconds, load=load, slots=slots
    )


QUICK, SLOW = peer("quick", 1.0), peer("slow", 2.5)
CRITICAL = Need(5.0, 0.0)


def given(
    seating: Seating, now: float = 0.0, needs: Mapping[str, Need] | None = None
) -> dict[str, tuple[str, ...]]:
    found = seating.assign(now, lambda key: (needs or {}).get(key, CRITICAL))
    return {seated.key: _peers(seated) for seated in found}


def _peers(seated: Seated) -> tuple[str, ...]:
    return tuple(candidate.peer for candidate in seated.candidates)


def waiting(candidates: Sequence[Candidate], *keys: str, width: int = 8) -> Seating:
    seating = Seating(width)
    for key in keys:
        seating.wait(key, candidates, 1.0, 0.0)
    return seating


def test_a_task_goes_to_the_peer_that_is_expected_to_be_done_first_then_to_its_equals() -> None:
    assert given(waiting([SLOW, QUICK], "a")) == {"a": ("quick", "slow")}


def test_two_tasks_do_not_queue_behind_each_other_where_another_peer_can_do_one() -> None:
    level = [peer("x"), peer("y")]
    assert given(waiting(level, "a", "b")) == {"a": ("x", "y"), "b": ("y", "x")}


def test_the_task_with_more_behind_it_gets_the_quicker_peer() -> None:
    needs = {"a": Need(2.0, 3.0), "b": Need(5.0, 0.0)}
    order = given(waiting([QUICK, SLOW], "a", "b"), needs=needs)
    assert order["b"][0] == "quick"


def test_a_task_waits_for_a_quick_peer_that_is_free_sooner_than_a_slow_one_would_be_done() -> None:
    seating = waiting([QUICK, peer("slow", 9.0)], "a", "b")
    assert given(seating) == {"a": ("quick", "slow")}
    seating.leave("a", 1.0)
    assert given(seating, 1.0) == {"b": ("quick", "slow")}


def test_it_goes_elsewhere_once_the_peer_it_waited_for_is_late() -> None:
    seating = waiting([QUICK, peer("slow", 3.0)], "a", "b")
    assert "b" not in given(seating)
    now = 0.0
    while "b" not in (found := given(seating, now)):
        assert seating.recheck_seconds is not None
        now += seating.recheck_seconds
        assert now < 60.0
    assert found["b"] == ("slow", "quick")
    assert seating.recheck_seconds is None


def test_a_peer_that_does_a_task_less_well_is_not_asked_because_the_better_one_is_taken() -> None:
    seating = waiting([QUICK, peer("lesser", 0.1, tier=1)], "a", "b")
    assert given(seating) == {"a": ("quick", "lesser")}
    assert given(seating, 50.0) == {}


def test_no_peer_is_given_more_than_its_slots_and_the_run_no_more_than_its_width() -> None:
    assert len(given(waiting([peer("x", slots=2)], *"abcd"))) == 2
    assert len(given(waiting([peer("x", slots=0)], *"abcdefgh"))) == SLOTS_DEFAULT
    assert len(given(waiting([peer("x", slots=9)], *"abcd", width=3))) == 3


def test_what_two_models_of_a_peer_do_does_not_stand_in_each_others_way() -> None:
    seating = waiting([peer("x")], "a")
    seating.wait("b", [peer("x", model="n")], 1.0, 0.0)
    assert set(given(seating)) == {"a", "b"}


def test_what_others_gave_a_peer_counts_and_what_we_gave_it_ourselves_does_not_count_twice() -> None:
    assert given(waiting([peer("busy", load=2), peer("slow", 1.5)], "a")) == {"a": ("slow", "busy")}
    seating = waiting([peer("x"), peer("slow", 1.5)], "a")
    assert given(seating)["a"][0] == "x"
    seating.leave("a", 1.0)
    seating.wait("b", [peer("x", load=1), peer("slow", 1.5)], 1.0, 1.1)
    assert given(seating, 1.1)["b"][0] == "x"  # its beacon still counts "a"


def test_what_we_gave_a_peer_while_a_task_began_to_wait_is_not_taken_for_others_later() -> None:
    seating = waiting([peer("x"), peer("slow", 9.0)], "a")
    given(seating)
    seating.wait("b", [peer("x", load=1), peer("slow", 9.0)], 1.0, 0.1)
    assert given(seating, 0.1) == {}
    seating.leave("a", 1.0)
    seating.announce(["c"])
    needs = {"b": Need(1.0, 0.0), "c": Need(2.0, 0.0)}
    assert given(seating, 1.0, needs) == {}
    seating.leave("c", 20.0)
    assert given(seating, 20.0, needs)["b"][0] == "x"


def test_a_peer_that_was_never_measured_is_tried() -> None:
    unknown = peer("new", None)
    assert given(waiting([unknown, QUICK], "a"))["a"][0] == "new"
    assert seconds_for([unknown, SLOW], 7.0) == 2.5
    assert seconds_for([unknown], 7.0) == 7.0


def test_several_tasks_take_as_many_rounds_as_the_slots_of_all_need() -> None:
    assert seconds_for([QUICK, SLOW], 7.0, count=4) == 2.0
    assert seconds_for([peer("x", 2.0, slots=4)], 7.0, count=4) == 2.0


def test_the_choice_is_explained_and_slack_is_told_but_not_spent() -> None:
    def reason(need: Need, *candidates: Candidate) -> tuple[str, ...]:
        (seated,) = waiting(candidates, "a").assign(0.0, lambda _: need)
        assert seated.candidates[0].peer == "quick"
        return seated.candidates[0].reasons

    said = "done first of 2 that do it alike, in about 1.0 s"
    assert reason(CRITICAL, QUICK, SLOW) == (said,)
    assert reason(Need(1.0, 20.0), QUICK, SLOW) == (f"{said}; 20.0 s to spare",)
    assert reason(CRITICAL, QUICK) == ()


@pytest.mark.parametrize("seconds", [0.0, 1e-6])
def test_a_task_that_waits_for_an_instant_peer_is_not_thought_over_without_pause(seconds: float) -> None:
    seating = waiting([peer("instant", seconds), peer("slow", 3.0)], "a", "b")
    assert "b" not in given(seating)
    assert seating.recheck_seconds is not None
    assert seating.recheck_seconds >= 0.01


def test_a_slot_is_kept_for_a_task_about_to_come_that_has_more_behind_it() -> None:
    seating = waiting([QUICK], "a", "b")
    needs = {"a": Need(9.0, 0.0), "b": Need(1.0, 5.0), "next": Need(4.0, 0.0)}
    assert set(given(seating, needs=needs)) == {"a"}
    seating.leave("a", 1.0)
    seating.announce(["next"])
    assert given(seating, 1.0, needs) == {}
    seating.wait("next", [QUICK], 1.0, 1.0)
    assert set(given(seating, 1.0, needs)) == {"next"}
    seating.leave("next", 2.0)
    assert set(given(seating, 2.0, needs)) == {"b"}


def test_one_that_was_announced_and_never_comes_holds_nobody_up_once_it_leaves() -> None:
    seating = waiting([QUICK], "a")
    seating.announce(["lost"])
    needs = {"a": Need(1.0, 5.0), "lost": Need(4.0, 0.0)}
    assert given(seating, needs=needs) == {}
    seating.leave("lost", 0.0)
    assert set(given(seating, needs=needs)) == {"a"}


def test_a_task_that_moved_to_another_peer_frees_the_first_and_fills_the_second() -> None:
    seating = waiting([QUICK, SLOW], "a")
    given(seating)
    seating.moved("a", SLOW, 0.5)
    seating.wait("b", [QUICK, SLOW], 1.0, 0.5)
    assert given(seating, 0.5)["b"][0] == "quick"


def test_a_run_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width 0"):
        Seating(0)


def test_what_a_peer_says_of_its_slots_and_its_load_costs_no_time_and_no_memory() -> None:
    """Without a bound the first is a list of 2**62 entries, the second a loop of as many rounds."""
    boaster = peer("boaster", 1.0, slots=2**62)
    swamped = peer("swamped", 1.0, load=2**62)
    assert given(waiting([swamped, boaster], "a")) == {"a": ("boaster", "swamped")}
    seating = waiting([boaster], *(f"t{number}" for number in range(SLOTS_MAX + 1)), width=2 * SLOTS_MAX)
    assert len(given(seating)) == SLOTS_MAX
    assert seconds_for([boaster], 1.0, SLOTS_MAX + 1) == 2.0
