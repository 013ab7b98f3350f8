"""What becomes of attempts: what is learnt of a peer, what is kept, and what a user may still rate."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from monai_node.mesh import ledger
from monai_node.mesh.ledger import StoredLedger, open_ledger
from monai_node.mesh.store import Store, open_store
from monai_node.registry.errors import NotFound
from monai_node.registry.ids import AttemptId, PeerId
from monai_node.router.candidate import Candidate
from monai_node.router.estimate import Estimates
from monai_node.router.outcome import Ending

ANNA, BELA = PeerId("12D3KooWanna"), PeerId("12D3KooWbela")
DONE = Ending(None, None, 1.0, 1, chars=5, digest="sha256:said-afterwards")
PASSED = Ending(1.0, "contract", 1.0, 1, chars=5, digest="sha256:said-afterwards")
BROKEN = Ending(0.0, "contract", 1.0, 1, code="contract_broken", chars=5, digest="sha256:said-afterwards")
LOST = Ending(None, None, 1.0, 1, code="peer_lost", chars=3)
SILENT = Ending(None, None, 1.0, 1, code="peer_unreachable")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def candidate(peer: PeerId = ANNA) -> Candidate:
    return Candidate(peer, "name", "chat", "m", True, 0.5, ("1 running",), digest="sha256:aa")


@asynccontextmanager
async def opened(folder: Path, clock: Clock | None = None) -> AsyncGenerator[tuple[StoredLedger, Store]]:
    async with open_store(folder / "store.sqlite", "e") as store:
        yield StoredLedger(store, Estimates(), clock or Clock()), store


def attempt(to: StoredLedger, run: str, task: str, ending: Ending, peer: PeerId = ANNA) -> None:
    name = AttemptId(f"{run}-{task}-{peer}-{ending.code}")
    to.decided(run, task, name, [candidate(peer), candidate(BELA)])
    to.ended(run, task, name, candidate(peer), ending)


async def feedback(store: Store) -> list[tuple[PeerId, float]]:
    return [(each.peer, each.value) for each in await store.outcomes() if each.source == "feedback"]


def test_what_says_something_of_a_peer_is_learnt_and_kept_and_the_rest_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, store):
            for number, ending in enumerate((PASSED, BROKEN, DONE, LOST, SILENT)):
                attempt(ledger, f"run-{number}", "t1", ending)
            kept = await store.outcomes()
            assert [(each.value, each.source, each.digest) for each in kept] == [
                (1.0, "contract", "sha256:aa"),
                (0.0, "contract", "sha256:aa"),
            ]
            assert len(ledger.estimates) == 2

    asyncio.run(scenario())


def test_what_was_learnt_is_known_again_after_a_start(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "store.sqlite"

    async def scenario() -> None:
        async with open_ledger(path, "e", clock) as before:
            unknown = before.estimates.view(None, clock.now).of(ANNA, "chat", "sha256:aa").chance
            for number in range(10):
                attempt(before, f"run-{number}", "t1", BROKEN)
            bad = before.estimates.view(None, clock.now).of(ANNA, "chat", "sha256:aa").chance
        assert bad < unknown / 2
        async with open_ledger(path, "e", clock) as after:
            again = after.estimates.view(None, clock.now).of(ANNA, "chat", "sha256:aa").chance
            assert abs(again - bad) < 1e-9

    asyncio.run(scenario())


def test_a_decision_is_kept_with_everybody_who_was_considered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, store):
            attempt(ledger, "run-1", "t1", BROKEN)
            attempt(ledger, "run-1", "t1", PASSED, BELA)
            first, second = await store.decision("run-1", "t1")
            assert [each["peer"] for each in first.candidates] == [ANNA, BELA]
            assert first.candidates[0]["reasons"] == ["1 running"]
            assert [(each.peer, each.error) for each in (first, second)] == [
                (ANNA, "contract_broken"),
                (BELA, ""),
            ]

    asyncio.run(scenario())


def test_feedback_goes_to_whoever_did_the_task(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, store):
            attempt(ledger, "run-1", "t1", BROKEN)
            attempt(ledger, "run-1", "t1", DONE, BELA)
            attempt(ledger, "run-1", "t1", SILENT)  # asked last, and gave nothing
            assert ledger.rate("run-1", None, 0.0) == ["t1"]
            assert await feedback(store) == [(BELA, 0.0)]

    asyncio.run(scenario())


def test_a_whole_result_is_what_a_user_saw_rather_than_a_later_beginning(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, store):
            attempt(ledger, "run-1", "t1", BROKEN)
            attempt(ledger, "run-1", "t1", LOST, BELA)
            ledger.rate("run-1", "t1", 1.0)
            assert await feedback(store) == [(ANNA, 1.0)]

    asyncio.run(scenario())


def test_the_last_rating_of_a_task_is_the_one_that_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, store):
            attempt(ledger, "run-1", "t1", DONE)
            for rating in (0.0, 0.0, 1.0, 1.0):
                assert ledger.rate("run-1", None, rating) == ["t1"]
            assert await feedback(store) == [(ANNA, 1.0)]
            assert len(ledger.estimates) == 2, "saying the same again says nothing"
            only_good = Estimates()
            for known in await store.outcomes():
                only_good.learn(known)
            now, asked = 1_000_000.0, (ANNA, "chat", "sha256:aa")
            assert ledger.estimates.view(None, now).of(*asked) == only_good.view(None, now).of(*asked)

    asyncio.run(scenario())


def test_the_tasks_of_a_run_share_the_blame(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, store):
            for task in ("t1", "t2", "t3", "t4"):
                attempt(ledger, "run-1", task, DONE)
                attempt(ledger, "run-2", task, DONE)
            assert ledger.rate("run-1", None, 0.0) == ["t1", "t2", "t3", "t4"]
            assert await feedback(store) == [(ANNA, 0.75)] * 4
            assert ledger.rate("run-2", "t3", 0.0) == ["t3"]
            assert (await feedback(store))[4:] == [(ANNA, 0.0)]

    asyncio.run(scenario())


def test_a_script_cannot_drown_a_peer_in_ratings(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with opened(tmp_path, clock) as (ledger, store):
            for number in range(100):
                attempt(ledger, f"run-{number}", "t1", DONE)
            attempt(ledger, "run-other", "t1", DONE, BELA)
            counted = [bool(ledger.rate(f"run-{number}", None, 0.0)) for number in range(100)]
            assert counted == [True] * 20 + [False] * 80
            assert len(await feedback(store)) == 20
            assert ledger.rate("run-other", None, 0.0) == ["t1"], "others are rated all the same"
            clock.now += 3600.0
            assert ledger.rate("run-99", None, 0.0) == ["t1"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("run", "task", "code"),
    [
        ("run-2", None, "run_not_found"),
        ("run-silent", None, "run_not_found"),
        ("run-1", "t2", "task_not_found"),
    ],
)
def test_what_nobody_did_cannot_be_rated(tmp_path: Path, run: str, task: str | None, code: str) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, _):
            attempt(ledger, "run-1", "t1", DONE)
            attempt(ledger, "run-silent", "t1", SILENT)
            with pytest.raises(NotFound) as raised:
                ledger.rate(run, task, 1.0)
            assert raised.value.code == code

    asyncio.run(scenario())


def test_old_runs_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RUNS_MAX", 3)
    monkeypatch.setattr(ledger, "TASKS_MAX", 4)

    async def scenario() -> None:
        async with opened(tmp_path) as (ledger, _):
            for number in range(4):
                attempt(ledger, f"run-{number}", "t1", DONE)
            with pytest.raises(NotFound, match="too long ago"):
                ledger.rate("run-0", None, 1.0)
            assert ledger.rate("run-1", None, 1.0)
            for task in ("t2", "t3"):
                attempt(ledger, "run-3", task, DONE)
            with pytest.raises(NotFound):
                ledger.rate("run-1", None, 1.0)
            assert ledger.rate("run-2", None, 1.0)

    asyncio.run(scenario())
