"""The skills that may be asked for, ready to be compared with a text.

What is compared are distinct skills, each once however many peers offer it in the same words: its
vectors and its words are made when they are first announced, and only then. Who offers it, with which
load, is kept apart and costs no such work to change.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_node.registry.advert import Skill
from monai_node.registry.ids import PeerId
from monai_node.router.calibration import chances_of_none, shares, strengths
from monai_node.router.compare import Comparison
from monai_node.router.embed import Embedder, Vector, Vectors
from monai_node.router.match import Match, Matches
from monai_node.router.offer import Offer
from monai_node.router.sparse import Counted, counted
from monai_node.router.texts import SPELLING_CHARS_MAX, SkillTexts, cleaned, texts_of

# Distinct texts of all skills that are compared, 30 MB of vectors, and the characters whose words are.
# What is beyond them matches nothing: last skills of the peers that announce most of them first.
INDEXED_TEXTS_MAX = 20_000
INDEXED_CHARS_MAX = 2_000_000
# Narrow skills that a text is matched with; no more than a few of them become candidates.
MATCHED_SKILLS_MAX = 32
# Of these what one peer may fill, while others have skills: one with a hundred in almost the same words
# must not be all that is matched.
_MATCHED_PER_PEER = 4
# More are needed only where few may be asked.
_SORTED_FIRST = 64
# Given to the embedder at once, so that the text of a request need not wait behind all adverts.
_BATCH_TEXTS = 64
# Texts that are embedded before the skills that they belong to are matched.
_STEP_TEXTS = 1000
# Offers looked at before others have their turn on the event loop, in about 5 ms; a skill not seen before
# counts for this many, and each of its characters for one.
_OFFERS_AT_ONCE = 4000
_OFFERS_OF_SKILL = 50

_Offers = Mapping[SkillTexts, Sequence[Offer]]
# Those of some offers that may be asked, in their order.
_May = Callable[[Iterable[Offer]], list[Offer]]


@dataclass(frozen=True, slots=True)
class _Listing:
    """What is matched at one moment: skills, and who offers each of them now."""

    comparison: Comparison
    offers: _Offers


class SkillIndex:
    """Compares a text with the skills that are offered. `announced` makes the vectors of these, where
    another embedder does than that of requests, of the same fingerprint."""

    def __init__(self, embedder: Embedder, announced: Embedder | None = None) -> None:
        self._embedder = embedder
        self._announcing = announced or embedder
        self._latest: Iterable[Offer] | None = None
        self._updating = asyncio.Lock()
        self._texts_of: dict[int, tuple[Skill, SkillTexts]] = {}  # by the identity of the skill
        self._announced: Collection[SkillTexts] = {}.keys()
        self._listing = _Listing(Comparison(), {})

    def __len__(self) -> int:
        """How many distinct texts are compared."""
        return len(self._listing.comparison.row_of)

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Those that a text is compared with."""
        compared = self._listing.comparison.place_of
        return tuple(
            offer for skill, offers in self._listing.offers.items() if skill in compared for offer in offers
        )

    async def update(self, offers: Iterable[Offer]) -> None:
        """Compare with these offers from here on; the very list of the last time costs nothing. Only texts
        not known before are embedded. Matching goes on with the former offers meanwhile, and when that
        fails; of very many new skills each peer's first ones are matched before the others are known."""
        if offers is self._latest:
            return
        async with self._updating:
            grouped = await self._grouped(list(offers))
            if grouped.keys() != self._announced:  # most updates, one a request, bring nothing but loads
                skills = await asyncio.to_thread(_admitted, grouped)
                for step in _steps(skills, self._listing.comparison.row_of):
                    self._listing = _Listing(await self._compared(step), grouped)
                self._announced = grouped.keys()
            self._listing = _Listing(self._listing.comparison, grouped)
            self._latest = offers

    def retain(self, offers: Iterable[Offer]) -> None:
        """Compare with those of these offers whose texts are known already: at once, while an `update`
        that embeds the others may go on."""
        grouped: dict[SkillTexts, list[Offer]] = {}
        for offer in offers:
            known = self._texts_of.get(id(offer.skill))
            if known is not None:
                grouped.setdefault(known[1], []).append(offer)
        self._listing = _Listing(self._listing.comparison, grouped)
        self._latest = None

    async def match(self, text: str, may: _May = list) -> Matches:
        """The MATCHED_SKILLS_MAX likeliest narrow skills and every general one, each with those of its
        offers that `may` keeps; a skill without one is passed over. Raises what the embedder
        raises."""
        listing, asked = self._listing, cleaned(text)
        if not listing.offers or not len(listing.comparison):
            return Matches((), 1.0)
        (vector,) = await self._embedder.embed([asked])
        return _matches(listing, vector, counted(asked[:SPELLING_CHARS_MAX]), may)

    async def _grouped(self, offers: Sequence[Offer]) -> dict[SkillTexts, list[Offer]]:
        """Offers by what their skill says, in the order in which they came."""
        grouped: dict[SkillTexts, list[Offer]] = {}
        known, seen = self._texts_of, dict[int, tuple[Skill, SkillTexts]]()
        work = 0
        for offer in offers:
            key = id(offer.skill)
            found = seen.get(key) or known.get(key)
            work += 1
            if found is None:
                found = (offer.skill, texts_of(offer.skill))
                work += _OFFERS_OF_SKILL + len(offer.skill.description) + sum(map(len, offer.skill.examples))
            seen[key] = found
            grouped.setdefault(found[1], []).append(offer)
            if work >= _OFFERS_AT_ONCE:
                work = 0
                await asyncio.sleep(0)
        self._texts_of = seen
        return grouped

    async def _compared(self, skills: Sequence[SkillTexts]) -> Comparison:
        former = self._listing.comparison
        texts = dict.fromkeys(text for skill in skills for text in skill.texts)
        new = [text for text in texts if text not in former.row_of]
        batches: list[Vectors] = []
        for start in range(0, len(new), _BATCH_TEXTS):
            batches.append(await self._announcing.embed(new[start : start + _BATCH_TEXTS]))
        vectors = np.concatenate(batches) if batches else np.empty((0, 0), np.float32)
        return await asyncio.to_thread(former.changed_to, skills, new, vectors)


