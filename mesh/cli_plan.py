"""Plans at the command line: shown as a tree, read back from a file, and those that were accepted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from monai_node.mesh.cli_text import one_line, shortened, who
from monai_node.registry.errors import SetupError

# A request body: the plan travels in one.
_PLAN_BYTES_MAX = 8 << 20
# What `plan --json` writes (mesh.gateway.plan_view); the first three are sent back.
PLAN_KEYS = ("graph", "shown", "text", "object", "planner", "reason", "why", "is_passthrough", "tasks")
_TEXT_CHARS_SHOWN = 100


# --- plan ---------------------------------------------------------------------------------------------
def plan_lines(view: dict[str, Any]) -> Iterator[str]:
    """A plan as `POST /v1/plan` gave it: each task below the last one that it needs."""
    tasks: list[dict[str, Any]] = view["tasks"]
    below: dict[str | None, list[dict[str, Any]]] = {}
    for task in tasks:
        needed = [other["id"] for other in tasks if other["id"] in task["depends_on"]]
        below.setdefault(needed[-1] if needed else None, []).append(task)
    shown = [(task, 0) for task in below.get(None, [])]
    while shown:
        task, depth = shown.pop(0)
        yield from _task_lines(task, depth)
        shown[:0] = [(child, depth + 1) for child in below.pop(task["id"], [])]
    yield one_line(view["why"])


def _task_lines(task: dict[str, Any], depth: int) -> Iterator[str]:
    indent = "   " * depth
    mark = "└─ " if depth else ""
    text = shortened(task["text"], _TEXT_CHARS_SHOWN)
    yield f"{indent[3:]}{mark}{task['id']}  {text}"
    under = f"{indent}    "
    if task.get("each"):
        yield f"{under}once for each item of {one_line(task['each'])}"
    for need in task["needs"]:
        why = f": {one_line(need['why'])}" if need["why"] else ""
        yield f"{under}needs {one_line(need['task'])}{why}"
    for best in task["candidates"][:1]:
        yield f"{under}→ {one_line(best['model'] or best['skill'])} on {who(best)}, {best['score']:.2f}"


# --- ask --plan ----------------------------------------------------------------------------------------
def read_plan(path: Path) -> dict[str, Any]:
    """`graph`, and `shown` and `text` where the file has them; SetupError for what is not a plan. Whether
    the plan can be run, the gateway says."""
    content = _read(path)
    try:
        found: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise SetupError(f"{path} holds no plan; write one with `monai-node plan --json`")
    plan = cast("dict[str, Any]", found)
    if "graph" not in plan and set(plan) == {"tasks"}:
        plan = {"graph": plan}
    for key in plan:
        if key not in PLAN_KEYS:
            raise SetupError(f"{path} has the key {key!r}, which is no part of a plan")
    if "graph" not in plan:
        raise SetupError(f"{path} holds no graph; write a plan with `monai-node plan --json`")
    if not isinstance(plan.get("text", ""), str):
        raise SetupError(f"the text in {path} is no text")
    return {key: plan[key] for key in ("graph", "shown", "text") if plan.get(key) is not None}


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_PLAN_BYTES_MAX + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_PLAN_BYTES_MAX + 1)
    except OSError as error:
        raise SetupError(f"{path} cannot be read ({error.strerror})") from None
    if len(content) > _PLAN_BYTES_MAX:
        raise SetupError(f"{path} is larger than {_PLAN_BYTES_MAX} bytes, and no plan that can be sent")
    return content


# --- recipes ---------------------------------------------------------------------------------------------
def run_recipes(options: argparse.Namespace) -> int:
    """List, forget or clear this user's recipes; no gateway needs to run, and one that does follows."""
    from monai_node.mesh.recipes import RecipeFile
    from monai_node.mesh.state import StateDir, state_path

    file = StateDir(state_path(options.state_dir)).recipes_file
    if not file.exists() and options.action != "forget":
        print(json.dumps({"recipes": []}) if options.json else "no plan was accepted yet")
        return 0
    recipes = RecipeFile(file)
    if options.action == "forget":
        recipes.forget(options.id)
    elif options.action == "clear":
        recipes.clear()
    kept = recipes.recipes()[::-1]
    if options.json:
        listed = [{"id": recipe.id, **recipe.model_dump(mode="json")} for recipe in kept]
        print(json.dumps({"recipes": listed}, ensure_ascii=False))
        return 0
    for recipe in kept:
        what = "requests like" if recipe.runs else "only"
        print(f"{recipe.id}  {what}: {one_line(recipe.title)}")
        for task in recipe.graph.tasks:
            after = f"  (after {', '.join(task.depends_on)})" if task.depends_on else ""
            print(f"          {task.id}  {shortened(task.text, _TEXT_CHARS_SHOWN)}{after}")
    return 0
