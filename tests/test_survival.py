"""Providers are killed and frozen in the middle of an answer: it is continued, or its end is an error. And
one lies: another's answer is shown.

Every answer is judged twice: by what its test expects of the text, and by the checker of the fault kit
at the end of the test (fixture `history`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping
from random import Random

import pytest

from faults.client import ChunkHook, StreamClient, StreamResult
from faults.history import Ended, History, MeshEvent
from faults.processes import NodeProcess
from live import LiveMesh, wait_until
from monai_node.mesh.node import bundled_sources

pytestmark = pytest.mark.processes

SEED = 20260504
KILLS = int(os.environ.get("MONAI_KILLS", "20"))
WORDS = 40
TALE_TEXT = " ".join(f"w{n}" for n in range(WORDS))
# Forty words in 0.6 s; a node sends what came within 40 ms as one frame, so in about 14 pieces.
TALE = f"""
import asyncio
from collections.abc import AsyncIterator
from monai_node.agents import Agent

agent = Agent("tale")


@agent.skill(examples=["Tell me the long tale", "Count from w0 on"])
async def tale(text: str) -> AsyncIterator[str]:
    '''Tells a long tale, word by word.'''
    for word in {TALE_TEXT!r}.replace(" ", "| ").split("|"):
        await asyncio.sleep(0.015)
        yield word
"""
# Counts the letters of words, honestly or not.
COUNTER = """
from monai_node.agents import Agent

agent = Agent("counter")


@agent.skill(examples=["How many letters does this word have", "Count the letters"])
def letters(text: str) -> str:
    '''Counts the letters of words.'''
    return {answer!r}
