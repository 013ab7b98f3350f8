from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

DATA = Path(__file__).parent / "data"
CORPUS = Path(__file__).parents[2] / "agents" / "training" / "corpus"

Tasks = list[tuple[str, list[int]]]  # a span and its dependencies, for each task


class GoldTask(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    spans: list[str] = Field(min_length=1)
    depends_on: list[int]


class GoldRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*-\d{4}$")
    text: str = Field(min_length=1)
    tasks: list[GoldTask]
    tags: list[str]


def lines(path: Path) -> list[str]:
    # Not splitlines(): a text may hold U+2028, which JSON need not escape.
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def has_format(path: Path) -> bool:
    """Whether the first record has the keys of a gold plan; the development set has others."""
    first = TypeAdapter(dict[str, object]).validate_json(lines(path)[0])
    return first.keys() >= {"text", "tasks"}


FILES = sorted(path for path in [*DATA.glob("*.jsonl"), *CORPUS.glob("*.jsonl")] if has_format(path))


def requests_of(path: Path) -> list[GoldRequest]:
    return [GoldRequest.model_validate_json(line) for line in lines(path)]


def problems(request: GoldRequest) -> Iterator[str]:
    count = len(request.tasks)
    for index, task in enumerate(request.tasks):
        for span in task.spans:
            if not span or span != span.strip() or span not in request.text:
                yield f"{request.id}: task {index}: the span {span!r} does not stand in the text"
        if len(set(task.depends_on)) < len(task.depends_on):
            yield f"{request.id}: task {index} names a dependency twice"
        if not all(0 <= other < count for other in task.depends_on):
            yield f"{request.id}: task {index} depends on a task that does not exist"
    try:
        TopologicalSorter({i: task.depends_on for i, task in enumerate(request.tasks)}).prepare()
    except CycleError:
        yield f"{request.id}: the dependencies make a circle"


def made(tasks: Tasks) -> GoldRequest:
    gold = [GoldTask(spans=[span], depends_on=depends_on) for span, depends_on in tasks]
    return GoldRequest(id="made-0001", text="Add 3 and 4, then write the sum in French.", tasks=gold, tags=[])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_gold_plan_of_a_file_fits_its_request(path: Path) -> None:
    assert [problem for gold in requests_of(path) for problem in problems(gold)] == []


def test_no_id_is_used_twice_in_any_of_the_files() -> None:
    uses = Counter(gold.id for path in FILES for gold in requests_of(path))
    assert [name for name, count in uses.items() if count > 1] == []


def test_nothing_of_the_frozen_test_set_stands_in_the_corpus() -> None:
    def plain(text: str) -> str:
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())

    frozen = {plain(gold.text) for gold in requests_of(DATA / "plans-test.jsonl")}
    corpus = [gold for path in CORPUS.glob("*.jsonl") for gold in requests_of(path)]
    assert len(corpus) > 2500
    assert [gold.id for gold in corpus if plain(gold.text) in frozen] == []


def test_the_frozen_test_set_is_whole() -> None:
    golds = requests_of(DATA / "plans-test.jsonl")
    assert [gold.id for gold in golds] == [f"test-{number:04}" for number in range(1, 111)]


def test_a_forward_dependency_is_no_problem() -> None:
    assert list(problems(made([("Add 3 and 4", [1]), ("write the sum", [])]))) == []


BROKEN: list[tuple[Tasks, str]] = [
    ([("add 3 and 4", [])], "does not stand in the text"),
    ([("Add 3 and 4 ", [])], "does not stand in the text"),
    ([("Add 3", [1])], "does not exist"),
    ([("Add 3", [-1])], "does not exist"),
    ([("Add 3", []), ("write", [0, 0])], "twice"),
    ([("Add 3", [0])], "circle"),
    ([("Add 3", [1]), ("write", [0])], "circle"),
]


@pytest.mark.parametrize(("tasks", "words"), BROKEN)
def test_a_gold_plan_that_cannot_be_true_is_told(tasks: Tasks, words: str) -> None:
    assert any(words in problem for problem in problems(made(tasks)))
