"""The distinct skills of a mesh as arrays, and how alike each of them is to one text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_node.router.embed import Vector, Vectors
from monai_node.router.sparse import Counted, Spelling
from monai_node.router.texts import SkillTexts, words_of


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike one text is to each skill, an entry a skill: cosines, those of vectors from -1 to 1."""

    described: Vector  # to its name and description
    nearest: Vector  # to the nearest of all its texts
    centre: Vector  # to the mean direction of all its texts
    sparse: Vector  # of their words, 0 to 1
    has_examples: NDArray[np.bool_]
    of_texts: Vector  # to each text, those of one skill after those of another


class Comparison:
    """Distinct skills, ready to be compared with a text: exact, one product of all vectors with one.

    Costs about 0.2 ms for 1,000 texts of 384 dimensions on one core, so 20 ms for 100,000; an
    approximate search would pay beyond that.
    """

    def __init__(
        self,
        skills: Sequence[SkillTexts] = (),
        words: Sequence[Counted] = (),
        row_of: Mapping[str, int] | None = None,
        vectors: Vectors | None = None,
    ) -> None:
        """`words` are those of each skill; `vectors` has a row of unit length for each text, `row_of`
        says which. Takes as long as `Spelling`."""
        self.place_of = {skill: place for place, skill in enumerate(skills)}
        self.is_general = np.array([skill.is_general for skill in skills], np.bool_)
        self.row_of = row_of or {}
        self.skills, self._words = tuple(skills), tuple(words)
        self._vectors = np.empty((0, 0), np.float32) if vectors is None else vectors
        self._rows = np.array([self.row_of[text] for skill in skills for text in skill.texts], np.intp)
        self._counts = np.array([len(skill.texts) for skill in skills], np.intp)
        self._starts = np.cumsum(self._counts) - self._counts
        self._has_examples = self._counts > 1
        self._lengths = self._lengths_of_sums()
        self._spelling = Spelling(words)

    def __len__(self) -> int:
        return len(self.skills)

    def changed_to(self, skills: Sequence[SkillTexts], new: Sequence[str], vectors: Vectors) -> Comparison:
        """The comparison with these skills. `new` are their texts that this one lacks, with `vectors`;
        everything else is taken over. Not for an event loop."""
        if not skills:
            return Comparison()
        texts = dict.fromkeys(text for skill in skills for text in skill.texts)
        row_of = {text: row for row, text in enumerate(texts)}
        kept = [text for text in texts if text in self.row_of]
        width = vectors.shape[1] if new else self._vectors.shape[1]
        joined = np.empty((len(texts), width), np.float32)
        if kept:
            joined[[row_of[text] for text in kept]] = self._vectors[[self.row_of[text] for text in kept]]
        if new:
            joined[[row_of[text] for text in new]] = vectors
        return Comparison(skills, [self._words_of(skill) for skill in skills], row_of, joined)

    def likeness(self, vector: Vector, words: Counted) -> Likeness:
        """Of a text with this vector and these words; at least one skill must be there."""
        cosines = (self._vectors @ vector)[self._rows]
        return Likeness(
            described=cosines[self._starts],
            nearest=np.maximum.reduceat(cosines, self._starts),
            centre=(np.add.reduceat(cosines, self._starts) / self._lengths).astype(np.float32),
            sparse=self._spelling.compare(words),
            has_examples=self._has_examples,
            of_texts=cosines,
        )

    def nearest_example(self, place: int, likeness: Likeness) -> str:
        """Of one skill; "" when its description is nearer."""
        texts, start = self.skills[place].texts, self._starts[place]
        nearest = int(np.argmax(likeness.of_texts[start : start + len(texts)]))
        return texts[nearest] if nearest else ""

    def centres(self, places: Sequence[int]) -> Vectors:
        """Of some skills the mean directions of their texts, a row a skill."""
        texts = [slice(self._starts[place], self._starts[place] + self._counts[place]) for place in places]
        sums = [self._vectors[self._rows[mine]].sum(axis=0) for mine in texts]
        return (np.stack(sums) / self._lengths[list(places), None]).astype(np.float32)

    def _words_of(self, skill: SkillTexts) -> Counted:
        place = self.place_of.get(skill)
        return words_of(skill) if place is None else self._words[place]

    def _lengths_of_sums(self) -> Vector:
        """Of the sum of each skill's vectors: what turns the sum of its cosines into the cosine with
        its centre."""
        if not self.skills:
            return np.empty(0, np.float32)
        sums = np.add.reduceat(self._vectors[self._rows], self._starts)
        return np.maximum(np.linalg.norm(sums, axis=1), 1e-6).astype(np.float32)
