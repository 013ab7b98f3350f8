from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from monai_node.registry.advert import Skill
from monai_node.registry.ids import PeerId
from monai_node.router import index
from monai_node.router.embed import Vectors
from monai_node.router.index import Match, SkillIndex, fused
from monai_node.router.offer import Offer


class WordEmbedder:
    """Texts are alike by the words they share; remembers what it was asked for."""

    fingerprint = "words"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_broken = False
        self._place_of: dict[str, int] = {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self.is_broken:
            raise RuntimeError("broken")
        self.asked.extend(texts)
        rows = np.zeros((len(texts), 512), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[self._place_of.setdefault(word, len(self._place_of))] += 1
            row /= np.linalg.norm(row)
        return rows


def offer(peer: str, skill: str, *examples: str, description: str = "nothing special") -> Offer:
    card = Skill(id=skill, name=skill, description=description, examples=list(examples))
    return Offer(PeerId(peer), peer, "trusted", card)


SUMS = ("what is 3 plus 4", "divide 8 by 2")
POEMS = ("write a poem", "write a verse about rivers")


def matches(embedder: WordEmbedder, offers: Sequence[Offer], text: str) -> list[Match]:
    async def run() -> list[Match]:
        skills = SkillIndex(embedder)
        await skills.update(offers)
        return await skills.match(text)

    return asyncio.run(run())


def test_the_nearest_skill_comes_first_and_names_its_nearest_example() -> None:
    found = matches(
        WordEmbedder(), [offer("a", "poems", *POEMS), offer("b", "sums", *SUMS)], "divide 10 by 5"
    )
    assert [match.offer.skill.id for match in found] == ["sums", "poems"]
    assert found[0].best_example == "divide 8 by 2"
    assert found[0].dense == pytest.approx(0.5)
    assert 0 <= found[1].score < found[0].score <= 1


def test_a_description_alone_can_match() -> None:
    found = matches(WordEmbedder(), [offer("a", "x", description="predicts the weather")], "the weather")
    assert found[0].best_example == ""
    assert found[0].score > 0.5


def test_replicas_match_alike_and_their_texts_are_embedded_once() -> None:
    embedder = WordEmbedder()
    found = matches(embedder, [offer("a", "sums", *SUMS), offer("b", "sums", *SUMS)], "3 plus 4")
    assert found[0].score == found[1].score
    assert len(embedder.asked) == 3 + 1


def test_an_update_embeds_only_new_texts_and_forgets_old_ones() -> None:
    async def run() -> None:
        embedder = WordEmbedder()
        skills = SkillIndex(embedder)
        await skills.update([offer("a", "sums", *SUMS)])
        embedder.asked.clear()
        await skills.update([offer("a", "sums", *SUMS), offer("b", "poems", *POEMS)])
        assert embedder.asked == ["poems: nothing special", *POEMS]
        await skills.update([offer("b", "poems", *POEMS)])
        assert len(skills) == 3
        assert [match.offer.peer for match in await skills.match("poem")] == ["b"]
        await skills.update([])
        assert await skills.match("poem") == []

    asyncio.run(run())


def test_a_failed_update_leaves_the_former_offers() -> None:
    async def run() -> None:
        embedder = WordEmbedder()
        skills = SkillIndex(embedder)
        await skills.update([offer("a", "sums", *SUMS)])
        embedder.is_broken = True
        with pytest.raises(RuntimeError):
            await skills.update([offer("b", "poems", *POEMS)])
        embedder.is_broken = False
        assert [match.offer.peer for match in await skills.match("divide")] == ["a"]

    asyncio.run(run())


def test_offers_beyond_the_bound_match_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEXED_TEXTS_MAX", 4)
    offers = [offer("a", "sums", *SUMS), offer("b", "poems", *POEMS), offer("c", "sums", *SUMS)]
    assert {match.offer.peer for match in matches(WordEmbedder(), offers, "a poem")} == {"a", "c"}


def test_the_score_stays_between_0_and_1() -> None:
    assert fused(np.array([-0.5, -0.2], np.float32)) == 0.0
    assert fused(np.array([1.0000001], np.float32)) <= 1.0
    assert fused(np.array([0.8, 0.2, 0.5, 0.1], np.float32)) == pytest.approx(0.7 * 0.8 + 0.3 * 0.5)
