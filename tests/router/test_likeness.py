from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from monai_node.registry.advert import Skill
from monai_node.router import likeness
from monai_node.router.embed import Vectors
from monai_node.router.likeness import SPELLING_WEIGHT, PhraseScorer
from monai_node.router.sparse import Counted, Spelling

TOPICS = ("rain", "train", "bread")


class TopicEmbedder:
    """One dimension a topic, and one for texts without any."""

    fingerprint = "topics"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        rows = [[float(topic in text.split()) for topic in TOPICS] for text in texts]
        filled = np.array([[*row, float(not any(row))] for row in rows], np.float32)
        return filled / np.linalg.norm(filled, axis=1, keepdims=True)


def skill(name: str, description: str, *examples: str) -> Skill:
    return Skill(id=name, name=name, description=description, examples=list(examples))


SKILLS = [skill("weather", "tells of rain", "will it rain"), skill("baking", "bakes", "bake some bread")]


def test_meaning_takes_the_nearest_text_and_spelling_adds_to_it() -> None:
    scores = asyncio.run(PhraseScorer(TopicEmbedder()).compare(["rain tomorrow", "bread"], SKILLS))
    assert scores.shape == (2, 2)
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert 1.0 < scores[0, 0] <= 1.0 + SPELLING_WEIGHT


def test_phrases_are_embedded_in_one_call_and_skills_once() -> None:
    embedder = TopicEmbedder()
    scorer = PhraseScorer(embedder)

    async def twice() -> None:
        await scorer.compare(["rain", "bread"], SKILLS)
        await scorer.compare(["train"], SKILLS)

    asyncio.run(twice())
    assert [len(call) for call in embedder.calls] == [4, 2, 1]


def test_a_changed_list_of_skills_is_learned_anew() -> None:
    scorer = PhraseScorer(TopicEmbedder())

    async def changed() -> list[tuple[int, ...]]:
        first = await scorer.compare(["rain"], SKILLS)
        second = await scorer.compare(["rain"], SKILLS[1:])
        return [first.shape, second.shape]

    assert asyncio.run(changed()) == [(1, 2), (1, 1)]


def test_skills_are_made_ready_off_the_loop_and_are_known_even_to_who_comes_after_one_that_gave_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedder, is_given_up = TopicEmbedder(), threading.Event()
    threads: list[int] = []

    class Slow(Spelling):
        def __init__(self, texts: Sequence[Counted]) -> None:
            threads.append(threading.get_ident())
            is_given_up.wait(10)
            super().__init__(texts)

    monkeypatch.setattr(likeness, "Spelling", Slow)

    async def give_up() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        scorer = PhraseScorer(embedder)
        first = asyncio.create_task(scorer.compare(["rain"], SKILLS))
        while not threads:
            await asyncio.sleep(0.001)
        first.cancel()
        is_given_up.set()
        await asyncio.to_thread(int)  # stands behind it
        await scorer.compare(["rain"], SKILLS)

    asyncio.run(give_up())
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_of_a_skill_with_very_many_words_the_first_are_compared_by_spelling() -> None:
    wordy = skill("wordy", "z " * 600 + "transcribes")
    scores = asyncio.run(PhraseScorer(TopicEmbedder()).compare(["transcribes"], [wordy, skill("dull", "y")]))
    assert scores[0, 0] == pytest.approx(scores[0, 1], abs=1e-6)


def test_nothing_to_compare_asks_nobody() -> None:
    embedder = TopicEmbedder()
    assert asyncio.run(PhraseScorer(embedder).compare([], SKILLS)).shape == (0, 2)
    assert asyncio.run(PhraseScorer(embedder).compare(["rain"], [])).shape == (1, 0)
    assert embedder.calls == []
