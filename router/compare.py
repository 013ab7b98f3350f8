"""The distinct skills of a mesh as arrays, and how alike each of them is to one text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_node.router.embed import Vector, Vectors
from monai_node.router.sparse import Counted, Scores, Spelling
from monai_node.router.texts import SkillTexts, words_of

# Skills whose examples are looked at one by one; of more, those whose descriptions, centres and words are
# likest. The first 32 are then the very same as when all are looked at for 500 of 500 requests to the 4,400
# skills of CLINC150, MetaTool and Seal-Tools together, and for 498 of 500 among 2,000 made of them.
_LOOKED_AT_MAX = 128
_UNLIKE = np.float32(-1)  # the least cosine


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike one text is to each skill, an entry a skill: cosines, those of vectors from -1 to 1."""

    described: Vector  # to its name and description
    nearest: Vector  # to the nearest of all its texts; to its description where the others were not looked at
    centre: Vector  # to the mean direction of all its texts
    sparse: Vector  # of their words, 0 to 1
    has_examples: NDArray[np.bool_]
    best: Mapping[int, int]  # by place, which of its texts is the nearest, of those looked at


class Comparison:
    """Distinct skills, ready to be compared with a text: one product with what descriptions and centres
    promise together, then one with all texts of the likest skills.

    Costs about 0.4 ms for 1,000 skills on one core, however many examples they have, so 40 ms for
    100,000; an approximate search would pay beyond that.
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
        self.narrow, self.general = np.flatnonzero(~self.is_general), np.flatnonzero(self.is_general)
        self.row_of = row_of or {}
        self.skills, self._words = tuple(skills), tuple(words)
        self._vectors = np.empty((0, 0), np.float32) if vectors is None else vectors
        self._rows = np.array([self.row_of[text] for skill in skills for text in skill.texts], np.intp)
        self._counts = np.array([len(skill.texts) for skill in skills], np.intp)
        self._starts = np.cumsum(self._counts) - self._counts
        self._has_examples = self._counts > 1
        self._described, self._centres = self._directions()
        self._promising = self._described + 2 * self._centres
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
        return self.completed(self.likest(vector, words), vector)

    def likest(self, vector: Vector, words: Counted) -> Likeness:
        """The same of the skills whose texts are looked at, and of all general ones, at less than half the
        time where there are thousands; every other one counts as wholly unlike in meaning."""
        sparse = self._spelling.compare(words)
        looked_at = self._promising_most(vector, sparse)
        of = np.union1d(looked_at, self.general)
        described, centre = np.full((2, len(self.skills)), _UNLIKE)
        described[of], centre[of] = self._described[of] @ vector, self._centres[of] @ vector
        nearest, best = self._nearest(looked_at, vector, described)
        return Likeness(described, nearest, centre, sparse, self._has_examples, best)

    def completed(self, likest: Likeness, vector: Vector) -> Likeness:
        """What `likest` says of the text with this vector, and the cosines of all other skills."""
        described, centre = self._described @ vector, self._centres @ vector
        nearest, looked_at = described.copy(), list(likest.best)
        nearest[looked_at] = likest.nearest[looked_at]
        return replace(likest, described=described, nearest=nearest, centre=centre)

    def nearest_example(self, place: int, likeness: Likeness) -> str:
        """Of one skill; "" when its description is nearer, or its examples were not looked at."""
        nearest = likeness.best.get(place, 0)
        return self.skills[place].texts[nearest] if nearest else ""

    def centres(self, places: Sequence[int]) -> Vectors:
        """Of some skills the mean directions of their texts, a row a skill."""
        return self._centres[list(places)]

    def _promising_most(self, vector: Vector, sparse: Scores) -> NDArray[np.intp]:
        """The skills whose texts are looked at, as they stand."""
        if len(self.skills) <= _LOOKED_AT_MAX:
            return np.arange(len(self.skills))
        promise = self._promising @ vector + 2 * sparse
        return np.sort(np.argpartition(-promise, _LOOKED_AT_MAX)[:_LOOKED_AT_MAX])

    def _nearest(
        self, places: NDArray[np.intp], vector: Vector, described: Vector
    ) -> tuple[Vector, dict[int, int]]:
        """The highest cosine of each of these skills, and of which of its texts it is."""
        counts = self._counts[places]
        firsts = np.cumsum(counts) - counts
        at = np.arange(int(counts.sum())) + np.repeat(self._starts[places] - firsts, counts)
        cosines = self._vectors[self._rows[at]] @ vector
        highest = np.maximum.reduceat(cosines, firsts)
        is_highest = np.flatnonzero(cosines == np.repeat(highest, counts))
        which = is_highest[np.searchsorted(is_highest, firsts)] - firsts
        nearest = described.copy()
        nearest[places] = highest
        return nearest, dict(zip(places.tolist(), which.tolist(), strict=True))

    def _words_of(self, skill: SkillTexts) -> Counted:
        place = self.place_of.get(skill)
        return words_of(skill) if place is None else self._words[place]

    def _directions(self) -> tuple[Vectors, Vectors]:
        """Of each skill the vector of its description, and that of the centre of all its texts."""
        if not self.skills:
            return self._vectors, self._vectors
        of_texts = self._vectors[self._rows]
        sums = np.add.reduceat(of_texts, self._starts)
        lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
        return of_texts[self._starts], (sums / lengths).astype(np.float32)
