"""How much phrases and skills are alike, by meaning and by spelling: one number for each pair.

Embeddings know that "make it shorter" is a summary; parts of words know that "transcription" and
"transcribes" are one thing, where a small encoder mixes up everything that is about audio. Together they
name the right of 40 skills for 94.5 % of written-out steps, the encoder alone for 92.0 %.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_node.registry.advert import Skill
from monai_node.router.embed import Embedder, Vectors
from monai_node.router.index import TEXT_CHARS_MAX

Scores = NDArray[np.float32]

# Of the spelling, beside 1 for the meaning: any weight from 0.3 to 1.2 is within 0.5 points.
SPELLING_WEIGHT = 0.5
_GRAM_CHARS = (3, 4, 5)
# Of one skill's words; its meaning is compared in full.
_SPELLING_CHARS_MAX = 1000
# One list of skills for each privacy label.
_LISTS_KEPT = 3
# Given to the embedder at once, so that others wait for no more than these.
_BATCH_TEXTS = 64


@dataclass(frozen=True, slots=True)
class _Texts:
    """A list of skills made ready: vectors of their texts, whose they are, and their parts of words."""

    vectors: Vectors
    owners: NDArray[np.intp]
    spelling: Spelling


# Of each skill of a list its texts.
_Words = tuple[tuple[str, ...], ...]


class PhraseScorer:
    """Compares phrases with a list of skills. What it computed for the last few lists it keeps."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[_Words, _Texts] = {}

    async def score(self, phrases: Sequence[str], skills: Sequence[Skill]) -> Scores:
        """Shape (len(phrases), len(skills)), from about 0 to 1.5. One call of the embedder for the
        phrases, and some more when the skills are new. Raises what the embedder raises."""
        if not phrases or not skills:
            return np.zeros((len(phrases), len(skills)), np.float32)
        known = await self._texts(tuple(_texts_of(skill) for skill in skills))
        vectors = await self._embed(phrases)
        return await asyncio.to_thread(_fused, known, vectors, phrases, len(skills))

    async def _embed(self, phrases: Sequence[str]) -> Vectors:
        """Shortest first: an embedder fills up each batch to its longest text."""
        order = sorted(range(len(phrases)), key=lambda at: len(phrases[at]))
        vectors = await self._embedder.embed([phrases[at][:TEXT_CHARS_MAX] for at in order])
        return vectors[np.argsort(order)]

    async def _texts(self, texts: _Words) -> _Texts:
        if texts not in self._known:
            flat = [text for mine in texts for text in mine]
            batches = [
                await self._embedder.embed(flat[start : start + _BATCH_TEXTS])
                for start in range(0, len(flat), _BATCH_TEXTS)
            ]
            return await asyncio.to_thread(self._learn, texts, np.concatenate(batches))
        return self._known[texts]

    def _learn(self, texts: _Words, vectors: Vectors) -> _Texts:
        """Kept even when the caller was too late for it: the next one then has it."""
        ready = _made_ready(texts, vectors)
        others = list(self._known.items())[1 - _LISTS_KEPT :]
        self._known = {**dict(others), texts: ready}
        return ready


def _made_ready(texts: _Words, vectors: Vectors) -> _Texts:
    """Takes a second where all words are as many and as strange as they may be."""
    owners = np.repeat(np.arange(len(texts)), [len(mine) for mine in texts])
    spelling = Spelling([" ".join(mine)[:_SPELLING_CHARS_MAX] for mine in texts])
    return _Texts(vectors, owners, spelling)


def _texts_of(skill: Skill) -> tuple[str, ...]:
    described = f"{skill.name}: {skill.description}"
    return tuple(text[:TEXT_CHARS_MAX] for text in (described, *skill.examples))


def _fused(known: _Texts, vectors: Vectors, phrases: Sequence[str], count: int) -> Scores:
    meaning = np.full((len(phrases), count), -1.0, np.float32)
    np.maximum.at(meaning.T, known.owners, known.vectors @ vectors.T)
    return (meaning + SPELLING_WEIGHT * known.spelling.compare(phrases)).astype(np.float32)


class Spelling:
    """TF-IDF over parts of words (3 to 5 letters, word ends included), cosine from 0 to 1."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [_grams(text) for text in texts]
        spread = Counter(gram for grams in counted for gram in grams)
        self._rarity = {gram: math.log((1 + len(texts)) / (1 + n)) + 1 for gram, n in spread.items()}
        self._count = len(texts)
        where: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, grams in enumerate(counted):
            for gram, weight in self._weights(grams).items():
                where[gram].append((index, weight))
        self._where = {
            gram: (
                np.array([index for index, _ in found]),
                np.array([weight for _, weight in found], np.float32),
            )
            for gram, found in where.items()
        }

    def compare(self, phrases: Sequence[str]) -> Scores:
        """Shape (len(phrases), number of texts)."""
        scores = np.zeros((len(phrases), self._count), np.float32)
        for row, phrase in enumerate(phrases):
            for gram, weight in self._weights(_grams(phrase)).items():
                indices, others = self._where[gram]
                scores[row, indices] += weight * others
        return scores

    def _weights(self, grams: Counter[str]) -> dict[str, float]:
        """Of unit length over the parts that occur in the texts at all."""
        raw = {
            gram: (1 + math.log(count)) * self._rarity[gram]
            for gram, count in grams.items()
            if gram in self._rarity
        }
        length = math.sqrt(sum(weight * weight for weight in raw.values()))
        return {gram: weight / length for gram, weight in raw.items()}


def _grams(text: str) -> Counter[str]:
    grams: Counter[str] = Counter()
    for word in text.lower().split():
        padded = f" {word} "
        for size in _GRAM_CHARS:
            grams.update(padded[at : at + size] for at in range(max(1, len(padded) - size + 1)))
    return grams
