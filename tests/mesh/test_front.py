"""A gateway's view of one node: who is asked, what is listed, what happens when the embedder fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.mesh.config import NodeConfig
from monai_node.mesh.directory import DirectoryOptions, Pulse, open_directory
from monai_node.mesh.engine.base import Engine
from monai_node.mesh.engine.scripted import ScriptedEngine
from monai_node.mesh.front import Front
from monai_node.mesh.identity import Identity
from monai_node.mesh.node import Node
from monai_node.mesh.provider import Provider
from monai_node.mesh.state import open_state_dir
from monai_node.registry.advert import Advert, Beacon, Signed, Skill, digest_of, seal
from monai_node.registry.errors import NotFound, TaskFailed
from monai_node.registry.events import AnswerCompleted, AnswerDelta, RunFailed
from monai_node.registry.ids import new_run_id
from monai_node.registry.secret import new_mesh
from monai_node.registry.transport import open_memory_transport
from monai_node.registry.wire import TASK_PROTOCOL, ChatMessage
from monai_node.router.embed import Vectors

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
    request = RunRequest(
        new_run_id(), (ChatMessage(role="user", content=text),), options=MeshOptions(**options)
    )
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
        (first, *_) = await front.route("Roll 3d6", "local")
        assert (first.skill, first.is_chosen) == ("dice", True)

    with_front(tmp_path, LetterEmbedder(), check)


def test_without_the_embedder_a_general_model_answers(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        shown, last = await answer(front, "Roll 3d6")
        assert shown == "from the model"
        assert isinstance(last, AnswerCompleted)

    with_front(tmp_path, BrokenEmbedder(), check)


def test_skills_that_take_long_to_index_hold_no_request_up(tmp_path: Path) -> None:
    chat, dice = ScriptedEngine("from the model"), ScriptedEngine("4", alias="d", skills=[DICE])
    slow = Skill(id="fish", name="fish", description="knows anchovies")

    async def main() -> None:
        async with asyncio.timeout(20), opened_node(tmp_path, [chat, dice]) as node:
            front = Front(node, StuckEmbedder())
            assert (await front.for_text("Roll 3d6", "trusted"))[0].skill == "dice"
            fish = ScriptedEngine("7", alias="f", skills=[slow])
            late = replace(node, provider=Provider([chat, dice, fish], lambda _p, _l: True, lambda: None))
            front._node = late  # pyright: ignore[reportPrivateUsage]  # it announces more from here on
            started = time.monotonic()
            assert (await front.for_text("Roll 3d6", "trusted"))[0].skill == "dice"
            assert time.monotonic() - started < 5.0

    asyncio.run(main())


def test_a_fixed_skill_is_obeyed_and_an_unknown_one_named(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        candidates = front.for_skill("dice", "trusted")
        assert [candidate.skill for candidate in candidates] == ["dice"]
        with pytest.raises(NotFound, match=r"no reachable peer offers the skill 'juggling'.*chat, dice"):
            front.for_skill("juggling", "trusted")

    with_front(tmp_path, LetterEmbedder(), check)


def test_the_node_lists_itself_its_models_and_is_ready(tmp_path: Path) -> None:
    async def check(front: Front) -> None:
        assert front.is_ready() == (True, "")
        assert {model.alias for model in front.models()} == {"scripted", "d"}
        (own,) = front.peers()
        assert (own.state, own.name, own.skills) == ("self", "here", ["chat", "dice"])

    with_front(tmp_path, LetterEmbedder(), check)
