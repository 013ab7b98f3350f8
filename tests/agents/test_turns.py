import pytest

from monai_node.agents.turns import needed_turns, refers_back
from monai_node.registry.wire import ChatMessage

CAPITAL = ["What is the capital of France?", "Paris."]


def turns(*contents: str, system: str = "") -> list[ChatMessage]:
    """Messages by user and assistant in turn."""
    spoken = [
        ChatMessage(role="assistant" if place % 2 else "user", content=content)
        for place, content in enumerate(contents)
    ]
    return [ChatMessage(role="system", content=system), *spoken] if system else spoken


@pytest.mark.parametrize(
    "text",
    [
        "translate it into German",
        "now translate it",
        "and in kilometres?",
        "what about Spain?",
        "How about Italy?",
        "shorter please",
        "Make it rhyme",
        "why?",
        "another one",
        "more",
        "continue",
        "in French",
        "No, the other one",
        "And when was she born?",
        "Shorten the poem",
        "Translate into Thai",
        "What does that mean?",
        "summarise",
        "ok thanks, now shorter",
        "😀",
    ],
)
def test_a_follow_up_needs_the_last_exchange(text: str) -> None:
    earlier = turns("Write a poem about bees.", "Bees hum.", *CAPITAL, system="Be brief.")
    assert refers_back(text)
    assert needed_turns(text, earlier) == [3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "What is 12 times 12?",
        "Write a haiku about snow",
        "Explain photosynthesis to a child",
        "who wrote Emma",
        "Translate 'good day' into Czech",
        "How do magnets work?",
    ],
)
def test_a_text_that_stands_by_itself_needs_no_turns(text: str) -> None:
    assert needed_turns(text, turns(*CAPITAL)) == []


@pytest.mark.parametrize(
    "text",
    [
        "Summarise all of the above",
        "What have we discussed so far?",
        "What is my name?",
        "Compare both answers",
        "What did you say about bees earlier?",
        "Recap our conversation",
        "The rain in the north was worse than anyone had feared that spring",
    ],
)
def test_a_text_about_the_conversation_or_the_user_or_in_doubt_needs_every_turn(text: str) -> None:
    assert needed_turns(text, turns("Write a poem.", "Bees hum.", *CAPITAL)) == [0, 1, 2, 3]


@pytest.mark.parametrize("said", ["Always answer in German.", "My name is Ada.", "From now on, be rude."])
def test_a_standing_instruction_keeps_every_turn(said: str) -> None:
    assert needed_turns("What is 12 times 12?", turns(said, "Good.")) == [0, 1]


def test_follow_ups_on_follow_ups_reach_back_to_what_they_are_about() -> None:
    earlier = turns("Tell me a joke about cats", "Meow.", *CAPITAL, "And Spain?", "Madrid.")
    assert needed_turns("and Italy?", earlier) == [2, 3, 4, 5]


def test_without_earlier_turns_nothing_is_needed() -> None:
    assert needed_turns("now translate it", []) == []
    assert needed_turns("now translate it", turns(system="Be brief.")) == []
