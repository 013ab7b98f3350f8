"""Accepted plans: what is remembered of one, where it is used again, and where it must not be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.label import label_by_rules
from monai_node.agents.plan import Draft, Plan, begin, finish
from monai_node.agents.planner import Planner
from monai_node.agents.recipes import (
    RECIPE_BYTES_MAX,
    Recipe,
    accepted,
    apply,
    keys_of,
    recipe_of,
    recipe_source,
)
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage, Label

FRENCH = "Translate 'good morning' into French and count its words"
ITALIAN = 'Translate "we are many" into Italian and count its words.'
DOCUMENT = "The harbour was quiet, and then it was not. Nobody knew why the boats had left. " * 5


def request_of(text: str, *earlier: ChatMessage, **options: Any) -> RunRequest:
    messages = (*earlier, ChatMessage(role="user", content=text))
    return RunRequest(run=RunId("run-1"), messages=messages, options=MeshOptions(**options))


def draft_of(text: str, *earlier: ChatMessage) -> Draft:
    draft = begin(request_of(text, *earlier))
    assert isinstance(draft, Draft)
    return draft


def graph_of(*texts: str, **fields: dict[str, Any]) -> TaskGraph:
    """Each task needs the one before it; `t2=…` are fields of that task."""
    tasks: list[Task] = []
    for n, text in enumerate(texts, 1):
        needs = [f"t{n - 1}"] if n > 1 else []
        tasks.append(Task(id=f"t{n}", text=text, depends_on=needs, **fields.get(f"t{n}", {})))
    return TaskGraph(tasks=tuple(tasks))


def kept(text: str, graph: TaskGraph, shown: Sequence[str] = ()) -> Recipe:
    recipe = recipe_of(draft_of(text), graph, shown)
    assert recipe is not None
    return recipe


def applied(recipe: Recipe, text: str, *earlier: ChatMessage) -> Plan | None:
    """The plan by this recipe, when it is one for such a request."""
    draft = draft_of(text, *earlier)
    return apply(recipe, draft) if recipe.key in keys_of(draft) else None


def texts_of(plan: Plan | None) -> list[str]:
    assert plan is not None
    return [task.text for task in plan.graph.tasks]


# --- what a recipe does -----------------------------------------------------------------------------
def test_a_corrected_plan_is_used_for_another_request_of_its_shape_with_that_ones_words() -> None:
    corrected = graph_of("Translate 'good morning' into French", "count its words")
    plan = applied(kept(FRENCH, corrected), ITALIAN)
    assert texts_of(plan) == ['Translate "we are many" into Italian', "count its words"]
    assert plan is not None
    assert plan.graph.tasks[1].depends_on == ["t1"]
    assert (plan.planner, plan.reason, plan.shown) == ("recipe", "planned", ("t2",))
    (start, end), *more = plan.origins[0].spans
    assert (ITALIAN[start:end], more) == ('Translate "we are many" into Italian', [])
    assert "like this" in plan.origins[1].why["t1"]


def test_every_field_of_a_task_and_what_is_shown_is_used_again() -> None:
    fields = {"t1": {"skill": "translation"}, "t2": {"each": "t1"}}
    corrected = graph_of("Translate 'good morning' into French", "count its words", **fields)
    plan = applied(kept(FRENCH, corrected, ["t1", "t2"]), ITALIAN)
    assert plan is not None
    first, second = plan.graph.tasks
    assert (first.skill, second.each, plan.shown) == ("translation", "t1", ("t1", "t2"))


def test_words_may_be_left_out_said_twice_and_stand_in_another_order() -> None:
    corrected = graph_of("count its words", "Translate 'good morning'", "into French 'good morning'")
    plan = applied(kept(FRENCH, corrected), ITALIAN)
    assert texts_of(plan) == ["count its words", 'Translate "we are many"', 'into Italian "we are many"']


def test_a_request_that_was_not_to_be_divided_stays_one_task() -> None:
    plan = applied(kept(FRENCH, graph_of(FRENCH)), ITALIAN)
    assert texts_of(plan) == [ITALIAN.rstrip(".")]
    assert plan is not None
    assert plan.reason == "single"


def test_a_document_is_replaced_by_the_other_one() -> None:
    ask = "Summarise the text below and translate the summary into {}:\n\n{}"
    draft = draft_of(ask.format("French", DOCUMENT))
    planned = finish(draft, label_by_rules(draft.segments))
    recipe = recipe_of(draft, planned.graph, planned.shown)
    assert recipe is not None
    assert "harbour" not in recipe.model_dump_json()
    other = "A mountain is a tall thing of stone. It has been there for long. " * 6
    again = draft_of(ask.format("German", other))
    planned_anew = finish(again, label_by_rules(again.segments))
    assert texts_of(applied(recipe, again.text)) == texts_of(planned_anew)


def test_what_the_rules_plan_is_remembered_as_they_planned_it() -> None:
    """The plan that a user accepts without a change comes back unchanged."""
    for text in (
        FRENCH,
        "What is 37 * 49, and write a two-line poem about rivers",
        "1. Name 3 trees.\n2. Say which of them is the tallest.\n3. Write to Anna about it.",
        f"Hi! I am a sailor. Shorten the following and write a headline for it:\n\n{DOCUMENT}",
    ):
        draft = draft_of(text)
        planned = finish(draft, label_by_rules(draft.segments))
        assert len(planned.graph.tasks) > 1
        recipe = recipe_of(draft, planned.graph, planned.shown)
        assert recipe is not None
        assert recipe.key.startswith("shape-")
        again = apply(recipe, draft)
        assert again is not None
        assert (again.graph, again.shown) == (planned.graph, planned.shown)


# --- where a recipe must not be used ------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "Count the words of the translation",  # words of the user's own
        "count its 5 words",  # a number that the request does not have
        "count its words French",  # a name alone may stand there by chance
        "count its word",  # not the same word
        "count its words\n\n\nTranslate",  # white space of the user's own
        " count its words ",
    ],
)
def test_a_plan_with_words_of_its_own_is_for_the_very_same_text_only(text: str) -> None:
    corrected = graph_of("Translate 'good morning' into French", text)
    recipe = kept(FRENCH, corrected)
    assert recipe.key.startswith("text-")
    assert applied(recipe, ITALIAN) is None
    again = applied(recipe, FRENCH)
    assert again is not None
    assert again.graph == corrected


def test_a_number_of_the_users_own_is_not_taken_for_one_of_the_request() -> None:
    text = "Name 2 trees and write a poem of some lines about them with rhymes"
    corrected = graph_of("Name 2 trees", "write a poem of some lines about them with 2 rhymes")
    assert kept(text, corrected).key.startswith("text-")


@pytest.mark.parametrize(
    "text",
    [
        "Translate 'good morning' into French and count its letters",
        "Translate 'good morning' into French, and count its words",
        "Translate 'good morning' into French and 'Italian' and count its words",
        "Translate good morning into French and count its words",
        "Count its words and translate 'good morning' into French",
    ],
)
def test_requests_in_other_words_are_not_planned_by_it(text: str) -> None:
    corrected = graph_of("Translate 'good morning' into French", "count its words")
    assert applied(kept(FRENCH, corrected), text) is None


def test_a_first_letter_may_be_made_large_in_an_edit() -> None:
    corrected = graph_of("translate 'good morning' into French", "Count its words")
    assert texts_of(applied(kept(FRENCH, corrected), ITALIAN))[1] == "count its words"


def test_turns_follow_from_the_conversation_and_a_plan_that_fixes_them_is_not_kept() -> None:
    asks = ChatMessage(role="user", content="Write a poem about rivers.")
    says = ChatMessage(role="assistant", content="The river flows.")
    asked = "Summarise that in French and count its words"
    corrected = graph_of("Summarise that in French", "count its words", t1={"turns": [0, 1]})
    recipe = recipe_of(draft_of(asked, asks, says), corrected)
    assert recipe is not None
    plan = applied(recipe, asked.replace("French", "German"), asks, says, asks, says)
    assert plan is not None
    assert plan.graph.tasks[0].turns == [2, 3]
    odd = graph_of("Summarise that in French", "count its words", t1={"turns": [0]})
    assert recipe_of(draft_of(asked, asks, says), odd) is None


def test_words_that_could_be_anywhere_are_not_looked_for_without_end() -> None:
    request = "write " * 490 + ". Draw it"
    short, long = "write write", ("write " * 100 + " ") * 15 + "write"
    assert kept(request, graph_of(short)).key.startswith("shape-")
    assert kept(request, graph_of(long)).key.startswith("text-")


def test_a_plan_that_is_too_long_is_not_kept() -> None:
    assert recipe_of(draft_of(FRENCH), graph_of("x" * RECIPE_BYTES_MAX)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"runs": ({"first": 0, "last": 99},)},
        {"runs": ({"first": 3, "last": 1},)},
        {"shown": ("t9",)},
        {"graph": {"tasks": [{"id": "t1", "text": "x", "depends_on": ["t9"]}]}},
    ],
)
def test_a_recipe_that_does_not_fit_has_no_plan(change: dict[str, Any]) -> None:
    good = kept(FRENCH, graph_of(FRENCH)).model_dump()
    changed = {**good, **{key: (value,) if key == "runs" else value for key, value in change.items()}}
    recipe = Recipe.model_validate(changed)
    assert apply(Recipe.model_validate(good), draft_of(FRENCH)) is not None
    assert apply(recipe, draft_of(FRENCH)) is None


# --- what is accepted -----------------------------------------------------------------------------------
def test_a_request_with_its_plan_is_accepted_under_its_text_and_shape() -> None:
    tasks = list(graph_of("Translate 'good morning' into French", "count its words").tasks)
    found = accepted(request_of(FRENCH, plan=tasks, shown=["t1"]), "trusted")
    assert found is not None
    recipe, keys = found
    assert recipe.shown == ("t1",)
    assert keys == keys_of(draft_of(FRENCH))
    assert recipe.key == keys_of(draft_of(ITALIAN))[1]


@pytest.mark.parametrize(
    "request_",
    [
        request_of(FRENCH),
        request_of(FRENCH, plan="never"),
        request_of("Hello!", plan=[Task(id="t1", text="Hello!")]),
        RunRequest(RunId("run-1"), (), options=MeshOptions(plan=[Task(id="t1", text="x")])),
        RunRequest(
            RunId("run-1"),
            (ChatMessage(role="user", content=FRENCH),),
            model="tiny",
            options=MeshOptions(plan=[Task(id="t1", text="x")]),
        ),
    ],
    ids=["planned here", "never", "nothing to read", "no conversation", "one model"],
)
def test_nothing_is_learnt_where_there_is_no_plan_or_no_use_for_it(request_: RunRequest) -> None:
    assert accepted(request_, "trusted") is None


# --- the source -------------------------------------------------------------------------------------------
class Shelf:
    def __init__(self, *recipes: Recipe) -> None:
        self._recipes = {recipe.key: recipe for recipe in recipes}

    def find(self, keys: Sequence[str]) -> Recipe | None:
        return next((self._recipes[key] for key in keys if key in self._recipes), None)


def test_a_planner_asks_for_a_recipe_and_prefers_the_one_for_the_very_text() -> None:
    for_shape = kept(FRENCH, graph_of("Translate 'good morning' into French", "count its words"))
    for_text = kept(FRENCH, graph_of("Translate 'good morning' to the French"))
    planner = Planner([recipe_source(Shelf(for_shape, for_text))])
    plans = [
        asyncio.run(planner.plan(request_of(text), "local"))
        for text in (FRENCH, ITALIAN, "Name a tree. Draw it.")
    ]
    assert [plan.planner for plan in plans] == ["recipe", "recipe", "rules"]
    assert [len(plan.graph.tasks) for plan in plans] == [1, 2, 2]


def test_a_request_that_is_never_to_be_planned_is_not_planned_by_a_recipe() -> None:
    recipe = kept(FRENCH, graph_of("Translate 'good morning' into French", "count its words"))
    plan = asyncio.run(
        Planner([recipe_source(Shelf(recipe))]).plan(request_of(FRENCH, plan="never"), "local")
    )
    assert (plan.planner, plan.reason) == (None, "never")


def test_a_request_that_looks_like_one_task_can_be_taught_otherwise() -> None:
    text = "Newsletter about bees"
    graph = graph_of("Newsletter", "about bees")
    assert draft_of(text).whole == "single"
    found = accepted(request_of(text, plan=list(graph.tasks)), "trusted")
    assert found is not None
    learnt = applied(found[0], text)
    assert learnt is not None
    assert learnt.graph == graph


@pytest.mark.parametrize(
    ("written", "asked", "is_used"),
    [
        ("local", "local", True),
        ("local", "trusted", False),
        ("trusted", "open", False),
        ("trusted", "local", True),
        ("open", "open", True),
    ],
)
def test_words_of_the_users_own_go_to_nobody_who_could_not_have_seen_them(
    written: Label, asked: Label, is_used: bool
) -> None:
    """The same request under a wider label must not carry what was written into the plan of another."""
    own = graph_of("Translate 'good morning' into French for my doctor", "count its words")
    found = accepted(request_of(FRENCH, plan=list(own.tasks)), written)
    assert found is not None
    plan = asyncio.run(Planner([recipe_source(Shelf(found[0]))]).plan(request_of(FRENCH), asked))
    assert ("doctor" in plan.graph.tasks[0].text) is is_used


def test_a_recipe_without_words_of_its_own_serves_requests_of_every_label() -> None:
    divided = graph_of("Translate 'good morning' into French", "count its words")
    found = accepted(request_of(FRENCH, plan=list(divided.tasks)), "local")
    assert found is not None
    plan = asyncio.run(Planner([recipe_source(Shelf(found[0]))]).plan(request_of(ITALIAN), "open"))
    assert plan.planner == "recipe"
