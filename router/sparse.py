"""How much texts are alike in their words: TF-IDF over parts of words, made for lists that change.

Counting the parts of a text is the slow half and is done once a text (`counted`); joining many counted
texts (`Spelling`) is a few passes of numpy, so that one new text among thousands costs no recount.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
_Codes = NDArray[np.uint64]

# Parts of 3 to 5 letters, word ends included: "transcription" and "transcribes" share six of them.
_PART_CHARS = (3, 4, 5)
# The multiplier of Knuth's multiplicative hashing. Two parts that share a number are taken for one, which
# happens to about one pair in 2^32 and does no more than that.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# Pairs of a part and a text that are looked at for one comparison, rarest parts first: a long text among
# thousands is then compared in 2 ms. Parts that nearly all texts have say next to nothing.
_COMPARED_MAX = 100_000
# A part that one text in so many has is kept as a row of weights, an entry a text, and summed as a product: a
# tenth of the time that single pairs take. Of 2,000 skills 1,000 parts are so common, in 8 MB.
_COMMON_SHARE = 1 / 8
# Of these rows together, in 16 MB: the rarer parts are looked at pair by pair beyond them.
_COMMON_WEIGHTS_MAX = 4_000_000
_SPACE = np.uint64(ord(" "))


@dataclass(frozen=True, slots=True)
class Counted:
    """The parts of one text: their numbers, rising, and 1 + ln(how often) of each."""

    parts: NDArray[np.uint32]
    weights: Scores


def counted(text: str) -> Counted:
    """The parts of a text in its compatibility form and in small letters; none of an empty text."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    padded = f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(padded, "<u4").astype(np.uint64)
    hashed = np.concatenate([_hashed(codes, size) for size in _PART_CHARS])
    parts, counts = np.unique(hashed, return_counts=True)
    return Counted(parts, (1 + np.log(counts)).astype(np.float32))


def _hashed(codes: _Codes, size: int) -> NDArray[np.uint32]:
    """One number for each run of `size` letters that lies within a word, its ends included."""
    if len(codes) < size:
        return np.empty(0, np.uint32)
    runs = len(codes) - size + 1
    is_space = codes == _SPACE
    hashed = np.full(runs, size, np.uint64)
    is_within = np.ones(runs, np.bool_)
    for place in range(size):
        hashed = (hashed ^ codes[place : place + runs]) * _MULTIPLIER
        if 0 < place < size - 1:
            is_within &= ~is_space[place : place + runs]
    return (hashed[is_within] >> np.uint64(32)).astype(np.uint32)


class Spelling:
    """A list of counted texts, ready to be compared with others: cosine of TF-IDF, 0 to 1.

    Takes about 0.2 s for a million parts (4,000 skills with five examples each): not for an event loop.
    """

    def __init__(self, texts: Sequence[Counted]) -> None:
        self._count = len(texts)
        lengths = [len(text.parts) for text in texts]
        parts = np.concatenate([np.empty(0, np.uint32), *(text.parts for text in texts)])
        weights = np.concatenate([np.empty(0, np.float32), *(text.weights for text in texts)])
        order = np.argsort(parts, kind="stable")
        self._owners = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)[order]
        ordered = parts[order]
        is_first = np.ones(len(ordered), np.bool_)
        is_first[1:] = ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(is_first)
        self._parts = ordered[self._starts]
        self._spread = np.diff(self._starts, append=len(ordered))
        self._rarity = (np.log((1 + len(texts)) / (1 + self._spread)) + 1).astype(np.float32)
        weighted = weights[order] * np.repeat(self._rarity, self._spread)
        norms = np.sqrt(np.bincount(self._owners, weighted * weighted, minlength=len(texts)))
        self._weights = (weighted / norms[self._owners]).astype(np.float32)
        self._common_at, self._common = self._rows_of_common()

    def compare(self, text: Counted) -> Scores:
        """How alike `text` is to each text of the list."""
        found = np.searchsorted(self._parts, text.parts)
        found[found == len(self._parts)] = 0
        known = self._parts[found] == text.parts if len(self._parts) else np.zeros(0, np.bool_)
        if not known.any():
            return np.zeros(self._count, np.float32)
        places = found[known]
        weights = text.weights[known] * self._rarity[places]
        weights /= np.linalg.norm(weights)
        spread = self._spread[places]
        rarest = np.argsort(spread, kind="stable")
        rarest = rarest[np.cumsum(spread[rarest]) <= _COMPARED_MAX]
        places, weights, spread = places[rarest], weights[rarest], spread[rarest]
        row = self._common_at[places]
        is_common = row >= 0
        scores = weights[is_common] @ self._common[row[is_common]]
        is_rare = ~is_common
        scores = scores + self._of_pairs(places[is_rare], weights[is_rare], spread[is_rare])
        return scores.astype(np.float32)

    def _of_pairs(self, places: NDArray[np.intp], weights: Scores, spread: NDArray[np.intp]) -> Scores:
        """What these parts add to each text."""
        at = np.repeat(self._starts[places] - np.cumsum(spread) + spread, spread)
        at += np.arange(len(at))
        products = self._weights.take(at)
        products *= np.repeat(weights, spread)
        return np.bincount(self._owners.take(at), products, minlength=self._count).astype(np.float32)

    def _rows_of_common(self) -> tuple[NDArray[np.intp], Scores]:
        """Of each part which row it has, -1 without one, and the rows."""
        commonest = np.argsort(-self._spread, kind="stable")[: _COMMON_WEIGHTS_MAX // max(1, self._count)]
        common = commonest[self._spread[commonest] >= _COMMON_SHARE * self._count]
        row_of = np.full(len(self._parts), -1, np.intp)
        row_of[common] = np.arange(len(common))
        rows = np.zeros((len(common), self._count), np.float32)
        row = np.repeat(row_of, self._spread)
        is_common = row >= 0
        rows[row[is_common], self._owners[is_common]] = self._weights[is_common]
        return row_of, rows
