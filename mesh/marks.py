"""What models reached in our exam, kept on disk: how well they plan, and how quickly where they run.

How well belongs to the model, so that the same file need not be examined at every peer; how quickly
belongs to a model at a peer. A digest is believed of members of a private mesh only, and only one of the
whole file: a stranger could announce that of a good model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monai_node.agents.exam import edition
from monai_node.mesh.state import read_json, set_aside, write_json
from monai_node.registry.errors import SetupError
from monai_node.router.offer import Offer
from monai_node.router.planners import Mark, Writer, writer_of

_log = logging.getLogger(__name__)

EXAMS_FILE = "exams.json"
# After a month a model behind a URL may be another one, and a peer another machine.
MARK_SECONDS_MAX = 30 * 86_400.0
_ENTRIES_MAX = 500

_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    taken_at: float  # wall clock, seconds


class _Quality(_Entry):
    """`beaten_by` is the local labeller's score when the exam was stopped because of it; None: it was
    taken to its end."""

    score: _Share
    beaten_by: _Share | None = None


class _Speed(_Entry):
    seconds: _Seconds


class _Book(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    edition: str
    quality: dict[str, _Quality] = Field(default_factory=dict[str, _Quality], max_length=_ENTRIES_MAX)
    speed: dict[str, _Speed] = Field(default_factory=dict[str, _Speed], max_length=_ENTRIES_MAX)


_E = TypeVar("_E", _Quality, _Speed)


class MarkBook:
    """The marks of models; `now` is the wall clock. A damaged file is set aside, one of another edition
    of the exam forgotten, and one that cannot be written is kept in memory alone."""

    def __init__(self, file: Path, now: Callable[[], float]) -> None:
        self._file = file
        self._now = now
        self._book = _read(file)

    def mark(self, offer: Offer, local_score: float) -> Mark | None:
        """What is known of a model; None when it is to be examined: it never was, too long ago, or
        against a better local labeller than the one of today."""
        quality = self._quality(offer, local_score)
        speed = self._book.speed.get(_speed_key(offer))
        if quality is None or speed is None or self._age(speed) > MARK_SECONDS_MAX:
            return None
        return Mark(quality.score, speed.seconds, max(self._age(quality), self._age(speed)))

    def marks(self, offers: Iterable[Offer], local_score: float) -> dict[Writer, Mark]:
        found = {writer_of(offer): self.mark(offer, local_score) for offer in offers}
        return {writer: mark for writer, mark in found.items() if mark is not None}

    def needs_only_speed(self, offer: Offer, local_score: float) -> bool:
        """Whether it is known how well this model plans, and not how quickly at this peer."""
        return self._quality(offer, local_score) is not None

    def note(
        self, offer: Offer, *, score: float | None, seconds: float, beaten_by: float | None = None
    ) -> None:
        """Keep what an exam found, on disk; without `score` only the speed. Blocks for a disk write."""
        at = self._now()
        quality, speed = dict(self._book.quality), dict(self._book.speed)
        if score is not None:
            quality[_quality_key(offer)] = _Quality(taken_at=at, score=score, beaten_by=beaten_by)
        speed[_speed_key(offer)] = _Speed(taken_at=at, seconds=seconds)
        self._book = _Book(edition=edition(), quality=_newest(quality), speed=_newest(speed))
        try:
            write_json(self._file, self._book.model_dump())
        except OSError as error:
            _log.warning("the marks of models could not be written: %s", error.strerror)

    def _quality(self, offer: Offer, local_score: float) -> _Quality | None:
        known = self._book.quality.get(_quality_key(offer))
        if known is None or self._age(known) > MARK_SECONDS_MAX:
            return None
        return known if known.beaten_by is None or known.beaten_by <= local_score else None

    def _age(self, entry: _Entry) -> float:
        return max(0.0, self._now() - entry.taken_at)


def _quality_key(offer: Offer) -> str:
    digest = offer.model.digest if offer.model is not None else ""
    if digest.startswith("sha256:") and offer.label != "open":
        return digest
    return f"{offer.peer}/{offer.skill.model}/{digest}"


def _speed_key(offer: Offer) -> str:
    return f"{offer.peer}@{_quality_key(offer)}"


def _newest(entries: dict[str, _E]) -> dict[str, _E]:
    return dict(sorted(entries.items(), key=lambda entry: entry[1].taken_at)[-_ENTRIES_MAX:])


def _read(file: Path) -> _Book:
    empty = _Book(edition=edition())
    try:
        kept = read_json(file)
        book = _Book.model_validate(kept) if kept is not None else empty
    except ValidationError:
        _log.warning("the marks of models were damaged; they are set aside as %s", set_aside(file).name)
        return empty
    except SetupError as error:
        _log.warning("the marks of models cannot be read: %s", error)
        return empty
    return book if book.edition == edition() else empty
