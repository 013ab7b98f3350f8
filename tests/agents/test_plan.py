import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.graph import DEPTH_MAX, TASKS_MAX, Task
from monai_node.agents.label import Label, Reading
from monai_node.agents.passthrough import SYSTEM_PROMPT_CHARS_MAX
from monai_node.agents.plan import INSTRUCTION_CHARS_MAX, Plan, plan
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.agents.segment import Segment
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage, Parameters

TWO = "What is 37 * 49, and write a two-line poem about rivers"
DEV = Path(__file__).parent / "data" / "plans-dev.jsonl"


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def request(
    *messages: ChatMessage,
    model: str = "mesh",
    parameters: Parameters | None = None,
    options: MeshOptions | None = None,
) -> RunRequest:
    return RunRequest(
        run=RunId("run-1"),
        messages=messages,
        model=model,
        parameters=parameters or Parameters(),
        options=options or MeshOptions(),
    )


def plan_of(text: str, *earlier: ChatMessage) -> Plan:
    return plan(request(*earlier, user(text)))


def texts(found: Plan) -> list[str]:
    return [task.text for task in found.graph.tasks]


# --- when not to plan ----------------------------------------------------------------------------------
PAIR = [user("good"), assistant("positive")]
NOT_PLANNED: list[tuple[str, RunRequest]] = [
    ("never", request(user(TWO), options=MeshOptions(plan="never"))),
    ("model", request(user(TWO), model="smollm2")),
    ("tools", request(user(TWO), parameters=Parameters(tools=[{"type": "function"}]))),
    ("tools", request(user("hi"), ChatMessage(role="tool", content="4"), user(TWO))),
    ("schema", request(user(TWO), parameters=Parameters(json_schema={"type": "object"}))),
    ("prefill", request(user(TWO), assistant("Sure: "))),
    ("last_message", request(user(TWO), ChatMessage(role="system", content="Be brief."))),
    (
        "system_prompt",
        request(ChatMessage(role="system", content="x" * (SYSTEM_PROMPT_CHARS_MAX + 1)), user(TWO)),
    ),
    ("examples", request(*PAIR, *PAIR, *PAIR, user("awful film and write it down"))),
]


@pytest.mark.parametrize(("reason", "given_request"), NOT_PLANNED, ids=[reason for reason, _ in NOT_PLANNED])
def test_a_request_that_is_not_ours_to_cut_is_passed_through(reason: str, given_request: RunRequest) -> None:
    found = plan(given_request)
    assert (found.is_passthrough, found.reason, found.shown) == (True, reason, ("t1",))
    assert len(found.graph.check().tasks) == 1


def test_a_passed_through_request_carries_its_last_user_message_in_full() -> None:
    assert texts(plan(request(user(TWO), assistant("Sure: ")))) == [TWO]


def test_a_short_system_prompt_and_two_pairs_do_not_prevent_a_plan() -> None:
    system = ChatMessage(role="system", content="x" * SYSTEM_PROMPT_CHARS_MAX)
    assert plan(request(system, *PAIR, *PAIR, user(TWO))).reason == "planned"


def test_turns_of_very_different_length_are_no_examples() -> None:
    chat = [user("hi"), assistant("Hello! " * 30), *PAIR, *PAIR]
    assert plan(request(*chat, user(TWO))).reason == "planned"


@pytest.mark.parametrize("messages", [(), (user(""),), (user("  \n"),)])
def test_a_conversation_without_text_is_refused(messages: tuple[ChatMessage, ...]) -> None:
    with pytest.raises(InvalidRequest, match="no text"):
        plan(request(*messages))


# --- a plan that the caller sent -------------------------------------------------------------------------
def given_plan(*tasks: Task) -> Plan:
    return plan(request(user("hello"), assistant("hi"), user(TWO), options=MeshOptions(plan=list(tasks))))


