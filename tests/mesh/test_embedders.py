from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from stalls import longest_stall

from monai_node.agents.examples.arithmetic import agent as arithmetic
from monai_node.agents.examples.calendar_dates import agent as calendar
from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.segment import segment
from monai_node.mesh.child import Child
from monai_node.mesh.embedders import (
    BATCH_TEXTS_MAX,
    LABEL_CHARS_MAX,
    TEXT_CHARS_MAX,
    SentenceEmbedder,
    open_embedder,
    open_sentence_embedder,
)
from monai_node.mesh.embeddings import Embeddings
from monai_node.mesh.engine.describe import chat_skill
from monai_node.mesh.minilm import GGUF_SHA256, WEIGHTS_SHA256, installed
from monai_node.registry.advert import Skill
from monai_node.registry.errors import ContextLengthExceeded, SetupError, TaskFailed
from monai_node.registry.ids import PeerId
from monai_node.router.demand import Sieve, of_label
from monai_node.router.embed import CachedEmbedder, Vectors
from monai_node.router.health import Health
from monai_node.router.index import SkillIndex
from monai_node.router.offer import Offer
from monai_node.router.rank import rank
from monai_node.router.worth import Knowledge

STALL_SECONDS = 0.4  # for a loaded test machine; the node aims at 0.05

# Written after the thresholds of router.rank were chosen, and not looked at for choosing them.
TEXTS = {
    "arithmetic": [
        "What is 48 divided by 6?",
        "multiply 13 by 17",
        "how much is 8.25% of 640",
        "convert 180 pounds to kilograms",
        "how many inches are in 2 metres",
        "What's (5 + 9) * 3 - 4?",
        "350 F in celsius",
        "2^16",
        "add 14 and 77",
        "how many seconds are there in a day",
        "subtract 19 from the result",
        "A ticket costs 12 euros; how much are 7 tickets?",
        "3/8 as a percentage",
    ],
    "calendar": [
        "How many days are left until 1 March?",
        "What weekday will 15 August 2030 be?",
        "what time is it in Berlin right now",
        "what date was three weeks ago",
        "is the year 2100 a leap year",
        "how many working days are there in May 2026",
        "When is Easter in 2027?",
        "what day is tomorrow",
        "number of days from 2 Feb to 20 April",
        "how old is someone born on 3 April 1990",
        "what week of the year is it",
        "add 10 days to 28 February 2025",
        "when does next month start",
    ],
    "chat": [
        "Write a limerick about a fox",
        "What is the tallest mountain on Earth?",
        "Explain how a vaccine works",
        "Rewrite: 'me and him goes to school' in correct English",
        "Give me three names for a coffee shop",
        "Who painted the Mona Lisa?",
        "Write a polite reply declining a meeting",
        "What are the symptoms of a cold?",
        "Tell me about the life of Isaac Newton",
        "How does a clock work?",
        "Write a slogan for a calendar shop",
        "Why do we have time zones?",
        "Explain the Pythagorean theorem in words",
        "What is your favourite colour?",
    ],
}


@dataclass
class Opened:
    """An embedder that the tests of this file share, and the event loop it lives on."""

    embedder: SentenceEmbedder
    runner: asyncio.Runner

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self.runner.run(self._embed(texts))

    def label(self, text: str) -> Reading:
        return self.runner.run(self._label(text))

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        return await self.embedder.embed(texts)

    async def _label(self, text: str) -> Reading:
        return await self.embedder.label(segment(text))


@contextmanager
def _open(context: AbstractAsyncContextManager[SentenceEmbedder]) -> Generator[Opened]:
    with asyncio.Runner() as runner:
        yield Opened(runner.run(_enter(context)), runner)
        runner.run(_leave(context))


@pytest.fixture(scope="module")
def opened() -> Generator[Opened]:
    with _open(open_sentence_embedder()) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def through_gguf(folder: Path) -> Generator[Opened]:
    with _open(open_embedder("gguf", folder)) as opened:
        yield opened


async def _enter(context: AbstractAsyncContextManager[SentenceEmbedder]) -> SentenceEmbedder:
    return await context.__aenter__()


