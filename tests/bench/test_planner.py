"""The scoring of the planner's benchmark, on plans small enough to count by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from planner_arms import Arm, Files, Unavailable, open_arm
from planner_figures import f1, spread, summary
from planner_handmade import figures, not_planned
from planner_typed import Answer, measure, prediction, read_tools, score

from monai_node.agents.typed_steps import TypedStep

TOOLS = read_tools(
    {
        "nodes": [
            {"id": "Export Table", "desc": "Exports a table.", "input-type": ["pdf"], "output-type": ["csv"]},
            {"id": "Plot", "desc": "Draws a chart.", "input-type": ["csv"], "output-type": ["image"]},
            {"id": "Annotate", "desc": "Labels.", "input-type": ["Image", "text"], "output-type": ["image"]},
        ]
    }
)


def plan(name: str, *nodes: tuple[str, list[str]], links: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "id": name,
        "user_request": f"{name}: report.pdf",
        "task_nodes": [{"task": task, "arguments": arguments} for task, arguments in nodes],
        "task_links": [{"source": source, "target": target} for source, target in links],
    }


GOLD = [
    plan(
        "all-right",
        ("Export Table", ["report.pdf"]),
        ("Plot", ["<node-0>"]),
        links=[("Export Table", "Plot")],
    ),
    plan(
        "golds-differ",
        ("Plot", ["a.csv"]),
        ("Annotate", ["<node-0>", "loud"]),
        links=[("Annotate", "Plot")],
    ),
    plan("no-plan", ("Plot", ["a.csv"]), links=[]),
]
STEPS = {
    "all-right": [
        TypedStep("Export Table", (0, 21), (), is_said=True, why=""),
        TypedStep("Plot", (0, 0), (0,), is_said=True, why=""),
    ],
    "golds-differ": [
        TypedStep("Plot", (0, 0), (), is_said=True, why=""),
        TypedStep("Annotate", (0, 0), (0,), is_said=True, why=""),
        TypedStep("Invented", (0, 0), (), is_said=True, why=""),
    ],
}


async def planned(text: str) -> Answer:
    steps = STEPS.get(text.split(":")[0])
    return Answer(steps or (), is_fallback=steps is None)


def test_figures_are_those_counted_by_hand() -> None:
    found, predictions = asyncio.run(measure(GOLD, TOOLS, planned))
    # Nodes: 4 right of 5 predicted and 5 due. Arguments: 2 of 2 and 2. Listed links: 1 of 2 and 2.
    assert found["node_f1"] == 80.0
    assert found["edge_f1"] == 100.0
    assert found["edge_f1_links"] == 50.0
    assert found["exact"] == found["fallback"] == found["valid"] == 33.3
    assert [len(row["task_nodes"]) for row in predictions] == [2, 3, 0]


def test_predictions_have_the_schema_of_the_gold() -> None:
    found = prediction(GOLD[0], STEPS["all-right"], TOOLS)
    assert found == {key: GOLD[0][key] for key in ("id", "task_nodes", "task_links")}


def test_a_gold_plan_scored_against_itself_is_right_and_valid() -> None:
    row = score(GOLD[0], GOLD[0], TOOLS.names)
    assert (row.nodes, row.edges, row.links) == ((2, 2, 2), (1, 1, 1), (1, 1, 1))
    assert row.is_exact
    assert row.is_valid


def test_a_circle_or_an_invented_tool_is_no_valid_plan() -> None:
    circle = plan("circle", ("Plot", ["<node-1>"]), ("Annotate", ["<node-0>"]), links=[])
    invented = plan("invented", ("Paint", []), links=[])
    assert not score(GOLD[0], circle, TOOLS.names).is_valid
    assert not score(GOLD[0], invented, TOOLS.names).is_valid
    assert score(GOLD[0], invented, TOOLS.names).nodes == (0, 1, 2)


def test_types_of_tools_become_media_types() -> None:
    annotate = TOOLS.typed[2]
    assert (annotate.takes, annotate.makes) == (("image/*", "text/plain"), ("image/*",))
    assert TOOLS.typed[0].takes == ("application/pdf",)


def test_intervals_hold_the_figure_and_are_the_same_every_time() -> None:
    rows = [(2, 3, 3), (0, 1, 2), (4, 4, 4), (1, 3, 2)]
    low, high = spread(rows, f1)
    assert low < f1(rows) < high
    assert spread(rows, f1) == [low, high]
    assert summary([])["requests"] == 0


def test_a_planner_that_is_not_here_says_what_it_needs() -> None:
    async def opened(name: str) -> str:
        async with open_arm(name, Files(), None) as arm:
            return arm.name

    for name in ("small", "lora", "model"):
        with pytest.raises(Unavailable, match="not available: "):
            asyncio.run(opened(name))
    assert asyncio.run(opened("auto")) == asyncio.run(opened("rules")) == "rules"


def test_hand_made_plans_are_scored_with_and_without_close_calls(tmp_path: Path) -> None:
    poem, translation = "Write a poem about rain", "Translate 'good morning' into French"
    rows: list[dict[str, Any]] = [
        {
            "id": "a-0001",
            "text": f"{poem}. {translation}.",
            "tags": [],
            "tasks": [{"spans": [poem], "depends_on": []}, {"spans": [translation], "depends_on": []}],
        },
        {
            "id": "a-0002",
            "text": "What is rain?",
            "tags": ["close-call"],
            "tasks": [{"spans": ["What is rain?"], "depends_on": []}],
        },
    ]
    path = tmp_path / "plans.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    async def by_rules() -> dict[str, Any]:
        async with open_arm("rules", Files(), None) as arm:
            return await figures(path, arm)

    found = asyncio.run(by_rules())
    assert found["all"]["requests"] == 2
    assert found["all"]["node_f1"] == found["all"]["exact"] == 100.0
    assert found["without_close_calls"]["requests"] == 1

    whole = asyncio.run(figures(path, Arm("rules", not_planned)))
    assert whole["all"]["one_kept_whole"] == 100.0
    assert whole["all"]["exact"] == 50.0
    assert whole["fallback"] > 0