def test_a_given_plan_is_used_as_it_is() -> None:
    tasks = (Task(id="late", text="b", depends_on=["early"]), Task(id="early", text="a", turns=[0, 1]))
    found = given_plan(*tasks)
    assert found.graph.tasks == tasks
    assert (found.reason, found.is_passthrough, found.shown) == ("given", False, ("late",))


@pytest.mark.parametrize(
    "tasks",
    [
        (),
        (Task(id="a", text="x", depends_on=["b"]),),
        (Task(id="a", text="x"), Task(id="a", text="y")),
        (Task(id="a", text="x", turns=[3]),),
        (Task(id="a", text="x", turns=[-1]),),
    ],
)
def test_a_given_plan_that_cannot_be_run_is_refused(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(InvalidRequest):
        given_plan(*tasks)


# --- one task ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France and its population?",
        "Write a poem about rivers and mountains!",
        "Compare and contrast cats and dogs",
        "Read and summarise this article",
        "Please, could you write a poem about rain?  Thanks!",
        "hello",
        "Rewrite this so that a child gets it: Then write. And translate it.",
        "Übersetze das und schreibe ein Gedicht",
    ],
)
def test_the_text_of_a_single_task_is_the_whole_message(text: str) -> None:
    found = plan_of(text)
    assert (found.reason, found.is_passthrough, texts(found)) == ("single", False, [text])


def test_a_single_task_carries_the_turns_it_needs() -> None:
    earlier = (user("Write a poem about bees"), assistant("Bees hum."))
    assert plan_of("now translate it", *earlier).graph.tasks[0].turns == [0, 1]
    assert plan_of("Write a haiku about snow", *earlier).graph.tasks[0].turns == []


def test_only_the_last_user_message_is_planned() -> None:
    found = plan_of("thanks!", user(TWO), assistant("1813 and a poem"))
    assert texts(found) == ["thanks!"]


# --- several tasks -------------------------------------------------------------------------------------
def test_two_independent_tasks_are_found() -> None:
    found = plan_of(TWO)
    assert texts(found) == ["What is 37 * 49", "write a two-line poem about rivers"]
    assert [task.depends_on for task in found.graph.tasks] == [[], []]
    assert found.shown == ("t1", "t2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "hey! could you please write a limerick for my gran; and then tell me a joke about cats, thanks!",
            ["write a limerick for my gran", "tell me a joke about cats"],
        ),
        (
            "Write a haiku about welding and a slogan for a scrap yard.",
            ["Write a haiku about welding", "Write a slogan for a scrap yard"],
        ),
        (
            "Give me:\n- a haiku about rain\n- a joke about cats",
            ["Give me a haiku about rain", "Give me a joke about cats"],
        ),
        (
            "I keep bees. Draft a label for my honey, and explain swarming in May.",
            ["I keep bees. Draft a label for my honey", "I keep bees. explain swarming in May"],
        ),
        (
            "Write a tale about bees. Keep it short. Then write a song about ants.",
            ["Write a tale about bees. Keep it short", "write a song about ants"],
        ),
        (
            "Name a tree that flowers at 3 p.m. Then name a bird.",
            ["Name a tree that flowers at 3 p.m.", "name a bird"],
        ),
    ],
)
def test_a_task_is_said_in_the_users_own_words_without_the_wrapping(text: str, expected: list[str]) -> None:
    assert texts(plan_of(text)) == expected


