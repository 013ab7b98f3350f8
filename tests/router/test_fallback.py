from __future__ import annotations

from collections.abc import Callable

import pytest

from monai_node.registry.errors import (
    Abstained,
    ContractBroken,
    InvalidRequest,
    MonaiError,
    PeerBusy,
    PeerLost,
    PeerRefused,
    ProtocolViolation,
    TaskFailed,
)
from monai_node.registry.ids import PeerId
from monai_node.router.fallback import ATTEMPTS_MAX, BUSY_ANSWERS_MAX, CONTRACT_RETRIES_MAX, Fallback
from monai_node.router.rank import Candidate


def candidate(peer: str, skill: str = "chat", model: str = "tiny") -> Candidate:
    return Candidate(PeerId(peer), peer, skill, model, is_general=True, score=1.0, reasons=())


def alive(_: PeerId) -> bool:
    return True


def walk(fallback: Fallback, error: MonaiError) -> list[tuple[str, str]]:
    """Who is asked when every attempt fails with this error."""
    asked: list[tuple[str, str]] = []
    choice = fallback.first(alive)
    while choice:
        fallback.asked(choice[0])
        asked.append((choice[0].peer, choice[0].skill))
        choice = fallback.after(choice[0], error, was_sent=True, is_alive=alive)
    return asked


def ask_first(fallback: Fallback, is_alive: Callable[[PeerId], bool] = alive) -> Candidate:
    first = fallback.first(is_alive)[0]
    fallback.asked(first)
    return first


def test_other_peers_come_before_another_skill_of_a_peer_that_failed() -> None:
    candidates = [candidate("a", "sums"), candidate("a"), candidate("b")]
    assert walk(Fallback(candidates), TaskFailed("x")) == [("a", "sums"), ("b", "chat"), ("a", "chat")]


def test_abstaining_keeps_the_order() -> None:
    candidates = [candidate("a", "sums"), candidate("a"), candidate("b")]
    assert walk(Fallback(candidates), Abstained("x")) == [("a", "sums"), ("a", "chat"), ("b", "chat")]


@pytest.mark.parametrize("error", [TaskFailed("x"), Abstained("x"), PeerRefused("x"), ProtocolViolation("x")])
def test_what_would_fail_again_is_not_asked_again(error: MonaiError) -> None:
    assert walk(Fallback([candidate("a")]), error) == [("a", "chat")]


def test_only_the_last_candidate_is_asked_again_and_not_for_ever() -> None:
    asked = walk(Fallback([candidate("a"), candidate("b")]), PeerLost("x"))
    assert asked == [("a", "chat"), *[("b", "chat")] * (ATTEMPTS_MAX - 1)]


def test_who_was_busy_is_asked_again_in_turn_and_not_for_ever() -> None:
    asked = walk(Fallback([candidate("a"), candidate("b")]), PeerBusy("x"))
    assert asked == [("a", "chat"), ("b", "chat")] * (BUSY_ANSWERS_MAX // 2)


def test_being_busy_is_no_attempt() -> None:
    fallback = Fallback([candidate(name) for name in "abcdef"])
    busy = ask_first(fallback)
    for _ in range(4):
        busy = fallback.after(busy, PeerBusy("x"), was_sent=True, is_alive=alive)[0]
        fallback.asked(busy)
    failing = busy
    for expected in ("f", "a", "b"):  # the others were busy when they were asked
        failing = fallback.after(failing, TaskFailed("x"), was_sent=True, is_alive=alive)[0]
        fallback.asked(failing)
        assert failing.peer == expected
    assert not fallback.after(failing, TaskFailed("x"), was_sent=True, is_alive=alive)
    assert fallback.repeats == 2


def test_of_those_that_were_busy_the_living_are_asked_again() -> None:
    fallback = Fallback([candidate("a"), candidate("b")])
    first = ask_first(fallback)
    second = fallback.after(first, PeerBusy("x"), was_sent=True, is_alive=alive)[0]
    fallback.asked(second)
    choice = fallback.after(second, PeerBusy("x"), was_sent=True, is_alive=lambda peer: peer != "a")
    assert [each.peer for each in choice] == ["b"]


def test_whoever_may_be_asked_next_is_named_best_first_until_one_is_asked() -> None:
    fallback = Fallback([candidate("a"), candidate("b"), candidate("silent")])
    choice = fallback.first(lambda peer: peer != "silent")
    assert [each.peer for each in choice] == ["a", "b"]
    fallback.asked(choice[1])
    assert (fallback.attempts, [each.peer for each in fallback.untried]) == (1, ["a", "silent"])


def test_an_error_of_the_caller_ends_it_when_a_second_peer_says_so() -> None:
    candidates = [candidate("a"), candidate("a", "sums"), candidate("b"), candidate("c")]
    assert walk(Fallback(candidates), InvalidRequest("x")) == [("a", "chat"), ("b", "chat")]
    assert walk(Fallback(candidates[:2]), InvalidRequest("x")) == [("a", "chat")]


def test_what_this_node_itself_refuses_to_send_is_asked_of_nobody_else() -> None:
    fallback = Fallback([candidate("a"), candidate("b")])
    first = ask_first(fallback)
    assert not fallback.after(first, InvalidRequest("x"), was_sent=False, is_alive=alive)


def test_silent_peers_are_asked_only_when_nobody_else_is_left() -> None:
    fallback = Fallback([candidate("silent"), candidate("b")])
    first = ask_first(fallback, lambda peer: peer != "silent")
    assert first.peer == "b"
    choice = fallback.after(first, TaskFailed("x"), was_sent=True, is_alive=lambda peer: peer != "silent")
    assert [each.peer for each in choice] == ["silent"]


def test_a_broken_contract_costs_few_further_attempts() -> None:
    candidates = [candidate(name, model=name) for name in "abcdef"]
    assert len(walk(Fallback(candidates), ContractBroken("x"))) == 1 + CONTRACT_RETRIES_MAX
    fallback = Fallback(candidates)
    first = ask_first(fallback)
    assert fallback.can_escalate(first)
    assert not Fallback([]).can_escalate(first)


def test_after_a_broken_contract_the_very_model_and_the_very_peer_come_last() -> None:
    candidates = [candidate("a"), candidate("b"), candidate("a", model="big"), candidate("c", model="big")]
    assert walk(Fallback(candidates), ContractBroken("x")) == [("a", "chat"), ("c", "chat"), ("b", "chat")]
    agents = [candidate("a", "sums", ""), candidate("b", "sums", ""), candidate("c")]
    assert walk(Fallback(agents), ContractBroken("x"))[1] == ("b", "sums")  # another's code may be honest
