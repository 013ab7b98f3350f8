from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from monai_node.registry.advert import Skill
from monai_node.router.embed import Vectors
from monai_node.router.likeness import SPELLING_WEIGHT, PhraseScorer, Spelling

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
    scores = asyncio.run(PhraseScorer(TopicEmbedder()).score(["rain tomorrow", "bread"], SKILLS))
    assert scores.shape == (2, 2)
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert 1.0 < scores[0, 0] <= 1.0 + SPELLING_WEIGHT


def test_phrases_are_embedded_in_one_call_and_skills_once() -> None:
    embedder = TopicEmbedder()
    scorer = PhraseScorer(embedder)

    async def twice() -> None:
        await scorer.score(["rain", "bread"], SKILLS)
        await scorer.score(["train"], SKILLS)

    asyncio.run(twice())
    assert [len(call) for call in embedder.calls] == [4, 2, 1]


def test_a_changed_list_of_skills_is_learned_anew() -> None:
    scorer = PhraseScorer(TopicEmbedder())

    async def changed() -> list[tuple[int, ...]]:
        first = await scorer.score(["rain"], SKILLS)
        second = await scorer.score(["rain"], SKILLS[1:])
        return [first.shape, second.shape]

    assert asyncio.run(changed()) == [(1, 2), (1, 1)]


def test_nothing_to_compare_asks_nobody() -> None:
    embedder = TopicEmbedder()
    assert asyncio.run(PhraseScorer(embedder).score([], SKILLS)).shape == (0, 2)
    assert asyncio.run(PhraseScorer(embedder).score(["rain"], [])).shape == (1, 0)
    assert embedder.calls == []


def test_spelling_knows_forms_of_a_word() -> None:
    spelling = Spelling(["Transcribes speech", "Colours pictures"])
    first, second = spelling.compare(["the transcription", "a coloured picture"])
    assert first[0] > first[1] == 0.0
    assert second[1] > second[0]
    assert spelling.compare(["transcribes speech"])[0, 0] > 0.99


def test_spelling_of_nothing_known_is_zero() -> None:
    assert Spelling(["abc"]).compare(["", "xyz"]).tolist() == [[0.0], [0.0]]