async def _leave(context: AbstractAsyncContextManager[SentenceEmbedder]) -> None:
    await context.__aexit__(None, None, None)


@pytest.mark.model
def test_the_packaged_model_makes_unit_vectors(opened: Opened) -> None:
    assert opened.embedder.fingerprint.endswith(WEIGHTS_SHA256)
    vectors = opened.embed(["What is 12 * 9?", "how much is seven times eight", "a poem about rivers"])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert opened.embed([]).shape == (0, 384)


@pytest.mark.model
def test_rows_keep_their_order_over_batches(opened: Opened) -> None:
    texts = [f"text number {number}" for number in range(BATCH_TEXTS_MAX + 1)]
    (last,) = opened.embed(texts[-1:])
    assert opened.embed(texts)[-1] @ last == pytest.approx(1.0, abs=1e-3)


@pytest.mark.model
def test_the_event_loop_goes_on_while_texts_are_embedded(opened: Opened) -> None:
    texts = [f"{number} " + "words " * 60 for number in range(BATCH_TEXTS_MAX)]  # a second of work
    assert opened.runner.run(longest_stall(opened.embedder.embed(texts))) < STALL_SECONDS


@pytest.mark.model
def test_what_stands_behind_the_limit_changes_nothing(opened: Opened) -> None:
    long = "word " * 10_000
    whole, cut = opened.embed([long, long[:TEXT_CHARS_MAX]])
    assert whole @ cut == pytest.approx(1.0, abs=1e-3)


@pytest.mark.model
def test_most_requests_find_the_skill_they_are_for(opened: Opened) -> None:
    cards = [arithmetic.skills[0].card, calendar.skills[0].card, chat_skill("tiny", "Tiny")]
    offers = [Offer(PeerId(card.id), card.id, "trusted", card) for card in cards]

    async def first(texts: Sequence[str]) -> list[str]:
        embedder = CachedEmbedder(opened.embedder)
        skills = SkillIndex(embedder)
        await skills.update(offers)
        await embedder.embed(texts)
        rankings = [
            rank(await skills.match(text), Sieve(of_label("trusted")), Knowledge(Health()), 0.0)
            for text in texts
        ]
        assert all(ranking.candidates[-1].skill == "chat" for ranking in rankings)
        return [ranking.candidates[0].skill for ranking in rankings]

    found = {skill: opened.runner.run(first(texts)).count(skill) for skill, texts in TEXTS.items()}
    # Measured: 13 of 13, 13 of 13, 11 of 14. Both agents abstain from the 3 that should be chat.
    assert found["arithmetic"] >= 11
    assert found["calendar"] >= 12
    assert found["chat"] >= 10


@pytest.mark.model
def test_a_skill_with_copied_examples_leaves_the_one_it_copies_among_the_candidates(opened: Opened) -> None:
    copied = ["What is 12 * 31", "Calculate 15 + 27", "What is 37 * 49"]
    liar = Skill(id="liar", name="sums", description="Calculates arithmetic exactly.", examples=copied)
    cards = [arithmetic.skills[0].card, calendar.skills[0].card, chat_skill("tiny", "Tiny"), liar]

    async def asked(text: str) -> list[str]:
        skills = SkillIndex(CachedEmbedder(opened.embedder))
        await skills.update([Offer(PeerId(card.id), card.id, "trusted", card) for card in cards])
        found = rank(await skills.match(text), Sieve(of_label("trusted")), Knowledge(Health()), 0.0)
        return [candidate.skill for candidate in found.candidates]

    assert opened.runner.run(asked(copied[0])) == ["liar", "arithmetic", "chat"]
    assert opened.runner.run(asked("What weekday will 15 August 2030 be?")) == ["calendar", "chat"]


@pytest.mark.model
def test_segments_are_labelled_in_the_same_process(opened: Opened) -> None:
    found = opened.label("What is 37 * 49? Write a poem about rivers. Then translate the poem into Welsh.")
    assert found.labels == ("task",) * 3
    assert found.needs[:2] == ((), ())
    assert 1 in (found.needs[2] or ())
    assert opened.label("Hello there!").labels == ("context",)


