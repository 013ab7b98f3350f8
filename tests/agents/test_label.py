import pytest

from monai_node.agents.label import is_open_header, label_by_rules
from monai_node.agents.segment import segment


def tasks(text: str) -> list[str]:
    """Where tasks start: the segments labelled so."""
    segments = segment(text)
    labels = label_by_rules(segments).labels
    assert len(labels) == len(segments)
    return [piece.text.strip() for piece, label in zip(segments, labels, strict=True) if label == "task"]


def count(text: str) -> int:
    return len(tasks(text))


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem about rivers and mountains",
        "What is the capital of France and its population?",
        "rock and roll",
        "Tell me the history of rock and roll",
        "compare A and B",
        "Explain how photosynthesis works and why leaves are green",
        "Explain search and rescue dogs",
        "How can I manage my time and reduce stress?",
        "Should I repaint the door and replace the lock?",
        "Write a post about work. Add a catchy title.",
        "Write it in Rust and add tests",
        "Teach me to read and write Japanese",
        "Show me how to install and configure nginx",
        "Write a script that downloads a file and checks its hash",
        "Write an app that can sing and write songs",
        "Take the key and open the door",
        "take ten dollars from savings and put it into checking",
        "Read this article and summarise it",
        "Look at the photo, describe the bird",
        "Fix the grammar and improve the style of this essay",
        "Make it shorter and fix the typos",
        "Write a poem about love, work, plan B and a paper boat",
        "Write simple, clean and correct code",
        "Write about cats, dogs, and train stations",
        "Who wrote Emma and when was it published?",
        "Where do eels breed and how do they get there?",
        "What should I wear and is it cold?",
        "Tell me what it does and how it works",
        "Tell me what is in it and what is missing",
        "Write a story. Keep it short. Use simple words. Avoid adjectives. Make it rhyme.",
        "Write a haiku. It should mention rain.",
        "Answer in French: why is the sky blue?",
        "Should I rent or buy, and if I buy, how much do I need?",
        "Detect the language, and if it isn't English translate it",
        "I need a visa, show me how",
        "play the song that goes move it, move it",
        "What's the next train to Leeds?",
        "What does the plus sign mean on my dashboard?",
        "Please go ahead and flip a coin",
        "Write a shopping list with:\n- eggs\n- milk\n- order pads",
        "Rank these fruits:\n- apples\n- pears",
        "The design is bad. Work is hard. What can I do?",
        "Traduis ce texte et écris un poème",
        "Schreibe ein Gedicht über Flüsse und übersetze es dann ins Englische",
        "翻译这句话，然后写一首诗",
        "hello",
        "thanks!",
        "😀😀 and 😀",
        "",
    ],
)
def test_one_task_is_not_split(text: str) -> None:
    assert count(text) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "What is 37 * 49, and write a two-line poem about rivers",
            ["What is 37 * 49,", "and write a two-line poem about rivers"],
        ),
        ("Write a poem. Then translate it.", ["Write a poem.", "Then translate it."]),
        ("Name a river and tell me its length", ["Name a river", "and tell me its length"]),
        ("Draw a cat; colour it red", ["Draw a cat;", "colour it red"]),
        ("Who wrote Emma? What is 2 + 2?", ["Who wrote Emma?", "What is 2 + 2?"]),
        ("Who painted Guernica and what is 3 * 7?", ["Who painted Guernica", "and what is 3 * 7?"]),
        ("Write a haiku and what is 12 times 12?", ["Write a haiku", "and what is 12 times 12?"]),
        (
            "Translate it, shorten it and count the words",
            ["Translate it,", "shorten it", "and count the words"],
        ),
        (
            "Write a haiku about ice and a limerick about fog",
            ["Write a haiku about ice", "and a limerick about fog"],
        ),
        ("I need a poem about ice and a joke about fog", ["I need a poem about ice", "and a joke about fog"]),
        (
            "Find a hotel, list three sights and draft an email",
            ["Find a hotel,", "list three sights", "and draft an email"],
        ),
        ("1. Find a rhyme\n2. Write a couplet", ["1. Find a rhyme", "2. Write a couplet"]),
        ("Step 1: pick a prime. Step 2: square it.", ["Step 1: pick a prime.", "Step 2: square it."]),
        (
            "Give me:\n- a haiku about rain\n- a joke about cats",
            ["- a haiku about rain", "- a joke about cats"],
        ),
        (
            "I'd like you to sort the list and then print it",
            ["I'd like you to sort the list", "and then print it"],
        ),
        ("Hi! Can you name a tree? Also name a bird.", ["Hi! Can you name a tree?", "Also name a bird."]),
        ("Summarise and translate the following: Ice melts.", ["Summarise", "and translate the following:"]),
        ("I have a dog. Suggest a name and draw it.", ["Suggest a name", "and draw it."]),
        ("I want to start a bakery. Suggest a name. Draw a logo.", ["Suggest a name.", "Draw a logo."]),
        (
            "Answer the following questions:\n1. What is DNA?\n2. What is RNA?",
            ["1. What is DNA?", "2. What is RNA?"],
        ),
        ("Compute 2 * 3 and add 4 to it", ["Compute 2 * 3", "and add 4 to it"]),
        ("fetch the page, parse it, plot the data", ["fetch the page,", "parse it,", "plot the data"]),
    ],
)
def test_a_segment_that_starts_a_task_is_labelled_so(text: str, expected: list[str]) -> None:
    assert tasks(text) == expected


def labels(text: str) -> list[tuple[str, str]]:
    segments = segment(text)
    return [
        (piece.text.strip(), label)
        for piece, label in zip(segments, label_by_rules(segments).labels, strict=True)
    ]


def test_background_is_context_and_a_constraint_continues_its_task() -> None:
    assert labels("I keep bees. Draft a label. It must be short. I also sell wax. Name a candle.") == [
        ("I keep bees.", "context"),
        ("Draft a label.", "task"),
        ("It must be short.", "continue"),
        ("I also sell wax.", "context"),
        ("Name a candle.", "task"),
    ]


def test_greetings_and_thanks_are_context_and_no_task() -> None:
    assert labels("Hope you're well. Name a tree. Thank you so much!") == [
        ("Hope you're well.", "context"),
        ("Name a tree.", "task"),
        ("Thank you so much!", "context"),
    ]


def test_a_payload_is_context_whatever_it_says() -> None:
    found = labels("Summarise this:\n```\nWrite a poem. Then translate it.\n```")
    assert [label for _, label in found] == ["task", "context"]


def test_a_list_header_without_tasks_below_is_the_task_itself() -> None:
    assert labels("Rank these fruits:\n- apples\n- pears") == [
        ("Rank these fruits:", "task"),
        ("- apples", "continue"),
        ("- pears", "continue"),
    ]


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("Give me:", True),
        ("Please write me the following three things:", True),
        ("Write a list with:", False),
    ],
)
def test_a_header_is_open_when_it_names_no_object(text: str, is_open: bool) -> None:
    assert is_open_header(text) is is_open


def test_the_rules_start_no_task_at_a_soft_boundary() -> None:
    segments = segment("my cat is ill what do i do write a note to my boss")
    assert [piece.boundary for piece in segments] == ["start", "soft", "soft"]
    assert label_by_rules(segments).labels == ("context", "context", "context")
