from __future__ import annotations

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
from monai_node.router.fallback import ATTEMPTS_MAX, CONTRACT_RETRIES_MAX, Fallback
from monai_node.router.rank import Candidate


def candidate(peer: str, skill: str = "chat", model: str = "tiny") -> Candidate:
    return Candidate(PeerId(peer), peer, skill, model, is_general=True, score=1.0, reasons=())


def alive(_: PeerId) -> bool:
    return True


def walk(fallback: Fallback, error: MonaiError) -> list[tuple[str, str]]:
    """Who is asked when every attempt fails with this error."""
    asked: list[tuple[str, str]] = []
    current = fallback.first(alive)
    while current is not None:
        asked.append((current.peer, current.skill))
        current = fallback.after(current, error, was_sent=True, is_alive=alive)
    return asked


def test_other_peers_come_before_another_skill_of_a_peer_that_failed() -> None:
    candidates = [candidate("a", "sums"), candidate("a"), candidate("b")]
    assert walk(Fallback(candidates), TaskFailed("x")) == [("a", "sums"), ("b", "chat"), ("a", "chat")]


def test_abstaining_keeps_the_order() -> None:
    candidates = [candidate("a", "sums"), candidate("a"), candidate("b")]
    assert walk(Fallback(candidates), Abstained("x")) == [("a", "sums"), ("a", "chat"), ("b", "chat")]


@pytest.mark.parametrize("error", [TaskFailed("x"), Abstained("x"), PeerRefused("x"), ProtocolViolation("x")])
def test_what_would_fail_again_is_not_asked_again(error: MonaiError) -> None:
    assert walk(Fallback([candidate("a")]), error) == [("a", "chat")]


@pytest.mark.parametrize("error", [PeerBusy("x"), PeerLost("x")])
def test_only_the_last_candidate_is_asked_again_and_not_for_ever(error: MonaiError) -> None:
    asked = walk(Fallback([candidate("a"), candidate("b")]), error)
    assert asked == [("a", "chat"), *[("b", "chat")] * (ATTEMPTS_MAX - 1)]


def test_an_error_of_the_caller_ends_it_when_a_second_peer_says_so() -> None:
    candidates = [candidate("a"), candidate("a", "sums"), candidate("b"), candidate("c")]
    assert walk(Fallback(candidates), InvalidRequest("x")) == [("a", "chat"), ("b", "chat")]
    assert walk(Fallback(candidates[:2]), InvalidRequest("x")) == [("a", "chat")]


def test_what_this_node_itself_refuses_to_send_is_asked_of_nobody_else() -> None:
    fallback = Fallback([candidate("a"), candidate("b")])
    first = fallback.first(alive)
    assert first is not None
    assert fallback.after(first, InvalidRequest("x"), was_sent=False, is_alive=alive) is None


def test_silent_peers_are_asked_only_when_nobody_else_is_left() -> None:
    fallback = Fallback([candidate("silent"), candidate("b")])
    first = fallback.first(lambda peer: peer != "silent")
    assert first is not None
    assert first.peer == "b"
    second = fallback.after(first, TaskFailed("x"), was_sent=True, is_alive=lambda peer: peer != "silent")
    assert second is not None
    assert second.peer == "silent"


def test_a_broken_contract_costs_few_further_attempts() -> None:
    candidates = [candidate(name, model=name) for name in "abcdef"]
    assert len(walk(Fallback(candidates), ContractBroken("x"))) == 1 + CONTRACT_RETRIES_MAX
    fallback = Fallback(candidates)
    first = fallback.first(alive)
    assert first is not None
    assert fallback.can_escalate(first)
    assert not Fallback([]).can_escalate(first)


def test_after_a_broken_contract_the_very_model_and_the_very_peer_come_last() -> None:
    candidates = [candidate("a"), candidate("b"), candidate("a", model="big"), candidate("c", model="big")]
    assert walk(Fallback(candidates), ContractBroken("x")) == [("a", "chat"), ("c", "chat"), ("b", "chat")]
    agents = [candidate("a", "sums", ""), candidate("b", "sums", ""), candidate("c")]
    assert walk(Fallback(agents), ContractBroken("x"))[1] == ("b", "sums")  # another's code may be honest
