"""What the small labeller sees of a request: token ids, the segment of each token, marks of each segment.

Quotes, code and addresses are one placeholder token each and a payload is nothing else, so that no word
of a document can be read as a task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from monai_node.agents.label import Label, label_by_rules
from monai_node.agents.lexicon import (
    AUXILIARIES,
    DELIVERABLES,
    MODIFIER_VERBS,
    NOUNLIKE_VERBS,
    PREPOSITIONS,
    SURE_VERBS,
    WH_CONTRACTIONS,
    WH_WORDS,
    core,
    is_pleasantry,
    is_question,
    points_out,
    vocabulary,
    words,
)
from monai_node.agents.segment import MASK, Boundary, Kind, Segment

SEGMENTS_MAX = 64
# The encoder has 512 positions; two are taken by the marks at both ends.
TOKENS_MAX = 510
# A segment longer than this is shown by its beginning and its end; the first limit with which the whole
# request fits is taken.
_SEGMENT_TOKENS_MAX = (48, 32, 24, 16, 12, 8, 6)

LABELS: tuple[Label, ...] = get_args(Label)
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)
KINDS: tuple[Kind, ...] = get_args(Kind)

TRAITS = 18
SEPARATOR = 102  # [SEP] of the encoder
_WRITER = vocabulary("i i'm i've i'll i'd im my we we're we've our he she they it it's there")
_SUBORDINATING = vocabulary(
    "if unless because since although though while when where which that who so until or"
)
_ARTICLES = vocabulary("a an the one two three four five some another")
_ASKED = re.compile(r"\?[\s\"'”)]*\Z")

# From texts to the token ids of each, without marks at the ends.
Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]

_PLACEHOLDER = "[MASK]"
_MASKED = re.compile(f"{MASK}+")


@dataclass(frozen=True, slots=True)
class Features:
    """`tokens` are those of the segments in order, each behind SEPARATOR, `owners` the segment of each.
    `marks` are, for each segment, the indices of its boundary, its kind and the label that the rules give
    it, then its traits."""

    tokens: tuple[int, ...]
    owners: tuple[int, ...]
    marks: tuple[tuple[int, ...], ...]


def shown(piece: Segment) -> str:
    """The words of a segment that the model may see; brackets cannot spell a special token."""
    if piece.kind == "payload":
        return _PLACEHOLDER
    return _MASKED.sub(f" {_PLACEHOLDER} ", piece.masked.replace("[", "(").strip())


def features(segments: Sequence[Segment], tokenize: Tokenize) -> Features | None:
    """None for a request that is too long to be shown, or that has nothing to show."""
    if not 0 < len(segments) <= SEGMENTS_MAX:
        return None
    pieces = tokenize([shown(piece) for piece in segments])
    for limit in _SEGMENT_TOKENS_MAX:
        cut = [[SEPARATOR, *_ends(piece, limit)] for piece in pieces]
        if sum(map(len, cut)) <= TOKENS_MAX:
            break
    else:
        return None
    rules = label_by_rules(segments).labels
    return Features(
        tuple(token for piece in cut for token in piece),
        tuple(index for index, piece in enumerate(cut) for _ in piece),
        tuple(
            (BOUNDARIES.index(piece.boundary), KINDS.index(piece.kind), LABELS.index(label), *traits(piece))
            for piece, label in zip(segments, rules, strict=True)
        ),
    )


def traits(piece: Segment) -> tuple[int, ...]:
    """What word lists say of a segment: TRAITS times 0 or 1. They know verbs that the corpus lacks."""
    text = core(piece.masked)
    said = words(text)
    first, second = said[0] if said else "", said[1] if len(said) > 1 else ""
    return tuple(
        int(holds)
        for holds in (
            first in SURE_VERBS,
            first in NOUNLIKE_VERBS,
            first in MODIFIER_VERBS,
            first in AUXILIARIES,
            first in WH_WORDS | WH_CONTRACTIONS,
            first in PREPOSITIONS,
            first in _WRITER,
            first in _SUBORDINATING,
            first in _ARTICLES or first.isdigit(),
            second in AUXILIARIES,
            is_question(text),
            _ASKED.search(piece.masked) is not None,
            len(said) < 3,
            bool(DELIVERABLES & set(said)),
            points_out(text),
            is_pleasantry(piece.masked),
            len(text) < len(piece.masked.strip()) - 1,
            MASK in piece.masked,
        )
    )


def _ends(tokens: Sequence[int], limit: int) -> Sequence[int]:
    if len(tokens) <= limit:
        return tokens
    tail = limit // 4
    return [*tokens[: limit - tail], *tokens[-tail:]]
