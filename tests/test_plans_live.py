"""A plan in its user's hands, with real processes: shown, edited, carried out, and remembered."""

from __future__ import annotations

import json
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from websockets.sync.client import connect

from live import LiveMesh

pytestmark = pytest.mark.processes

CRIER = '''
from monai_node.agents import Agent

agent = Agent("crier")


@agent.skill(examples=["Translate 'water' into French", "Say 'it' in Italian", "Count its words"])
def cry(text: str) -> str:
    """Repeats what it is told, louder."""
    return text.upper()
'''
REQUEST = "Translate 'quinquereme' into French and count its words"
OTHER = 'Translate "far away" into Italian and count its words.'


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("plans")) as mesh:
        mesh.open_gateway("gateway", "--planner", "rules")
        (mesh.folder / "crier.py").write_text(CRIER)
        mesh.serve("crier", str(mesh.folder / "crier.py")).wait_ready()
        mesh.wait_state("crier", "alive", 5)
        yield mesh


@pytest.fixture
def edited(mesh: LiveMesh) -> Path:
    """The plan of REQUEST in a file, as its user changed it: two tasks that need nothing of each other."""
    view = mesh.cli("plan", REQUEST, "--json").json
    assert view["graph"]["tasks"][1]["depends_on"] == ["t1"]
    view["graph"]["tasks"][1]["depends_on"] = []
    view["shown"] = ["t1", "t2"]
    file = mesh.folder / "plan.json"
    file.write_text(json.dumps(view))
    return file


def recipes(mesh: LiveMesh) -> list[dict[str, Any]]:
    return mesh.cli("recipes", "--json").json["recipes"]


def test_a_plan_is_edited_carried_out_and_used_for_requests_like_it(mesh: LiveMesh, edited: Path) -> None:
    assert recipes(mesh) == []
    asked = mesh.cli("ask", "--plan", str(edited), "--json").json
    assert asked["answer"] == "TRANSLATE 'QUINQUEREME' INTO FRENCH\n\nCOUNT ITS WORDS"
    assert [task["depends_on"] for task in asked["tasks"]] == [[], []]
    assert {part["peer_name"] for part in asked["parts"]} == {"crier"}

    again = mesh.cli("plan", OTHER, "--json").json
    assert again["planner"] == "recipe"
    assert [task["text"] for task in again["graph"]["tasks"]] == [
        'Translate "far away" into Italian',
        "count its words",
    ]
    assert [task["depends_on"] for task in again["graph"]["tasks"]] == [[], []]
    assert again["tasks"][0]["candidates"][0]["skill"] == "crier.cry"
    answer = mesh.cli("ask", OTHER, "--json").json["answer"]
    assert answer == 'TRANSLATE "FAR AWAY" INTO ITALIAN\n\nCOUNT ITS WORDS'

    (kept,) = recipes(mesh)
    assert kept["title"] == "translate ‹quote 1› into ‹name 1› and count its words"
    assert mesh.cli("recipes", "forget", kept["id"]).code == 0
    assert mesh.cli("plan", OTHER, "--json").json["planner"] == "rules"


def test_what_a_recipe_holds_of_its_user_stays_in_its_file(mesh: LiveMesh, edited: Path) -> None:
    view = json.loads(edited.read_text())
    view["graph"]["tasks"][0]["text"] = "Say 'quinquereme' in the French of a sailor"
    edited.write_text(json.dumps(view))
    assert mesh.cli("ask", "--plan", str(edited)).code == 0
    kept = mesh.state_dir / "recipes.json"
    assert "quinquereme" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "quinquereme" in mesh.cli("recipes").stdout
    others = [path for path in mesh.state_dir.rglob("*") if path.is_file() and path != kept]
    assert any(path.name == "node.log" for path in others)
    assert [path.name for path in others if b"quinquereme" in path.read_bytes()] == []
    assert mesh.cli("recipes", "clear").code == 0
    assert "quinquereme" not in kept.read_text()


def test_a_plan_is_shown_as_a_tree(mesh: LiveMesh) -> None:
    lines = mesh.cli("plan", REQUEST).stdout.splitlines()
    assert lines[0] == "t1  Translate 'quinquereme' into French"
    assert lines[1].strip().startswith("→ crier.cry on crier (")
    assert lines[2] == "└─ t2  count its words"
    assert lines[3].strip().startswith("needs t1: ")
    assert lines[-1].startswith("The request was divided into 2 tasks: ")


def test_a_plan_that_cannot_be_run_is_answered_in_one_sentence(mesh: LiveMesh) -> None:
    file = mesh.folder / "wrong.json"
    tasks = [{"id": "a", "text": "x", "depends_on": ["b"]}, {"id": "b", "text": "y", "depends_on": ["a"]}]
    file.write_text(json.dumps({"tasks": tasks}))
    asked = mesh.cli("ask", "--plan", str(file))
    assert (asked.code, asked.sentence) == (1, "the tasks 'a', 'b' wait for each other in a circle")


def test_a_run_says_what_the_schema_says_and_the_same_over_both_ways(mesh: LiveMesh) -> None:
    schema: Any = Draft202012Validator(mesh.get("/v1/events.schema.json").json())
    request = {"graph": {"tasks": [{"id": "t1", "text": "say it"}, {"id": "t2", "text": "say that"}]}}
    answer = mesh.post("/v1/runs", {**request, "stream": True})
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    streamed = [json.loads(line.removeprefix("data: ")) for line in lines]
    told: list[dict[str, Any]] = []
    with connect(mesh.url.replace("http", "ws", 1) + "/v1/ws", proxy=None) as socket:
        socket.send(json.dumps({"type": "run.start", "id": "mine", "request": request}))
        while not told or told[-1]["type"] not in ("answer.completed", "error"):
            told.append(json.loads(socket.recv(timeout=30)))
    for events in (streamed, told):
        for event in events:
            schema.validate(event)
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "answer.completed"
    assert {event["id"] for event in told} == {"mine"}
    assert sorted(event["type"] for event in streamed) == sorted(event["type"] for event in told)
