"""A gateway's view of one node: who is asked, what is listed, what happens when the embedder fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_node.agents.graph import Task
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.mesh import canaries
from monai_node.mesh.canaries import Canaries
from monai_node.mesh.config import GatewayOptions, NodeConfig
from monai_node.mesh.directory import DirectoryOptions, Pulse, open_directory
from monai_node.mesh.engine.base import Engine
from monai_node.mesh.engine.scripted import ScriptedEngine
from monai_node.mesh.front import Front
from monai_node.mesh.identity import Identity
from monai_node.mesh.ledger import StoredLedger, open_ledger
from monai_node.mesh.node import Node
from monai_node.mesh.provider import Provider
from monai_node.mesh.recipes import RecipeFile
from monai_node.mesh.state import open_state_dir
from monai_node.registry.advert import Advert, Beacon, Signed, Skill, digest_of, seal
from monai_node.registry.errors import NotFound, TaskFailed, Unsupported
from monai_node.registry.events import AnswerCompleted, AnswerDelta, RunFailed
from monai_node.registry.ids import RunId, new_run_id
from monai_node.registry.secret import new_mesh
from monai_node.registry.transport import open_memory_transport
from monai_node.registry.wire import TASK_PROTOCOL, ChatMessage
from monai_node.router.demand import of_label
from monai_node.router.embed import Vectors
from monai_node.router.policy import NO_POLICY, Names, Policy

DICE = Skill(id="dice", name="dice", description="Rolls dice", examples=["Roll 3d6"])


class LetterEmbedder:
    """Counts of letters, as unit vectors: alike texts have alike letters."""

    fingerprint = "letters"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        counts = np.array([[text.lower().count(chr(97 + n)) + 0.01 for n in range(26)] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


class BrokenEmbedder(LetterEmbedder):
    async def embed(self, texts: Sequence[str]) -> Vectors:
        raise TaskFailed("the embedder died")


class StuckEmbedder(LetterEmbedder):
    """Never gets through with texts that speak of anchovies."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if any("anchovies" in text for text in texts):
            await asyncio.Event().wait()
        return await super().embed(texts)


@asynccontextmanager
async def opened_node(folder: Path, engines: Sequence[Engine]) -> AsyncGenerator[Node]:
    identity, mesh, state = Identity.generate(), new_mesh(), open_state_dir(folder)

    def advert() -> Signed:
        envelope = seal(Advert(peer=identity.peer_id), identity.sign)
        return Signed(Advert(peer=identity.peer_id), envelope, digest_of(envelope))

    def beacon() -> bytes:
        record = Beacon(peer=identity.peer_id, seq=1, advert_digest=advert().digest)
        return seal(record, identity.sign)

    options = DirectoryOptions(probe_seconds=0.5, wants_peers=True)
    async with (
        open_memory_transport(identity.peer_id) as transport,
        open_directory(transport, mesh, Pulse(advert, beacon), options, time.monotonic) as directory,
    ):
        provider = Provider(engines, lambda _peer, _label: True, lambda: None)
        transport.handle(TASK_PROTOCOL, provider.serve)
        yield Node(NodeConfig("here", folder), state, identity, mesh, transport, directory, provider)


def with_front(
    folder: Path, embedder: LetterEmbedder, check: Callable[[Front], Coroutine[Any, Any, None]]
) -> None:
    """Run `check` on a gateway whose own node chats and rolls dice."""
    chat, dice = ScriptedEngine("from the model"), ScriptedEngine("4", alias="d", skills=[DICE])

    async def main() -> None:
        async with asyncio.timeout(20), opened_node(folder, [chat, dice]) as node:
            await check(Front(node, embedder))

    asyncio.run(main())


async def answer(front: Front, text: str, **options: Any) -> tuple[str, AnswerCompleted | RunFailed]:
    request = request_of(text, **options)
    shown, last = "", None
    async for event in front.run(request):
        if isinstance(event, AnswerDelta):
            shown += event.text
        last = event
    assert isinstance(last, AnswerCompleted | RunFailed)
    return shown, last


