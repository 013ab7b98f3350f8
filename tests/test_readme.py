"""What README.md shows is tried: its code runs, its commands and files exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from monai_node.agents import Agent
from monai_node.agents.testing import ask
from monai_node.mesh.cli_parser import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES: list[str] = re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M)


def _run(source: str) -> dict[str, object]:
    module = ModuleType("readme_example")
    exec(compile(source, "README.md", "exec"), module.__dict__)
    return module.__dict__


def test_the_agent_of_the_readme_rolls_dice_and_abstains_from_the_rest() -> None:
    (source,) = [fence for fence in FENCES if "Agent(" in fence]
    agent = cast(Agent, _run(source)["agent"])
    answer = ask(agent, "Roll 3d6")
    rolls, total = answer.split(" = ")
    assert len(rolls.split(" + ")) == 3
    assert sum(map(int, rolls.split(" + "))) == int(total)
    with pytest.raises(Exception, match="no dice"):
        ask(agent, "Write a poem")


@pytest.mark.parametrize("source", FENCES)
def test_every_python_fence_compiles(source: str) -> None:
    compile(source, "README.md", "exec")


def test_every_command_of_the_readme_parses() -> None:
    parser = build_parser()
    shown: set[str] = set(re.findall(r"(?:[$`] +|`)monai-node ([a-z]+)", README))
    listed: set[str] = set(re.findall(r"^\| `monai-node ([a-z]+)", README, re.M))
    help_text = parser.format_help()
    commands: set[str] = set(re.findall(r"^    ([a-z]+)(?: |$)", help_text, re.M))
    assert shown <= commands
    assert {"up", "serve", "gateway", "ask", "plan", "peers", "reset"} <= listed


def test_every_file_named_in_the_readme_exists() -> None:
    named: set[str] = set(re.findall(r"`((?:mesh|agents|router|registry|tests)/[\w/]+(?:\.py|/))`", README))
    assert len(named) >= 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets: set[str] = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README)) <= targets


def test_pinned_versions_are_those_of_the_lock_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower().replace("_", "-")
    wanted = [*project["dependencies"], *project["optional-dependencies"]["gateway"]]
    for requirement in cast(list[str], wanted):
        name = re.split(r"[<>=]", requirement)[0].lower()
        assert re.search(rf"^{re.escape(name)}==", lock, re.M), name
        if "==" in requirement:
            assert requirement.lower() in lock.splitlines(), requirement
