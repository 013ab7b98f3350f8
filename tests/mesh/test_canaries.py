"""Canaries in the background: who is asked, what is learnt, and that nobody waits because of them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_node.agents.examples.arithmetic import arithmetic
from monai_node.agents.testing import context
from monai_node.mesh import canaries
from monai_node.mesh.canaries import Canaries
from monai_node.mesh.engine.scripted import Breaks, ScriptedEngine
from monai_node.mesh.ledger import StoredLedger
from monai_node.mesh.provider import Provider
from monai_node.mesh.store import Store, open_store
from monai_node.registry.advert import Skill
from monai_node.registry.errors import NotFound, TaskFailed
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import open_memory_transport
from monai_node.registry.wire import TASK_PROTOCOL, TaskRequest
from monai_node.router.canary import FIRST_COUNT
from monai_node.router.dispatch import Dispatcher
from monai_node.router.embed import Vectors
from monai_node.router.estimate import Estimates
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.outcome import Outcome

PEER = PeerId("12D3KooWpeer")
SUMS = Skill(id="sums", name="sums", description="Calculates", examples=["What is 12 * 7?"])
DICE = Skill(id="dice", name="dice", description="Rolls dice", examples=["Roll 3d6"])
BANK = SUMS.model_copy(update={"is_idempotent": False})


class Embedder:
    fingerprint = "e"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return np.tile(np.array([0.6, 0.8], np.float32), (len(texts), 1))


@asynccontextmanager
async def opened(
    folder: Path, engine: ScriptedEngine, skill: Skill = SUMS, earlier: Sequence[Outcome] = ()
) -> AsyncGenerator[tuple[Canaries, StoredLedger, Store]]:
    """Canaries of a gateway that knows one peer, with one skill of `engine`."""
    async with (
        open_memory_transport(PEER) as transport,
        open_store(folder / "store.sqlite", "e") as store,
    ):
        provider = Provider([engine], lambda _peer, _label: True, lambda: None)
        transport.handle(TASK_PROTOCOL, provider.serve)
        ledger = StoredLedger(store, Estimates(), time.time, earlier)
        dispatcher = Dispatcher(transport, time.monotonic, Health(), ledger=ledger)
        offers = [Offer(PEER, "anna", "trusted", skill)]
        yield (
            Canaries(dispatcher, Embedder(), lambda: offers, ledger, "trusted", time.monotonic),
            ledger,
            store,
        )


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(limited())


def right(request: TaskRequest) -> str:
    return arithmetic(request.input.text, context())


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(("script", "value"), [(right, 1.0), ("about forty-two, I think", 0.0)])
def test_what_a_peer_makes_of_a_canary_is_learnt_and_kept(
    tmp_path: Path, script: str | Callable[[TaskRequest], str], value: float
) -> None:
    async def main() -> None:
        engine = ScriptedEngine(script, skills=[SUMS])
        async with opened(tmp_path, engine) as (canaries, ledger, store):
            outcome = await canaries.ask_next()
            assert outcome is not None
            assert (outcome.peer, outcome.skill, outcome.value, outcome.source) == (
                PEER,
                "sums",
                value,
                "canary",
            )
            (kept,) = await store.outcomes()
            assert kept == outcome
            assert kept.vector is not None
            assert len(ledger.estimates) == 1
            assert await ledger.decisions(9) == [], "nobody decided on it"
            with pytest.raises(NotFound):
                ledger.rate(engine.requests[0].run, None, 1.0)
            assert await canaries.ask_next() is None, "the next one has to wait"

    run(main)


def test_a_canary_looks_like_the_task_of_a_user(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ScriptedEngine(right, skills=[SUMS])
        async with opened(tmp_path, engine) as (canaries, _, _):
            await canaries.ask_next()
        (request,) = engine.requests
        assert (request.task, request.skill, request.label) == ("t1", "sums", "trusted")
        assert request.run.startswith("run-")
        assert request.remaining_ms > 100_000
        assert "canary" not in request.model_dump_json()

    run(main)


@pytest.mark.parametrize("skill", [DICE, BANK], ids=["nothing to check", "not to be done twice"])
def test_skills_that_cannot_be_tried_out_are_not(tmp_path: Path, skill: Skill) -> None:
    async def main() -> None:
        engine = ScriptedEngine("4", skills=[skill])
        async with opened(tmp_path, engine, skill) as (canaries, _, _):
            assert await canaries.ask_next() is None
        assert engine.requests == []

    run(main)


def test_canaries_of_earlier_starts_are_remembered(tmp_path: Path) -> None:
    earlier = [Outcome(PEER, "sums", "", 1.0, "canary", time.time()) for _ in range(FIRST_COUNT)]

    async def main() -> None:
        engine = ScriptedEngine(right, skills=[SUMS])
        async with opened(tmp_path, engine, earlier=earlier) as (canaries, _, _):
            assert await canaries.ask_next() is None
        assert engine.requests == []

    run(main)


def test_a_peer_that_did_well_and_then_failed_is_asked_before_its_turn(tmp_path: Path) -> None:
    earlier = [Outcome(PEER, "sums", "", 1.0, "canary", time.time()) for _ in range(FIRST_COUNT)]

    async def main() -> None:
        engine = ScriptedEngine(right, skills=[SUMS])
        async with opened(tmp_path, engine, earlier=earlier) as (canaries, ledger, _):
            for _ in range(20):
                ledger.keep(Outcome(PEER, "sums", "", 1.0, "contract", time.time()))
            assert await canaries.ask_next() is None
            ledger.keep(Outcome(PEER, "sums", "", 0.0, "contract", time.time()))
            assert await canaries.ask_next() is not None

    run(main)


def test_a_run_that_begins_takes_the_place_of_a_canary(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ScriptedEngine(right, skills=[SUMS], pause=asyncio.Event().wait)
        async with opened(tmp_path, engine) as (canaries, _, store):
            asking = asyncio.create_task(canaries.ask_next())
            await until(lambda: bool(engine.requests))
            with canaries.paused():
                assert await asking is None
                await until(lambda: bool(engine.cancelled))
                assert await canaries.ask_next() is None
            assert await store.outcomes() == []

    run(main)


def test_a_peer_that_is_slow_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "CANARY_SECONDS_MAX", 0.1)

    async def main() -> None:
        engine = ScriptedEngine(right, skills=[SUMS], pause=asyncio.Event().wait)
        async with opened(tmp_path, engine) as (canaries, _, store):
            assert await canaries.ask_next() is None
            await until(lambda: bool(engine.cancelled))
            assert await store.outcomes() == []

    run(main)


def test_a_peer_that_fails_at_a_canary_is_learnt_as_failing(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ScriptedEngine(Breaks(TaskFailed("it broke")), skills=[SUMS])
        async with opened(tmp_path, engine) as (canaries, _, store):
            assert await canaries.ask_next() is None
            assert {(each.value, each.source) for each in await store.outcomes()} == {(0.0, "error")}

    run(main)


def test_canaries_are_sent_while_nobody_runs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canaries, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(canaries, "IDLE_SECONDS", 0.0)

    async def main() -> None:
        engine = ScriptedEngine(right, skills=[SUMS])
        async with opened(tmp_path, engine) as (canaries, ledger, _):
            asking = asyncio.create_task(canaries.keep_asking())
            try:
                with canaries.paused():
                    await asyncio.sleep(0.1)
                    assert engine.requests == []
                await until(lambda: len(ledger.estimates) == 1)
            finally:
                asking.cancel()

    run(main)
