"""What a gateway learnt is there again after it was killed, with real processes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from live import LiveMesh, wait_until
from monai_node.mesh.state import open_state_dir
from monai_node.mesh.store import Decision, open_store
from monai_node.router.outcome import Outcome

pytestmark = [pytest.mark.processes, pytest.mark.full]

ARITHMETIC = Path(__file__).parent.parent / "agents" / "examples" / "arithmetic.py"
TASK = "What is 12 * 7?"


def chance(mesh: LiveMesh) -> float:
    """How well the only peer does such tasks, as the gateway explains its choice; 0 while there is none."""
    reasons = [
        reason for peer in mesh.get("/v1/route", text=TASK).json()["data"] for reason in peer["reasons"]
    ]
    found = re.search(r"does (\d\.\d\d) of such tasks well", "\n".join(reasons))
    return float(found[1]) if found else 0.0


def remembered(mesh: LiveMesh) -> tuple[list[Outcome], list[Decision]]:
    """From the store of a gateway that was killed."""
    file = open_state_dir(mesh.state_dir).node("gateway").store_file

    async def read() -> tuple[list[Outcome], list[Decision]]:
        async with open_store(file, "") as store:
            return await store.outcomes(), await store.decisions(10)

    return asyncio.run(read())


def test_feedback_outlives_a_gateway_that_is_killed(tmp_path: Path) -> None:
    with LiveMesh(tmp_path) as mesh:
        start = ("gateway", "--planner", "rules", "--embedder", "gguf")
        mesh.open_gateway(*start)
        mesh.serve("sums", str(ARITHMETIC))
        wait_until(lambda: bool(mesh.get("/v1/route", text=TASK).json()["data"]), 30, "nobody does sums")
        answer = mesh.chat(TASK)
        assert answer.json()["choices"][0]["message"]["content"] == "84"
        before = chance(mesh)
        assert mesh.cli("feedback", answer.json()["id"], "down").stdout == "noted for t1\n"
        rated = chance(mesh)
        assert 0 < rated < before

        mesh.nodes["gateway"].kill()
        outcomes, (decision,) = remembered(mesh)
        assert ("feedback", 0.0) in [(outcome.source, outcome.value) for outcome in outcomes]
        run = answer.headers["x-mesh-run"]
        assert (decision.run, decision.task, decision.skill, decision.error) == (run, "t1", "arithmetic", "")

        mesh.open_gateway(*start)
        wait_until(lambda: chance(mesh) > 0, 30, "nobody does sums any more")
        assert abs(chance(mesh) - rated) <= 0.011  # as old as it is by now
        forgotten = mesh.post("/v1/feedback", {"run": run, "rating": "up"})
        assert (forgotten.status_code, forgotten.json()["error"]["code"]) == (404, "run_not_found")