"""
HONEST, LIE = "It has 9 letters.", "Letters are a fine thing to have."
COUNTING = {"id": "t1", "text": "How many letters does the word lifeboats have?", "skill": "counter.letters"}
PIECES_MIN = 8  # what a tale arrives in even on a slow machine, so that every kill strikes
PLAN = {"plan": [{"id": "t1", "text": "Tell me the long tale", "skill": "tale"}]}
BACK_SECONDS = 15.0
EXCUSE = "\n\n[This part could not be done"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("survival")) as mesh:
        mesh.open_gateway()
        (mesh.folder / "tale.py").write_text(TALE)
        yield mesh


@pytest.fixture
def victims(mesh: LiveMesh, history: History) -> Generator[Victims]:
    """The providers that this test starts; they are gone at its end."""
    mesh.history = history
    victims = Victims(mesh, history)
    yield victims
    mesh.history = None
    victims.stop()


class Victims:
    """The providers of one test, and a client whose answers they make."""

    def __init__(self, mesh: LiveMesh, history: History) -> None:
        self._mesh = mesh
        self._history = history
        self._nodes: dict[str, NodeProcess] = {}
        self.client = StreamClient(mesh.url, history, own_peer=mesh.ready.peer)
        self.struck_at = 0.0

    def start(self, *names: str, source: str = "", faults: Mapping[str, str] | None = None) -> None:
        """Start these providers side by side and wait until the gateway gives them work."""
        path = source or str(self._mesh.folder / "tale.py")
        for name in names:
            fault = (faults or {}).get(name)
            self._nodes[name] = self._mesh.serve(name, path, faults=[fault] if fault else [])
        self.wait_alive(*names)

    def wait_alive(self, *names: str) -> None:
        for name in names:
            self._nodes[name].wait_ready()
            self._mesh.wait_state(name, "alive", BACK_SECONDS)

    def wait_any_alive(self, count: int) -> None:
        def is_enough() -> bool:
            peers = self._mesh.peers()
            alive = [name for name in self._nodes if peers.get(name, {}).get("state") == "alive"]
            return len(alive) >= count

        wait_until(is_enough, BACK_SECONDS, f"fewer than {count} providers are alive")

    def stop(self) -> None:
        for node in self._nodes.values():
            node.stop()
        for name in self._nodes:
            self._mesh.wait_state(name, "gone", BACK_SECONDS)

    def tell(self, on_chunk: ChunkHook | None = None) -> StreamResult:
        return self.client.chat("Tell me the long tale", mesh=PLAN, on_chunk=on_chunk)

    def asked(self) -> NodeProcess:
        """The provider that the newest attempt went to; any one before the first attempt."""
        for record in reversed(self._history.records):
            if isinstance(record, MeshEvent) and record.event["type"] == "task.dispatched":
                return self._nodes[record.event["peer_name"]]
            if isinstance(record, Ended):
                break
        return next(iter(self._nodes.values()))

    def strike_at(self, piece: int, strike: Callable[[NodeProcess], None]) -> ChunkHook:
        """A hook that strikes whoever is asked when the n-th piece of text has come."""

        def hook(n: int) -> None:
            if n == piece:
                self.struck = self.asked()
                strike(self.struck)
                self.struck_at = time.monotonic()

        return hook

    struck: NodeProcess

    @property
    def seconds_since(self) -> float:
        return time.monotonic() - self.struck_at


def kill(node: NodeProcess) -> None:
    node.kill()


def freeze(node: NodeProcess) -> None:
    node.freeze()


def made_by(history: History) -> list[tuple[str, str]]:
    """Who made each result, and what is wrong with it."""
    events = [record.event for record in history.records if isinstance(record, MeshEvent)]
    parts = [event["provenance"] for event in events if event["type"] == "task.completed"]
    return [(part["peer_name"], part["verdict"]) for part in parts]


def lost_peers(history: History) -> int:
    return sum(
        isinstance(record, MeshEvent) and record.event["type"] == "task.continued"
        for record in history.records
    )


# --- another provider is there --------------------------------------------------------------------
def test_an_answer_outlives_the_kill_of_its_provider_at_any_piece(victims: Victims) -> None:
    """Eleven kills; a provider that was killed comes back while the next answers are made."""
    random = Random(SEED)
    victims.start("ada", "bob", "cy")
    for _ in range(11):
        victims.wait_any_alive(2)
        result = victims.tell(victims.strike_at(random.randrange(PIECES_MIN), kill))
        assert (result.how, result.text) == ("done", TALE_TEXT)
        assert victims.seconds_since < 4
        victims.struck.start()


def test_an_answer_outlives_providers_that_die_at_a_chosen_frame(victims: Victims, history: History) -> None:
    victims.start("sound")
    assert victims.tell().text == TALE_TEXT
    # What was not measured yet is tried first, so these three are asked before the sound one.
    faults = {"early": "kill:accepted:1", "first": "kill:delta:1", "amid": "kill:delta:5"}
    victims.start(*faults, faults=faults)
    result = victims.tell()
    assert (result.how, result.text) == ("done", TALE_TEXT)
    assert lost_peers(history) == 3
    # And one that wrote every word, but is lost before it says that this was all.
    victims.start("late", faults={"late": "kill:completed:1"})
    result = victims.tell()
    assert (result.how, result.text) == ("done", TALE_TEXT)
    assert lost_peers(history) == 4


def test_a_frozen_provider_costs_its_answer_seconds_and_no_word(victims: Victims, history: History) -> None:
    victims.start("dot", "eve")
    result = victims.tell(victims.strike_at(4, freeze))
    assert (result.how, result.text) == ("done", TALE_TEXT)
    # 2 s of silence make it suspect, then the tale is told again from its start: 0.6 s.
    assert 1.5 < victims.seconds_since < 5
    assert lost_peers(history) == 1


def test_a_lie_is_replaced_while_somebody_is_honest_and_marked_when_nobody_is(
    mesh: LiveMesh, victims: Victims, history: History
) -> None:
    for name, answer in (("honest", HONEST), ("liar", LIE)):
        (mesh.folder / f"{name}.py").write_text(COUNTER.format(answer=answer))
        victims.start(name, source=str(mesh.folder / f"{name}.py"))
    # As many at once as one provider does not take: whoever is preferred, the liar is asked, too.
    many = {"plan": [{**COUNTING, "id": f"t{number}"} for number in range(8)]}
    assert victims.client.chat("How many letters?", mesh=many).text.split("\n\n") == [HONEST] * 8
    assert set(made_by(history)) == {("honest", "")}
    assert lost_peers(history) > 0
    mesh.nodes["honest"].stop()
    assert victims.client.chat("How many letters?", mesh={"plan": [COUNTING]}).text == LIE
    assert made_by(history)[-1] == ("liar", "a number was asked for, the result has none")


# --- nobody else is there -------------------------------------------------------------------------
def test_the_kill_of_the_only_provider_is_told_as_an_error(victims: Victims) -> None:
    random = Random(SEED)
    victims.start("only")
    for _ in range(2):
        result = victims.tell(victims.strike_at(random.randrange(1, PIECES_MIN), kill))
        assert result.how == "error_event"
        assert result.error in ("peer_lost", "peer_unreachable", "no_provider")
        assert TALE_TEXT.startswith(result.text.partition(EXCUSE)[0])
        assert result.finish_reason is None
        assert victims.seconds_since < 8
        victims.struck.start()
        victims.wait_alive("only")


def test_the_freeze_of_the_only_provider_is_told_as_an_error(victims: Victims) -> None:
    victims.start("lone")
    result = victims.tell(victims.strike_at(4, freeze))
    assert result.how == "error_event"
    assert result.error in ("peer_lost", "peer_unreachable", "no_provider")
    assert victims.seconds_since < 8
    victims.struck.thaw()
    victims.wait_alive("lone")
    assert victims.tell().text == TALE_TEXT


# --- with a model ---------------------------------------------------------------------------------
def kills_of_the_model(victims: Victims, count: int) -> None:
    """Kill the writing one of two providers `count` times; each answer goes on and ends as one."""
    random = Random(SEED)
    victims.start("ann", "ben", source=str(bundled_sources()[0]))

    def ask(hook: ChunkHook | None = None) -> StreamResult:
        question = "Write a story about a lighthouse keeper."
        return victims.client.chat(question, on_chunk=hook, max_tokens=60, temperature=0)

    undisturbed = ask()
    assert undisturbed.finish_reason == "length"
    for _ in range(count):
        piece = random.randrange(1, undisturbed.chunks // 2)
        result = ask(victims.strike_at(piece, kill))
        assert (result.how, result.finish_reason) == ("done", "length")
        # One text of sixty tokens, whoever wrote them. Not always the very same text: the tokens of what
        # was shown may be other ones than those it was written in.
        assert 0.75 < len(result.text) / len(undisturbed.text) < 1.33
        assert result.text.count(result.text[:20]) == 1
        victims.struck.start()
        victims.wait_alive(victims.struck.name)


@pytest.mark.model
def test_a_model_s_answer_goes_on_at_another_provider(victims: Victims) -> None:
    kills_of_the_model(victims, 3)


@pytest.mark.model
@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_model_s_answer_goes_on_through_many_kills(victims: Victims) -> None:
    kills_of_the_model(victims, KILLS)
