"""Recipes: plans that their user accepted or corrected, tried before any planner reads a request.

A recipe of a shape says of every task from where to where in the request its words stand; in another
request of the shape the same places hold the other quote, number or name. Where a user wrote words of
their own into a task, nobody can say what they would be for another request: such a plan is a recipe
for the very same text only. A plan that fits neither is not kept. Pure, but for the source at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from monai_node.agents.graph import TASK_TEXT_CHARS_MAX, TASKS_MAX, Task, TaskGraph
from monai_node.agents.plan import GRAPH_CHARS_MAX, Draft, Origin, Plan, begin, shown_tasks
from monai_node.agents.planner import Source
from monai_node.agents.request import RunRequest
from monai_node.agents.shape import Slot, Token, shape, tokens_of
from monai_node.agents.turns import needed_turns
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import Label
from monai_node.router.policy import Policy, shows_no_more

# Of a recipe as JSON. Of a plan for one text that is longer, nobody will need the very same again.
RECIPE_BYTES_MAX = 64 << 10
# A look into one file; a disk that takes longer is not worth waiting for.
_SOURCE_SECONDS = 1.0
_TITLE_CHARS_MAX = 200
# A number or a name alone may be in a text by chance; with a neighbour it was taken from the request.
_NEVER_ALONE: frozenset[Slot | None] = frozenset({"number", "name"})
# A text of more pieces was put together anew.
_RUNS_MAX = 16
# Tens of milliseconds; a plan of eight tasks takes a few thousand.
_STEPS_MAX = 200_000
_GLUE_CHARS_MAX = 2
_SPACE = re.compile(r"\s*")
_WHY = "so it was in the plan that you gave for a request like this"


class Run(BaseModel):
    """Tokens `first` to `last` of the request, exactly as they stand there, after the white space `glue`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int = Field(ge=0)
    last: int = Field(ge=0)
    glue: str = Field(default="", max_length=_GLUE_CHARS_MAX, pattern=r"^\s*$")