def _admitted(offers: _Offers) -> list[SkillTexts]:
    """Skills while there is room, each peer's first ones before any peer's second ones."""
    turns: Counter[PeerId] = Counter()
    turn_of: dict[SkillTexts, int] = {}
    for skill, offered in offers.items():
        turns.update({offer.peer for offer in offered})
        turn_of[skill] = min(turns[offer.peer] for offer in offered)
    texts: set[str] = set()
    chars, admitted = 0, list[SkillTexts]()
    for skill in sorted(offers, key=turn_of.__getitem__):
        new = [text for text in skill.texts if text not in texts]
        more = min(SPELLING_CHARS_MAX, sum(map(len, skill.texts)))
        if len(texts) + len(new) <= INDEXED_TEXTS_MAX and chars + more <= INDEXED_CHARS_MAX:
            texts.update(new)
            chars += more
            admitted.append(skill)
    return admitted


def _steps(skills: Sequence[SkillTexts], known: Collection[str]) -> Iterator[list[SkillTexts]]:
    """More and more of the skills, from those that need nothing to all of them, about _STEP_TEXTS new
    texts further each time."""
    step = [skill for skill in skills if all(text in known for text in skill.texts)]
    new, count = [skill for skill in skills if any(text not in known for text in skill.texts)], 0
    for skill in new:
        step.append(skill)
        count += len(skill.texts)
        if count >= _STEP_TEXTS:
            yield list(step)
            count = 0
    if count or not new:
        yield step


def _matches(listing: _Listing, vector: Vector, words: Counted, may: _May) -> Matches:
    comparison = listing.comparison
    likeness = comparison.likest(vector, words)
    strength = strengths(likeness)
    looked_at = np.array(list(likeness.best))
    narrow_at = looked_at[~comparison.is_general[looked_at]]
    narrow, is_enough = _likeliest(listing, _strongest_first(strength, narrow_at), may)
    if not is_enough and len(narrow_at) < len(comparison.narrow):
        likeness = comparison.completed(likeness, vector)
        strength = strengths(likeness)
        narrow, _ = _likeliest(listing, _strongest_first(strength, comparison.narrow), may)
    general = _offered(listing, _strongest_first(strength, comparison.general), may)
    alone = np.minimum.accumulate(1 - chances_of_none(likeness, list(narrow), len(comparison.narrow)))
    none = 1 - float(alone[0]) if narrow else 1.0
    # The strongest general skill is a rival like any other.
    rivals = [*narrow, *list(general)[:1]]
    share = shares(strength[rivals], comparison.centres(rivals))[: len(narrow)] if narrow else np.empty(0)
    places = [*narrow, *general]
    found = [
        Match(tuple(offers), fit, dense, sparse, comparison.nearest_example(place, likeness), chance)
        for place, offers, fit, dense, sparse, chance in zip(
            places,
            [*narrow.values(), *general.values()],
            [*((1 - none) * share).tolist(), *[none] * len(general)],
            likeness.nearest[places].tolist(),
            likeness.sparse[places].tolist(),
            [*alone.tolist(), *[0.0] * len(general)],
            strict=True,
        )
    ]
    return Matches(tuple(sorted(found, key=lambda match: -match.fit)), none, vector)


def _strongest_first(strength: Vector, places: NDArray[np.intp]) -> Iterator[int]:
    """These places, those of equal strength as they stand. The few that are mostly asked for are sorted
    before it is known that more are."""
    mine = strength[places]
    is_first = np.ones(len(mine), np.bool_)
    if len(mine) > _SORTED_FIRST:
        is_first = mine >= np.partition(mine, -_SORTED_FIRST)[-_SORTED_FIRST]
    for part in (is_first, ~is_first):
        yield from places[part][np.argsort(-mine[part], kind="stable")].tolist()


def _offered(listing: _Listing, places: Iterable[int], may: _May) -> dict[int, list[Offer]]:
    """The skills that somebody offers who may be asked, in order, and who does."""
    return {place: offers for place in places if (offers := _permitted(listing, place, may))}


def _permitted(listing: _Listing, place: int, may: _May) -> list[Offer]:
    return may(listing.offers.get(listing.comparison.skills[place], ()))


def _likeliest(listing: _Listing, places: Iterable[int], may: _May) -> tuple[dict[int, list[Offer]], bool]:
    """The first MATCHED_SKILLS_MAX of these skills that somebody offers who may be asked, and whether more
    places would change nothing; behind others those of which each peer has _MATCHED_PER_PEER that stand
    before them."""
    counts: dict[PeerId, int] = {}
    first: dict[int, list[Offer]] = {}
    rest: dict[int, list[Offer]] = {}
    for place in places:
        offers = _permitted(listing, place, may)
        if not offers:
            continue
        has_room = False
        for peer in {offer.peer for offer in offers}:
            count = counts.get(peer, 0)
            has_room = has_room or count < _MATCHED_PER_PEER
            counts[peer] = count + 1
        (first if has_room else rest)[place] = offers
        if len(first) == MATCHED_SKILLS_MAX:
            return first, True
    return dict(list((first | rest).items())[:MATCHED_SKILLS_MAX]), False
