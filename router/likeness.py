"""How much phrases and skills are alike, by meaning and by spelling: one number for each pair.

Embeddings know that "make it shorter" is a summary; parts of words know that "transcription" and
"transcribes" are one thing, where a small encoder mixes up everything that is about audio. Together they
name the right of 40 skills for 94.5 % of written-out steps, the encoder alone for 92.0 %.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_node.registry.advert import Skill
from monai_node.router.embed import Embedder, Vectors
from monai_node.router.sparse import Scores, Spelling, counted
from monai_node.router.texts import SPELLING_CHARS_MAX, SkillTexts, cleaned, texts_of, words_of

# Of the spelling, beside 1 for the meaning: any weight from 0.3 to 1.2 is within 0.5 points.
SPELLING_WEIGHT = 0.5
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


_Words = tuple[SkillTexts, ...]


class PhraseScorer:
    """Compares phrases with a list of skills. What it computed for the last few lists it keeps."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[_Words, _Texts] = {}

    async def compare(self, phrases: Sequence[str], skills: Sequence[Skill]) -> Scores:
        """Shape (len(phrases), len(skills)), from about 0 to 1.5. One call of the embedder for the
        phrases, and some more when the skills are new. Raises what the embedder raises."""
        if not phrases or not skills:
            return np.zeros((len(phrases), len(skills)), np.float32)
        known = await self._texts(tuple(texts_of(skill) for skill in skills))
        vectors = await self._embed(phrases)
        return await asyncio.to_thread(_fused, known, vectors, phrases, len(skills))

    async def _embed(self, phrases: Sequence[str]) -> Vectors:
        """Shortest first: an embedder fills up each batch to its longest text."""
        order = sorted(range(len(phrases)), key=lambda at: len(phrases[at]))
        vectors = await self._embedder.embed([cleaned(phrases[at]) for at in order])
        return vectors[np.argsort(order)]

    async def _texts(self, texts: _Words) -> _Texts:
        if texts not in self._known:
            flat = [text for mine in texts for text in mine.texts]
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
    owners = np.repeat(np.arange(len(texts)), [len(mine.texts) for mine in texts])
    spelling = Spelling([words_of(mine) for mine in texts])
    return _Texts(vectors, owners, spelling)


def _fused(known: _Texts, vectors: Vectors, phrases: Sequence[str], count: int) -> Scores:
    meaning = np.full((len(phrases), count), -1.0, np.float32)
    np.maximum.at(meaning.T, known.owners, known.vectors @ vectors.T)
    alike = np.stack([known.spelling.compare(counted(phrase[:SPELLING_CHARS_MAX])) for phrase in phrases])
    return (meaning + SPELLING_WEIGHT * alike).astype(np.float32)