class Recipe(BaseModel):
    """How to plan the requests that have its `key`.

    In a recipe for a shape the tasks of `graph` say the shape of their words, and `runs` where those
    stand; in one for a text `graph` is the plan itself and `runs` is empty. `shown` as in `Plan`. `label`
    is that of the request whose plan it was: words that its user wrote into that plan are shown to nobody
    who might not have seen them then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=r"^(shape|text)-[0-9a-f]{32}$")
    title: str = Field(max_length=_TITLE_CHARS_MAX)
    graph: TaskGraph
    runs: tuple[Annotated[tuple[Run, ...], Field(min_length=1)], ...] = Field(
        default=(), max_length=TASKS_MAX
    )
    shown: tuple[str, ...] = Field(min_length=1)
    label: Label = "open"

    def may_serve(self, label: Label) -> bool:
        """Whether a request of this label may be planned by it."""
        return bool(self.runs) or shows_no_more(label, self.label)

    @property
    def id(self) -> str:
        """A short name for people: enough of the key to tell recipes apart."""
        return self.key.partition("-")[2][:8]


def keys_of(draft: Draft) -> tuple[str, str]:
    """The keys under which a recipe for this request may stand: that of its text, that of its shape."""
    return _key("text", draft.text), _key("shape", shape(draft.segments))


def recipe_of(draft: Draft, graph: TaskGraph, shown: Sequence[str] = ()) -> Recipe | None:
    """What to remember of a plan that was accepted for this request, the one with the wider use. `graph`
    passes its check.

    None when its tasks need other turns of the conversation than their words say, or when it is too
    long to keep. `shown` are the tasks whose results made the answer; empty: those no other needs.
    """
    tokens = tokens_of(draft.segments)
    search = _Search(draft.text, tokens)
    found = [search.runs(task.text) for task in graph.tasks]
    runs = tuple(each for each in found if each is not None)
    text_key, shape_key = keys_of(draft)
    if len(runs) == len(found):
        said = [_said(each, tokens) for each in runs]
        title, key = " ".join(token.said for token in tokens), shape_key
    else:
        runs, said = (), [task.text for task in graph.tasks]
        title, key = " ".join(draft.text[:_TITLE_CHARS_MAX].split()), text_key
    recipe = Recipe(
        key=key,
        title=title if len(title) <= _TITLE_CHARS_MAX else title[: _TITLE_CHARS_MAX - 1] + "…",
        graph=TaskGraph(tasks=tuple(map(_with_words, graph.tasks, said))),
        runs=runs,
        shown=tuple(shown) or shown_tasks(graph),
    )
    again = apply(recipe, draft)
    is_same = again is not None and _lowered(again.graph) == _lowered(graph)
    return recipe if is_same and len(json.dumps(recipe.model_dump())) <= RECIPE_BYTES_MAX else None


def apply(recipe: Recipe, draft: Draft) -> Plan | None:
    """The plan of a request by a recipe that has one of its keys; None when it does not fit after all."""
    if not recipe.runs:
        return _plan(
            recipe, draft, [task.text for task in recipe.graph.tasks], [()] * len(recipe.graph.tasks)
        )
    tokens = tokens_of(draft.segments)
    if len(recipe.runs) != len(recipe.graph.tasks) or any(
        not run.first <= run.last < len(tokens) for runs in recipe.runs for run in runs
    ):
        return None
    spans = [tuple((tokens[run.first].start, tokens[run.last].end) for run in runs) for runs in recipe.runs]
    texts = [
        "".join(run.glue + draft.text[start:end] for run, (start, end) in zip(runs, places, strict=True))
        for runs, places in zip(recipe.runs, spans, strict=True)
    ]
    return _plan(recipe, draft, texts, spans)


def _plan(
    recipe: Recipe, draft: Draft, texts: Sequence[str], spans: Sequence[tuple[tuple[int, int], ...]]
) -> Plan | None:
    lengths = [len(text) for text in texts]
    if max(lengths) > TASK_TEXT_CHARS_MAX or sum(lengths) > GRAPH_CHARS_MAX:
        return None
    tasks = [
        _with_words(task, text).model_copy(update={"turns": _turns(task, text, draft)})
        for task, text in zip(recipe.graph.tasks, texts, strict=True)
    ]
    try:
        graph = TaskGraph(tasks=tuple(tasks)).check()
    except InvalidRequest:
        return None  # kept by another version, or not by us
    shown = tuple(task.id for task in tasks if task.id in recipe.shown)
    if not shown:
        return None
    return Plan(
        graph=graph,
        reason="planned" if len(tasks) > 1 else "single",
        shown=shown,
        planner="recipe",
        origins=tuple(
            Origin(spans=places, why=dict.fromkeys(task.depends_on, _WHY))
            for task, places in zip(tasks, spans, strict=True)
        ),
    )


def _turns(task: Task, text: str, draft: Draft) -> list[int]:
    """As in any plan: a task that begins from a result has its object, another may need earlier turns."""
    return [] if task.depends_on else needed_turns(text, draft.earlier)


def _lowered(graph: TaskGraph) -> list[Task]:
    return [_with_words(task, task.text.lower()) for task in graph.tasks]


def _with_words(task: Task, text: str) -> Task:
    return task.model_copy(update={"text": text})


def _key(kind: str, text: str) -> str:
    return f"{kind}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:32]}"


# --- where the words of a task stand ------------------------------------------------------------------
class _Search:
    """Looks for the words of tasks in one request. It gives up after _STEPS_MAX, as if it found nothing:
    a text that says one word over and over could be anywhere."""

    def __init__(self, request: str, tokens: Sequence[Token]) -> None:
        self._request = request
        self._tokens = tokens
        self._steps = 0

    def runs(self, text: str) -> tuple[Run, ...] | None:
        """The text as runs of tokens, each as long as can be; None when it holds anything else."""
        runs: list[Run] = []
        at = 0
        while at < len(text) and len(runs) < _RUNS_MAX:
            glue = _SPACE.match(text, at)
            assert glue is not None  # it matches no space, too
            run, at = self._longest(text, glue.end(), runs[-1].last + 1 if runs else 0)
            if run is None or len(glue[0]) > _GLUE_CHARS_MAX:
                return None
            runs.append(run.model_copy(update={"glue": glue[0]}))
        return tuple(runs) if at == len(text) else None

    def _longest(self, text: str, at: int, expected: int) -> tuple[Run | None, int]:
        """The longest run that the text goes on with, and where it ends; of equal ones the first from
        `expected` on."""
        best: tuple[Run | None, int] = (None, at)
        for first in (*range(expected, len(self._tokens)), *range(expected)):
            last, end = self._follow(text, at, first)
            if self._steps > _STEPS_MAX:
                return None, at
            is_chance = last == first and self._tokens[first].slot in _NEVER_ALONE
            if end > best[1] and not is_chance:
                best = Run(first=first, last=last), end
            if end == len(text):
                break
        return best

    def _follow(self, text: str, at: int, first: int) -> tuple[int, int]:
        """The last token up to which the text goes on as the request does from `first`, and its end."""
        tokens, last, end = self._tokens, first - 1, at
        while last + 1 < len(tokens):
            self._steps += 1
            gap = self._request[tokens[last].end : tokens[last + 1].start] if last >= first else ""
            longer = _after(text, end + len(gap), tokens[last + 1]) if text.startswith(gap, end) else None
            if longer is None:
                break
            last, end = last + 1, longer
        return last, end


def _after(text: str, at: int, token: Token) -> int | None:
    """Where the token ends if the text has it at this place, as a whole word; a user who edits a word
    may have made its first letter large or small."""
    end = at + len(token.text)
    is_same = text.startswith(token.text, at) or (
        token.slot is None and text[at:end].lower() == token.text.lower()
    )
    is_cut = token.text[-1].isalnum() and text[end : end + 1].isalnum()
    return end if is_same and not is_cut else None


def _said(runs: Sequence[Run], tokens: Sequence[Token]) -> str:
    return " ".join(token.said for run in runs for token in tokens[run.first : run.last + 1])


def accepted(request: RunRequest, label: Label) -> tuple[Recipe, tuple[str, str]] | None:
    """The recipe in a request of this label whose plan its user sent with it, and the keys whose recipes
    it replaces.

    None when there is nothing to learn: the request would not be planned, or the plan is not one to keep.
    """
    options = request.options
    if not isinstance(options.plan, list) or not request.messages:
        return None
    unplanned = options.model_copy(update={"plan": "auto", "shown": None})
    draft = begin(replace(request, options=unplanned))
    if isinstance(draft, Plan) or draft.whole == "too_long" or (draft.whole and len(options.plan) == 1):
        return None
    recipe = recipe_of(draft, TaskGraph(tasks=tuple(options.plan)), options.shown or ())
    return recipe and (recipe.model_copy(update={"label": label}), keys_of(draft))


# --- the source ---------------------------------------------------------------------------------------
class Recipes(Protocol):
    """Where recipes are kept."""

    def find(self, keys: Sequence[str]) -> Recipe | None:
        """The recipe of the first of these keys that has one. Called in threads; raises a MonaiError
        when it cannot tell."""
        ...


def recipe_source(store: Recipes) -> Source:
    """The planner's source that goes by kept recipes; it has no plan for requests of unknown shape."""

    def planned(draft: Draft, policy: Policy) -> Plan | None:
        for key in () if draft.whole == "too_long" else keys_of(draft):
            recipe = store.find([key])
            if recipe is not None and recipe.may_serve(policy.label):
                return apply(recipe, draft)
        return None

    async def plan(draft: Draft, policy: Policy) -> Plan | None:
        return await asyncio.to_thread(planned, draft, policy)

    return Source("recipe", _SOURCE_SECONDS, plan, takes_whole=True)