DOCUMENT = "Bees matter. Write to your MP, and plant seeds: now."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"Summarise and translate the following: {DOCUMENT}",
            [f"Summarise the following\n\n{DOCUMENT}", f"translate the following: {DOCUMENT}"],
        ),
        (
            f"Tell me what this text is about and count its words: {DOCUMENT}",
            [f"Tell me what this text is about\n\n{DOCUMENT}", f"count its words: {DOCUMENT}"],
        ),
        (
            f"Summarise the text below, then translate the summary.\n\n{DOCUMENT}",
            [f"Summarise the text below\n\n{DOCUMENT}", "translate the summary"],
        ),
        (
            f"Summarise this: {DOCUMENT}\n\nThen translate the summary.",
            [f"Summarise this: {DOCUMENT}", "translate the summary"],
        ),
        (
            f"What is 2 + 2? Also summarise this: {DOCUMENT}",
            ["What is 2 + 2", f"summarise this: {DOCUMENT}"],
        ),
        (
            "Find the bug in this code and write a test for it:\n```\ndef f(): pass\n```",
            [
                "Find the bug in this code\n\n```\ndef f(): pass\n```",
                "write a test for it:\n```\ndef f(): pass\n```",
            ],
        ),
    ],
)
def test_a_document_goes_in_full_to_each_task_that_is_about_it(text: str, expected: list[str]) -> None:
    assert texts(plan_of(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Draft an invoice: visit 48, travel 12. Translate it into French.",
            ["Draft an invoice: visit 48, travel 12.", "Translate it into French"],
        ),
        (
            "Shorten this: the tap leaks. Translate it. Then summarise this: Geese fly. Write an ode.",
            ["Shorten this: the tap leaks.", "Translate it", "summarise this: Geese fly. Write an ode."],
        ),
        (
            f"Make this email polite:\n\n{DOCUMENT}\n\nKeep it short. Then write a joke about cats.",
            [f"Make this email polite:\n\n{DOCUMENT}\n\nKeep it short", "write a joke about cats"],
        ),
    ],
)
def test_what_is_said_behind_a_document_is_not_lost_in_it(text: str, expected: list[str]) -> None:
    assert texts(plan_of(text)) == expected


def test_a_task_that_announces_a_text_works_on_that_whatever_was_said_before() -> None:
    found = plan_of(f"Name a tree. Then summarise this: {DOCUMENT}")
    assert [task.depends_on for task in found.graph.tasks] == [[], []]


@pytest.mark.parametrize("how", ["Keep it short.", "In plain English.", "50 words at most.", "No jargon."])
def test_how_a_task_is_to_be_done_stays_with_it_whatever_a_labeller_says(how: str) -> None:
    def no_manners(segments: Sequence[Segment]) -> Reading:
        return Reading(tuple("context" if piece.text.strip() == how else "task" for piece in segments))

    found = plan(request(user(f"Explain tides. {how} Name a bird.")), no_manners)
    assert texts(found) == [f"Explain tides. {how.rstrip('.')}", "Name a bird"]


def test_the_scene_of_the_next_task_does_not_go_to_the_one_before() -> None:
    def no_scene(segments: Sequence[Segment]) -> Reading:
        return Reading(tuple("context" if "bees" in piece.text else "task" for piece in segments))

    found = plan(request(user("Explain tides. I keep bees. Name a flower.")), no_scene)
    assert texts(found) == ["Explain tides", "I keep bees. Name a flower"]


def test_a_task_of_a_follow_up_needs_turns_only_when_it_refers_to_them() -> None:
    found = plan_of("Now translate it, and write a haiku about snow", user("Write a poem"), assistant("Bees"))
    assert [(task.text, task.turns) for task in found.graph.tasks] == [
        ("translate it", [0, 1]),
        ("write a haiku about snow", []),
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Write a poem about ice, then translate it", ("t1", "t2")),
        ("Extract the dates from my diary, sort them, and put them in a table", ("t3",)),
        ("Translate the note into Welsh and tell me how many words it has", ("t1", "t2")),
        ("1. Find three hotels in Bonn\n2. Sort them by price", ("t1", "t2")),
        ("Find three hotels in Bonn, then sort them by price", ("t2",)),
        ("Summarise the report and give me three questions about it", ("t1", "t2")),
    ],
)
def test_a_working_step_that_is_carried_on_whole_is_not_shown(text: str, shown: tuple[str, ...]) -> None:
    assert plan_of(text).shown == shown


