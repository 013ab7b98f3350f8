"""Who is there and who is not, seen by a running gateway while providers die, freeze and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from faults.processes import NodeProcess
from live import LiveMesh

pytestmark = pytest.mark.processes

# A gateway gives a silent peer no new task after two missed periods of one second, and asks every 0.5 s.
SUSPECT_SECONDS = 2.5
BACK_SECONDS = 2.0
LIVENESS_SECONDS = float(os.environ.get("MONAI_LIVENESS_SECONDS", "300"))
OTHER_SECRET = "aaaaaaaaaaaaaaaaaaaaaaaaaa"

ECHO = '''
from monai_node.agents import Agent

agent = Agent("echo")


@agent.skill(examples=["Repeat after me", "Say it again"])
def echo(text: str) -> str:
    """Repeats what it is told."""
    return text
'''
PLAN = {"plan": [{"id": "t1", "text": "again", "skill": "echo"}], "deadline_seconds": 20}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("membership")) as mesh:
        mesh.open_gateway()
        (mesh.folder / "echo.py").write_text(ECHO)
        for name in ("ada", "bob"):
            mesh.serve(name, str(mesh.folder / "echo.py"))
        for name in ("ada", "bob"):
            mesh.nodes[name].wait_ready()
            mesh.wait_state(name, "alive", BACK_SECONDS)
        yield mesh


def asked_peer(mesh: LiveMesh) -> str:
    """Send one task; the name of the peer that did it, without a second attempt."""
    answered = mesh.chat("again", mesh=PLAN)
    assert answered.status_code == 200, answered.text
    (part,) = answered.json()["mesh"]["parts"]
    assert part["attempts"] == 1
    return part["peer_name"]


def report(what: str, figure: object) -> None:
    """A measured figure, which `pytest -rP` shows."""
    print(f"{what}: {figure:.2f}" if isinstance(figure, float) else f"{what}: {figure}")


def wait_back(mesh: LiveMesh, node: NodeProcess) -> float:
    """Start a node again; the seconds from its own ready line until it is given work."""
    node.start().wait_ready()
    return mesh.wait_state(node.name, "alive", BACK_SECONDS)


# --- one of two is lost ---------------------------------------------------------------------------
def test_a_killed_provider_gets_no_new_task_and_is_back_when_it_is_started_again(mesh: LiveMesh) -> None:
    ada = mesh.nodes["ada"]
    ada.kill()
    report("seconds until gone", mesh.wait_state("ada", "gone", SUSPECT_SECONDS))
    assert [asked_peer(mesh) for _ in range(5)] == ["bob"] * 5
    report("seconds from ready to alive", wait_back(mesh, ada))
    mesh.nodes["bob"].kill()
    mesh.wait_state("bob", "gone", SUSPECT_SECONDS)
    assert asked_peer(mesh) == "ada"
    wait_back(mesh, mesh.nodes["bob"])


def test_a_frozen_provider_gets_no_new_task_and_is_back_as_soon_as_it_thaws(mesh: LiveMesh) -> None:
    bob = mesh.nodes["bob"]
    bob.freeze()
    report("seconds until suspect", mesh.wait_state("bob", "suspect", SUSPECT_SECONDS))
    assert [asked_peer(mesh) for _ in range(5)] == ["ada"] * 5
    bob.thaw()
    report("seconds from thaw to alive", mesh.wait_state("bob", "alive", BACK_SECONDS))


def test_a_provider_frozen_for_long_is_gone_and_still_comes_back(mesh: LiveMesh) -> None:
    bob = mesh.nodes["bob"]
    bob.freeze()
    mesh.wait_state("bob", "gone", 12)
    bob.thaw()
    mesh.wait_state("bob", "alive", 10)


def test_a_new_task_is_answered_at_once_while_a_peer_dies_unnoticed(mesh: LiveMesh) -> None:
    """Requests that go on while a provider freezes: each is answered, whoever it was sent to."""
    bob = mesh.nodes["bob"]
    bob.freeze()
    frozen = time.monotonic()
    while time.monotonic() - frozen < SUSPECT_SECONDS:
        answered = mesh.chat("again", mesh=PLAN)
        assert answered.status_code == 200, answered.text
    assert asked_peer(mesh) == "ada"
    bob.thaw()
    mesh.wait_state("bob", "alive", BACK_SECONDS)


# --- who may come in ------------------------------------------------------------------------------
def test_the_wrong_secret_is_refused_in_one_sentence(mesh: LiveMesh) -> None:
    line = f"{mesh.ready.join.partition('#')[0]}#{OTHER_SECRET}"
    refused = mesh.cli("serve", str(mesh.folder / "echo.py"), "--node-name", "stranger", "--join", line)
    assert refused.code == 1
    assert "wrong mesh secret" in refused.sentence
    assert refused.seconds < 10
    assert "stranger" not in mesh.peers()


def test_a_node_with_the_join_line_alone_is_a_member(mesh: LiveMesh) -> None:
    """Another user: another state directory, and nothing but the line that the gateway printed."""
    own_state = str(mesh.folder / "guest-state")
    node = mesh.serve(
        "guest", str(mesh.folder / "echo.py"), "--state-dir", own_state, "--join", mesh.ready.join
    )
    node.wait_ready()
    mesh.wait_state("guest", "alive", BACK_SECONDS)
    node.kill()
    mesh.wait_state("guest", "gone", SUSPECT_SECONDS)


# --- the gateway itself ---------------------------------------------------------------------------
def test_a_restarted_gateway_has_its_providers_back_without_anybody_doing_anything(mesh: LiveMesh) -> None:
    gateway, before = mesh.nodes["gateway"], mesh.ready
    gateway.kill()
    mesh.ready = gateway.start().wait_ready()
    assert mesh.ready.join == before.join
    for name in ("ada", "bob"):
        report(f"seconds until {name} is back", mesh.wait_state(name, "alive", 10))
    assert asked_peer(mesh) in ("ada", "bob")


# --- a busy machine -------------------------------------------------------------------------------
@pytest.mark.full
@pytest.mark.timeout(LIVENESS_SECONDS + 120)
def test_a_busy_machine_loses_no_living_peer(mesh: LiveMesh) -> None:
    """Twice as many spinning processes as cores, requests going on: nobody is ever gone."""
    seen: Counter[str] = Counter()
    with all_cores_busy():
        until = time.monotonic() + LIVENESS_SECONDS
        while time.monotonic() < until:
            seen.update(mesh.state_of(name) for name in ("ada", "bob"))
            assert mesh.chat("again", mesh=PLAN).status_code == 200
            time.sleep(0.1)
    report("states seen", dict(seen))
    assert seen["gone"] == seen["unknown"] == 0
    assert seen["suspect"] <= 0.02 * seen["alive"]


@contextmanager
def all_cores_busy() -> Generator[None]:
    spin = [sys.executable, "-S", "-c", "while True: pass"]
    spinning = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
        for process in spinning:
            process.wait()
