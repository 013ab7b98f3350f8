"""What a gateway remembers: outcomes and decisions, over restarts and over a kill -9."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_node.mesh import store
from monai_node.mesh.store import Considered, Decision, open_store
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Usage
from monai_node.router.embed import Vector
from monai_node.router.outcome import Ending, Outcome
from monai_node.router.verdict import Verdict

ANNA = PeerId("12D3KooWanna")
CONSIDERED = Considered(
    peer=ANNA, peer_name="anna", skill="chat", model="m", tier=0, terms={"fit": 0.5}, reasons=["1 running"]
)
DECISION = Decision(1000.0, "run-1", "t1", "attempt-1", ANNA, "chat", "m", [CONSIDERED])


def outcome(value: float = 1.0, at: float = 1000.0, vector: Vector | None = None) -> Outcome:
    return Outcome(ANNA, "chat", "sha256:aa", value, "contract", at, vector)


def unit(seed: int) -> Vector:
    vector = np.random.default_rng(seed).normal(size=384)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


async def replayed(path: Path, embedder: str = "e") -> list[Outcome]:
    async with open_store(path, embedder) as opened:
        return await opened.outcomes()


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]


def test_outcomes_are_replayed_in_their_order_with_their_vectors(tmp_path: Path) -> None:
    path, kept = (
        tmp_path / "store.sqlite",
        [outcome(0.25, 1.0, unit(1)), outcome(1.0, 0.5), outcome(0.0, 2.0)],
    )

    async def scenario() -> list[Outcome]:
        async with open_store(path, "e") as opened:
            for each in kept:
                opened.keep_outcome(each)
        return await replayed(path)

    found = asyncio.run(scenario())
    assert found == kept
    first = found[0].vector
    assert first is not None
    assert first.dtype == np.float32
    assert float(first @ first) == pytest.approx(1.0, abs=1e-6)
    assert float(first @ unit(1)) > 0.999999
    assert found[1].vector is None


def test_vectors_of_another_embedder_are_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"

    async def scenario() -> list[Outcome]:
        async with open_store(path, "one") as opened:
            opened.keep_outcome(outcome(vector=unit(1)))
        return await replayed(path, "other")

    (found,) = asyncio.run(scenario())
    assert found == outcome()
    assert found.vector is None


def test_the_oldest_are_forgotten_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "OUTCOMES_MAX", 3)
    monkeypatch.setattr(store, "DECISIONS_MAX", 2)

    async def scenario() -> None:
        async with open_store(tmp_path / "store.sqlite", "e") as opened:
            for number in range(10):
                opened.keep_outcome(outcome(at=number))
                opened.keep_decision(replace(DECISION, run=f"run-{number}"))
            assert [each.at for each in await opened.outcomes()] == [7, 8, 9]
            assert [each.run for each in await opened.decisions(10)] == ["run-9", "run-8"]

    asyncio.run(scenario())


def test_only_the_last_feedback_on_a_task_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path / "store.sqlite", "e") as opened:
            feedback = replace(outcome(), source="feedback")
            for value in (1.0, 0.0, 0.5):
                opened.keep_outcome(replace(feedback, value=value), "run-1", "t1")
                opened.keep_outcome(outcome(value), "run-1", "t1")
            opened.keep_outcome(feedback, "run-1", "t2")
            found = await opened.outcomes()
            assert [each.value for each in found if each.source == "feedback"] == [0.5, 1.0]
            assert len(found) == 5

    asyncio.run(scenario())


def test_what_this_version_cannot_learn_from_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"

    async def scenario() -> list[Outcome]:
        async with open_store(path, "e") as opened:
            for number in range(5):
                opened.keep_outcome(outcome(at=number, vector=unit(number)))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE outcomes SET source = 'dream' WHERE at = 0")
            connection.execute("UPDATE outcomes SET value = 9e999 WHERE at = 1")
            connection.execute("UPDATE outcomes SET vector = x'00' WHERE at = 2")
            connection.execute("UPDATE outcomes SET vector = zeroblob(768) WHERE at = 3")
        return await replayed(path)

    found = asyncio.run(scenario())
    assert [(each.at, each.vector is None) for each in found] == [(2, True), (3, True), (4, False)]


def test_a_decision_is_kept_before_and_after_its_end(tmp_path: Path) -> None:
    ending = Ending(
        0.0,
        "contract",
        1.5,
        1,
        code="contract_broken",
        verdict=Verdict("failed", "no number"),
        usage=Usage(prompt_tokens=7, completion_tokens=2**80),
    )
    second = replace(DECISION, attempt="attempt-2", at=1001.0)

    async def scenario() -> None:
        async with open_store(tmp_path / "store.sqlite", "e") as opened:
            opened.keep_decision(DECISION)
            assert await opened.decision("run-1", "t1") == [DECISION]
            opened.keep_ending("run-1", "t1", "attempt-1", ending)
            opened.keep_decision(second)
            first, *rest = await opened.decision("run-1", "t1")
            assert rest == [second]
            assert (first.verdict, first.error, first.seconds) == ("failed", "contract_broken", 1.5)
            assert (first.prompt_tokens, first.completion_tokens) == (7, 2**63 - 1)
            assert await opened.decisions(1) == [second]
            assert await opened.decision("run-1", "t2") == []

    asyncio.run(scenario())


# Tells after each flush how many outcomes are on disk.
WRITER = """
import asyncio, sys
from pathlib import Path
from monai_node.mesh.store import open_store
from monai_node.registry.ids import PeerId
from monai_node.router.outcome import Outcome

async def main() -> None:
    async with open_store(Path(sys.argv[1]), "e") as store:
        count = len(await store.outcomes())
        while True:
            for _ in range(20):
                store.keep_outcome(Outcome(PeerId("p"), "chat", "", 1.0, "contract", float(count)))
                count += 1
            await store.flush()
            print(count, flush=True)

asyncio.run(main())
"""


def test_a_writer_that_is_killed_at_any_moment_loses_nothing_it_reported(tmp_path: Path) -> None:
    path, moments, reported = tmp_path / "store.sqlite", random.Random(5), 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(moments.randrange(1, 40)):
                reported = int(writer.stdout.readline())
            writer.kill()
            left = writer.stdout.read().split()
        if left and left[-1].isdigit():
            reported = int(left[-1])
        assert integrity(path) == "ok"
        found = [int(each.at) for each in asyncio.run(replayed(path))]
        assert found == list(range(found[0], found[0] + len(found)))
        assert found[-1] >= reported - 1
        assert len(found) == min(found[-1] + 1, store.OUTCOMES_MAX)