def test_more_tasks_than_may_be_run_become_one() -> None:
    text = "\n".join(f"{n}. Name a thing with {n} legs" for n in range(1, TASKS_MAX + 2))
    found = plan_of(text)
    assert (found.reason, texts(found)) == ("too_many_tasks", [text])


def test_a_chain_that_is_too_deep_becomes_one_task() -> None:
    text = "Write a poem." + " Then translate it." * DEPTH_MAX
    assert plan_of(text).reason == "too_deep"


def test_a_page_of_instructions_is_left_whole() -> None:
    text = "Name a tree. Name a bird. " * (INSTRUCTION_CHARS_MAX // 20)
    assert plan_of(text).reason == "too_long"


def test_any_labeller_may_replace_the_rules() -> None:
    def every_clause(segments: Sequence[Segment]) -> Reading:
        return Reading(("task",) * len(segments))

    found = plan(request(user("alpha beta; gamma delta")), every_clause)
    assert texts(found) == ["alpha beta", "gamma delta"]


def test_the_same_request_gives_the_same_plan() -> None:
    assert plan_of(TWO) == plan_of(TWO)


@pytest.mark.parametrize(
    "unit",
    [
        "and ",
        "to write and ",
        "then it, ",
        "both the ",
        "a: ",
        "- x\n",
        "Name a tree. ",
        "'a ",
        "write ",
        "? ",
        "it ",
    ],
)
def test_no_request_takes_long_to_plan(unit: str) -> None:
    for size in (INSTRUCTION_CHARS_MAX, 100_000):
        started = time.process_time()
        plan_of(unit * (size // len(unit)))
        assert time.process_time() - started < 1


# --- properties ----------------------------------------------------------------------------------------
steering = [
    *("Write a poem about ice", "translate it", " and ", ", ", ". ", "Then ", "Summarise this: ", "\n\n"),
    *(
        "\n1. ",
        "\n2. ",
        "What is 2 + 2? ",
        "```\n",
        '"quote, and. more"',
        "a joke about fog",
        "both",
        "thanks",
    ),
    *("Give me:", "I keep bees. "),
]
some_text = st.lists(st.one_of(st.text(max_size=10), st.sampled_from(steering)), min_size=1, max_size=14).map(
    "".join
)
some_labels: st.SearchStrategy[Label] = st.sampled_from(get_args(Label))
some_needs = st.one_of(st.none(), st.lists(st.integers(-1, 20), max_size=4).map(tuple))


@settings(max_examples=200, deadline=None)
@given(some_text.filter(lambda text: bool(text.strip())), st.data())
def test_whatever_a_labeller_says_the_plan_is_sound_and_invents_no_word(
    text: str, data: st.DataObject
) -> None:
    def labeller(segments: Sequence[Segment]) -> Reading:
        size = len(segments)
        labels = data.draw(st.lists(some_labels, min_size=size, max_size=size))
        needs = data.draw(st.one_of(st.just([]), st.lists(some_needs, min_size=size, max_size=size)))
        return Reading(tuple(labels), tuple(needs))

    for found in (plan(request(user(text)), labeller), plan_of(text)):
        assert found.graph.check().tasks
        assert found.shown
        assert set(found.graph.sinks) <= set(found.shown) <= {task.id for task in found.graph.tasks}
        said = set(text.split())
        for task in found.graph.tasks:
            for word in task.text.split():
                assert any(word in original for original in said)


# --- the development set -------------------------------------------------------------------------------
def test_the_development_requests_are_planned_word_for_word() -> None:
    rows = [json.loads(line) for line in DEV.read_text(encoding="utf-8").splitlines()]
    tuned_on = [row for row in rows if row["half"] == "dev"]
    assert len(tuned_on) > 20
    for row in tuned_on:
        found = plan_of(row["request"])
        places = {task.id: place for place, task in enumerate(found.graph.tasks)}
        assert [
            {"text": task.text, "depends_on": [places[name] for name in task.depends_on]}
            for task in found.graph.tasks
        ] == row["tasks"]
