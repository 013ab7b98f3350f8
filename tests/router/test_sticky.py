from __future__ import annotations

from dataclasses import replace

from monai_node.registry.ids import PeerId
from monai_node.router.candidate import Candidate
from monai_node.router.demand import Conversation, Sticky, of_label
from monai_node.router.sticky import CONVERSATIONS_MAX, KEPT_SECONDS, Conversations, stay

PEER = Candidate(PeerId("a"), "a", "chat", "m", True, 1.0, ())
FIRST = replace(of_label("trusted"), conversation=Conversation("", "one"), prompt_chars=120)
SECOND = replace(of_label("trusted"), conversation=Conversation("one", "two"), prompt_chars=300)


def test_the_next_turn_of_a_conversation_finds_who_answered_the_one_before() -> None:
    known = Conversations()
    assert known.former(FIRST, 0.0) is None
    known.served(FIRST, PEER, 0.0)
    assert known.former(SECOND, 1.0) == Sticky(PeerId("a"), "m", 120)
    assert known.former(FIRST, 1.0) is None
    assert known.former(SECOND, KEPT_SECONDS + 1) is None


def test_agents_and_single_tasks_leave_nothing_behind() -> None:
    known = Conversations()
    known.served(FIRST, replace(PEER, model=""), 0.0)
    known.served(of_label("trusted"), PEER, 0.0)
    assert len(known) == 0


def test_the_conversation_answered_longest_ago_is_forgotten_first() -> None:
    known = Conversations()
    for number in range(CONVERSATIONS_MAX + 1):
        known.served(replace(FIRST, conversation=Conversation("", f"c{number}")), PEER, 0.0)
    assert len(known) == CONVERSATIONS_MAX
    assert known.former(replace(FIRST, conversation=Conversation("c0", "")), 0.0) is None
    assert known.former(replace(FIRST, conversation=Conversation("c1", "")), 0.0) is not None


def test_a_conversation_with_tool_calls_stays_with_its_peer_then_with_its_model() -> None:
    order = [replace(PEER, peer=PeerId(peer), model=m) for peer, m in (("a", "big"), ("b", "m"), ("c", "m"))]
    former = Sticky(PeerId("c"), "m", 0)
    # Of one tier whoever is free would be asked.
    assert [(it.peer, it.tier) for it in stay(order, former)] == [("c", 0), ("b", 1), ("a", 2)]
    assert stay(order, None) == order