@pytest.mark.model
def test_a_document_starts_no_task_and_its_words_stay_here(opened: Opened) -> None:
    found = opened.label("Translate the following into Welsh: Shut the gate, then write a poem.")
    assert found.labels == ("task", "context")


@pytest.mark.model
@pytest.mark.parametrize("text", ["", "Sing. " * 100, "word " * LABEL_CHARS_MAX])
def test_what_is_too_long_for_the_labeller_is_read_by_the_rules(opened: Opened, text: str) -> None:
    assert opened.label(text) == label_by_rules(segment(text))


SINGLE = [
    "",
    " ",
    "\n\t\r",
    "a",
    "É",
    "e\u0301",
    "\u0301",
    "a" + "\u0301" * 50,
    "\x00\x01\x02",
    "tab\tnew\nline",
    "\x85\u2028\x1c",
    "Ångström's naïve café",
    "Straße",
    "İstanbul",
    "ǅ",
    "ﬁ ligature",
    "１２３ Ⅷ ½ ²",
    "𝒜𝓁𝑔",
    "ⓐ",
    "soft\u00adhyphen",
    "zero\u200bwidth",
    "\ufeffmark",
    "\ufffd",
    "\U000e0001tag",
    "ΑΒΓΔ ς",
    "привет, мир",
    "日本語のテキスト",
    "中文字符abc",
    "한국어 텍스트",
    "नमस्ते दुनिया",
    "ไทยภาษา",
    "שלום עולם",
    "مرحبا بالعالم",
    "😀",
    "hello 😀 world",
    "👩‍👩‍👧‍👦",
    "…—–“quoted”",
    "$100+5=7^2`~|<>",
    "[SEP] [CLS] [MASK]",
    "don't stop-me_now",
    "https://example.com/a?b=c&d=e#f",
    "x" * 100,
    "x" * 101,
    "y" * 2000,
    "word " * 400,
    "한" * 300,
    "{}[]();" * 200,
]
# Where characters that tokenisers treat each in their own way stand: Latin, marks, controls and spaces, CJK,
# Hangul, Indic, Arabic, symbols, emoji.
RANGES = [
    *((0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xA00)),
    *((0x1E00, 0x2000), (0x2000, 0x2100), (0x2190, 0x2400), (0x3000, 0x3100), (0x4E00, 0x4F00)),
    *((0xAC00, 0xAD00), (0xFF00, 0xFFF0), (0x1F300, 0x1F700), (0x00, 0x20)),
]


def odd_texts() -> list[str]:
    """What people write, and what nobody does; the same in every run."""
    draw = random.Random(7)
    found = list(SINGLE)
    for number in range(160):
        ranges = draw.sample(RANGES, k=1 + number % 3)
        drawn = [chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.choice((1, 4, 12, 30)))]
        found.append("".join(c if draw.random() < 0.8 else " " for c in drawn))
    return found


@pytest.mark.full
@pytest.mark.model
def test_the_vectors_are_those_of_sentence_transformers(opened: Opened) -> None:
    transformer: Any = importlib.import_module("sentence_transformers").SentenceTransformer
    reference = transformer(str(installed()), device="cpu", local_files_only=True)
    texts = odd_texts()
    expected = reference.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    likeness = np.einsum("ij,ij->i", opened.embed(texts), expected)
    assert likeness.min() > 0.99999, repr(texts[int(likeness.argmin())])
    with _open(open_embedder("sentence-transformers", Path())) as library:
        likeness = np.einsum("ij,ij->i", library.embed(texts), expected)
        assert likeness.min() > 0.99999
        assert library.embedder.has_labeller