def test_a_task_goes_to_the_skill_that_its_words_are_like(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        shown, last = await answer(front, "Roll 3d6")
        assert shown == "4"
        assert isinstance(last, AnswerCompleted)
        assert [part.skill for part in last.parts] == ["dice"]
        found = await front.route("Roll 3d6", "local")
        assert [(each.skill, each.is_chosen) for each in found.candidates] == [
            ("dice", True),
            ("chat", False),
        ]
        assert found.decision == "route"
        assert found.candidates[0].terms["fit"] > 0

    with_front(tmp_path, LetterEmbedder(), check)


def test_without_the_embedder_a_general_model_answers(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        shown, last = await answer(front, "Roll 3d6")
        assert shown == "from the model"
        assert isinstance(last, AnswerCompleted)
        assert (await front.route("Roll 3d6", None)).none is None

    with_front(tmp_path, BrokenEmbedder(), check)


def test_skills_that_take_long_to_index_hold_no_request_up(tmp_path: Path) -> None:
    chat, dice = ScriptedEngine("from the model"), ScriptedEngine("4", alias="d", skills=[DICE])
    slow = Skill(id="fish", name="fish", description="knows anchovies")

    async def main() -> None:
        async with asyncio.timeout(20), opened_node(tmp_path, [chat, dice]) as node:
            front = Front(node, StuckEmbedder())
            assert (await front.routing.for_text("Roll 3d6", of_label("trusted")))[0].skill == "dice"
            fish = ScriptedEngine("7", alias="f", skills=[slow])
            late = replace(node, provider=Provider([chat, dice, fish], lambda _p, _l: True, lambda: None))
            front._offers._node = late  # pyright: ignore[reportPrivateUsage]  # it announces more now
            started = time.monotonic()
            assert (await front.routing.for_text("Roll 3d6", of_label("trusted")))[0].skill == "dice"
            assert time.monotonic() - started < 5.0

    asyncio.run(main())


# --- plans ------------------------------------------------------------------------------------------
def request_of(text: str, **options: Any) -> RunRequest:
    messages = (ChatMessage(role="user", content=text),)
    return RunRequest(new_run_id(), messages, options=MeshOptions(**options))


def test_what_is_foreseen_is_what_the_ranking_asks_for_and_is_embedded_once(tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(LetterEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            asked.extend(texts)
            return await super().embed(texts)

    async def check(front: Front) -> None:
        text = "  Roll\t3d6, \u200bplease\n"  # as sent, not yet cleaned
        events = [event async for event in front.run(request_of(text))]
        assert events[-1].type == "answer.completed"
        assert [one for one in asked if "please" in one] == ["Roll 3d6, please"]

    with_front(tmp_path, Counting(), check)


def test_a_plan_names_the_best_for_each_task_as_a_run_would_choose_them(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        tasks = [
            Task(id="t1", text="Roll 3d6"),
            Task(id="t2", text="Roll 3d6", skill="chat"),
            Task(id="t3", text="Roll 3d6", skill="juggling"),
        ]
        found = await front.plan(request_of("Roll", plan=tasks))
        skills = {name: [each.skill for each in best] for name, best in found.candidates.items()}
        assert skills["t1"][0] == "dice"
        assert (skills["t2"], skills["t3"]) == (["chat"], [])
        named = replace(request_of("Roll 3d6"), model="scripted")
        assert [each.model for each in (await front.plan(named)).candidates["t1"]] == ["scripted"]
        whole = await front.plan(request_of("Roll 3d6", plan="never"))
        assert [each.skill for each in whole.candidates["t1"]] == ["chat"]

    with_front(tmp_path, LetterEmbedder(), check)


def test_a_plan_needs_no_embedder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = request_of("Name a recipe with anchovies. Then write a poem about it.")

    async def without(front: Front) -> None:
        found = await front.plan(asked)
        assert [[each.skill for each in found.candidates[name]] for name in ("t1", "t2")] == [["chat"]] * 2

    async def too_late(front: Front) -> None:
        found = await front.plan(asked)
        assert len(found.plan.graph.tasks) == 2
        assert found.candidates == {}

    with_front(tmp_path / "broken", BrokenEmbedder(), without)
    monkeypatch.setattr("monai_node.mesh.foresight._SECONDS", 0.05)
    with_front(tmp_path / "stuck", StuckEmbedder(), too_late)
    assert "anchovies" not in caplog.text


def test_an_accepted_plan_is_used_by_the_next_gateway_and_by_none_without_recipes(tmp_path: Path) -> None:
    given = [Task(id="a", text="Roll 3 dice"), Task(id="b", text="draw them")]

    async def main() -> None:
        async with asyncio.timeout(20), opened_node(tmp_path, [ScriptedEngine("x")]) as node:

            def front(has_recipes: bool = True) -> Front:
                recipes = RecipeFile(tmp_path / "recipes.json") if has_recipes else None
                return Front(node, LetterEmbedder(), recipes)

            async def planner_of(front: Front) -> str | None:
                return (await front.plan(request_of("Roll 5 dice and draw them."))).plan.planner

            accepted = request_of("Roll 3 dice and draw them", plan=given)
            await front(has_recipes=False).accept(accepted)
            assert await planner_of(front()) == "rules"
            await front().accept(accepted)
            found = (await front().plan(request_of("Roll 5 dice and draw them"))).plan
            assert (found.planner, [task.id for task in found.graph.tasks]) == ("recipe", ["a", "b"])
            assert found.graph.tasks[0].text == "Roll 5 dice"
            assert await planner_of(front(has_recipes=False)) == "rules"

    asyncio.run(main())


def test_a_plan_that_cannot_be_kept_is_logged_without_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), opened_node(tmp_path, []) as node:
            recipes = RecipeFile(tmp_path / "gone" / "recipes.json")
            tasks = [Task(id="t1", text="Name a tree"), Task(id="t2", text="draw it")]
            await Front(node, LetterEmbedder(), recipes).accept(
                request_of("Name a tree and draw it", plan=tasks)
            )

    asyncio.run(main())
    assert "could not be kept" in caplog.text
    assert "tree" not in caplog.text


def test_a_fixed_skill_is_obeyed_and_an_unknown_one_named(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        candidates = front.routing.for_skill("dice", of_label("trusted"))
        assert [candidate.skill for candidate in candidates] == ["dice"]
        with pytest.raises(NotFound, match=r"no reachable peer offers the skill 'juggling'.*chat, dice"):
            front.routing.for_skill("juggling", of_label("trusted"))

    with_front(tmp_path, LetterEmbedder(), check)


def test_the_node_lists_itself_its_models_and_is_ready(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        assert front.is_ready() == (True, "")
        assert {model.alias for model in front.models()} == {"scripted", "d"}
        (own,) = front.peers()
        assert (own.state, own.name, own.skills) == ("self", "here", ["chat", "dice"])

    with_front(tmp_path, LetterEmbedder(), check)


def with_ledger(
    folder: Path,
    engines: Sequence[Engine],
    check: Callable[[Front, StoredLedger], Coroutine[Any, Any, None]],
    policy: Policy = NO_POLICY,
) -> None:
    """Run `check` on a gateway that remembers what becomes of tasks."""

    async def main() -> None:
        async with (
            asyncio.timeout(20),
            opened_node(folder, engines) as node,
            open_ledger(folder / "store.sqlite", "letters", time.time) as ledger,
        ):
            options = GatewayOptions(policy=policy)
            owned = replace(node, config=replace(node.config, gateway=options))
            await check(Front(owned, LetterEmbedder(), ledger=ledger), ledger)

    asyncio.run(main())


def test_a_run_may_be_rated_and_the_ranking_learns_from_it(tmp_path: Path) -> None:
    async def check(front: Front, ledger: StoredLedger) -> None:
        for _ in range(5):
            _, last = await answer(front, "Roll 3d6")
            assert await front.feedback(RunId(last.run), None, 0.0) == ["t1"]
        assert len(ledger.estimates) >= 5
        with pytest.raises(NotFound):
            await front.feedback(RunId("run-none"), None, 0.0)

    with_ledger(tmp_path, [ScriptedEngine("4", alias="d", skills=[DICE])], check)


def test_no_canary_is_under_way_while_somebody_waits_for_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[str] = []

    @contextmanager
    def pausing(_: Canaries) -> Generator[None]:
        paused.append("begun")
        yield
        paused.append("ended")

    monkeypatch.setattr(Canaries, "paused", pausing)

    async def check(front: Front, _: StoredLedger) -> None:
        await front.plan(request_of("Roll 3d6"))
        await front.route("Roll 3d6", None)
        assert paused == ["begun", "ended"] * 2

    with_ledger(tmp_path, [ScriptedEngine("4", alias="d", skills=[DICE])], check)


@pytest.mark.parametrize("is_denied", [False, True])
def test_canaries_go_to_peers_that_the_owner_lets_have_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_denied: bool
) -> None:
    monkeypatch.setattr(canaries, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(canaries, "IDLE_SECONDS", 0.0)
    chat = ScriptedEngine("no idea")
    talk = Skill(id="talk", name="talk", description="Talks", model="other", is_general=True)
    other = ScriptedEngine("no idea", alias="other", skills=[talk])

    async def check(front: Front, ledger: StoredLedger) -> None:
        asking = asyncio.create_task(front.keep_asking_canaries())
        while len(ledger.estimates) < 1 + (not is_denied):
            await asyncio.sleep(0.01)
        asking.cancel()
        assert bool(chat.requests) != is_denied
        assert other.requests

    denied = Policy("open", denied=(Names(models=frozenset({"scripted"} if is_denied else ())),))
    with_ledger(tmp_path, [chat, other], check, denied)


def test_without_a_model_for_it_nothing_is_embedded(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        assert front.embedding_model() is None
        with pytest.raises(Unsupported):
            await front.embed(["a"])

    with_front(tmp_path, LetterEmbedder(), check)