@pytest.mark.model
def test_llama_cpp_makes_the_vectors_of_torch(opened: Opened, through_gguf: Opened) -> None:
    texts = odd_texts()
    vectors = through_gguf.embed(texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    likeness = np.einsum("ij,ij->i", vectors, opened.embed(texts))
    assert likeness.min() > 0.9999, repr(texts[int(likeness.argmin())])
    assert through_gguf.embed([]).shape == (0, 384)
    assert through_gguf.embedder.fingerprint != opened.embedder.fingerprint


@pytest.mark.model
@pytest.mark.parametrize("fixture", ["opened", "through_gguf"])
def test_a_vector_is_the_same_alone_and_among_others(fixture: str, request: pytest.FixtureRequest) -> None:
    through: Opened = request.getfixturevalue(fixture)
    texts = [f"text {number} " + "word " * 3 * number for number in range(20)]
    together = through.embed(texts)
    alone = np.concatenate([through.embed([text]) for text in texts])
    assert np.einsum("ij,ij->i", together, alone).min() > 0.99999


@pytest.mark.model
def test_without_torch_texts_are_embedded_and_nothing_is_labelled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch here', name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with _open(open_embedder("auto", folder)) as opened:
        assert opened.embedder.fingerprint.endswith(GGUF_SHA256)
        assert not opened.embedder.has_labeller
        near, other, asked = opened.embed(["add numbers", "a poem about rivers", "What is 3 plus 4?"])
        assert asked @ near > asked @ other + 0.2
        with pytest.raises(TaskFailed, match="torch"):
            opened.label("What is 37 * 49?")


class Answering:
    """A child that answers every call alike."""

    def __init__(self, answer: object) -> None:
        self.info = {"dimensions": 2, "fingerprint": "one", "has_labeller": True}
        self._answer = answer

    async def call(self, op: str, payload: Any) -> AsyncGenerator[Any]:
        yield self._answer


def test_vectors_of_another_model_than_at_first_are_refused() -> None:
    child = Answering(np.ones(2, "<f4").tobytes())
    embedder = SentenceEmbedder(cast(Child, child))
    assert asyncio.run(embedder.embed(["text"])).shape == (1, 2)
    child.info["fingerprint"] = "another"  # after a restart
    with pytest.raises(TaskFailed, match="restart the gateway"):
        asyncio.run(embedder.embed(["text"]))


NO_READINGS: list[object] = [
    None,
    {"labels": ["task"]},
    {"labels": ["task", "task"], "needs": [[]]},
    {"labels": ["task"], "needs": [[0]]},
    {"labels": ["order"], "needs": [[]]},
    {"labels": ["task", "task"], "needs": [[], []]},
]


@pytest.mark.parametrize("answer", NO_READINGS)
def test_an_answer_that_is_no_reading_is_an_error_of_the_mesh(answer: object) -> None:
    embedder = SentenceEmbedder(cast(Child, Answering(answer)))
    with pytest.raises(TaskFailed, match="no reading"):
        asyncio.run(embedder.label(segment("Write a poem")))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(SetupError, match=r"cannot be read.*model\.safetensors"),
        _open(open_sentence_embedder(tmp_path)),
    ):
        pytest.fail("it opened")


# --- texts of users -----------------------------------------------------------------------------------
@pytest.mark.model
@pytest.mark.parametrize("name", ["opened", "through_gguf"])
def test_texts_of_users_have_the_vectors_of_sentence_transformers(
    name: str, request: pytest.FixtureRequest
) -> None:
    opened: Opened = request.getfixturevalue(name)
    texts = ["a river", "Müde Flüsse, 12 %", "word " * 254]
    embeddings = Embeddings(opened.embedder)
    found = opened.runner.run(embeddings.embed(texts))
    tokens = opened.runner.run(opened.embedder.tokens(texts))
    again = opened.runner.run(embeddings.embed(tokens))
    assert found.token_count == sum(map(len, tokens))
    assert np.array_equal(found.vectors, again.vectors)
    library = cast("Any", importlib.import_module("sentence_transformers"))
    model = library.SentenceTransformer(str(installed()), device="cpu", local_files_only=True)
    wanted = model.encode(texts, normalize_embeddings=True)
    assert np.min(np.sum(found.vectors * wanted, axis=1)) >= 0.999
    with pytest.raises(ContextLengthExceeded):
        opened.runner.run(embeddings.embed(["word " * 255]))


@pytest.mark.model
def test_a_request_comes_between_the_texts_of_users(opened: Opened) -> None:
    async def main() -> None:
        (long,) = await opened.embedder.tokens(["word " * 200])
        many = asyncio.create_task(opened.embedder.embed_tokens([long] * 12))
        await opened.embedder.embed(["which skill is this for"])
        assert not many.done()
        await many

    opened.runner.run(main())
