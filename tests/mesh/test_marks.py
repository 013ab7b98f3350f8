from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_node.mesh.marks import EXAMS_FILE, MARK_SECONDS_MAX, MarkBook
from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.router.offer import Offer
from monai_node.router.planners import Mark, writer_of
from monai_node.router.policy import PeerLabel

SHA = "sha256:" + "0" * 64


def offer(peer: str, digest: str = SHA, label: PeerLabel = "trusted") -> Offer:
    card = Skill(id="chat", name="chat", description="answers", model="large", is_general=True)
    return Offer(PeerId(peer), peer, label, card, ModelInfo(alias="large", digest=digest))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_marks_outlive_a_restart_and_tell_their_age(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / EXAMS_FILE
    MarkBook(file, clock).note(offer("a"), score=0.9, seconds=1.5)
    assert file.stat().st_mode & 0o777 == 0o600
    clock.now += 60
    book = MarkBook(file, clock)
    assert book.marks([offer("a"), offer("b", "")], 0.5) == {writer_of(offer("a")): Mark(0.9, 1.5, 60.0)}


def test_the_same_file_at_another_peer_needs_only_its_speed(tmp_path: Path) -> None:
    book = MarkBook(tmp_path / EXAMS_FILE, Clock())
    book.note(offer("a"), score=0.9, seconds=1.5)
    assert book.mark(offer("b"), 0.5) is None
    assert book.needs_only_speed(offer("b"), 0.5)
    book.note(offer("b"), score=None, seconds=3.0)
    assert book.mark(offer("b"), 0.5) == Mark(0.9, 3.0)
    assert book.mark(offer("a"), 0.5) == Mark(0.9, 1.5)


@pytest.mark.parametrize(("digest", "label"), [(SHA, "open"), ("quick:12", "trusted"), ("", "trusted")])
def test_a_digest_that_anybody_may_claim_counts_for_nothing(
    tmp_path: Path, digest: str, label: PeerLabel
) -> None:
    book = MarkBook(tmp_path / EXAMS_FILE, Clock())
    book.note(offer("a", digest), score=0.9, seconds=1.5)
    assert not book.needs_only_speed(offer("b", digest, label), 0.5)


def test_a_mark_is_too_old_after_a_month(tmp_path: Path) -> None:
    clock = Clock()
    book = MarkBook(tmp_path / EXAMS_FILE, clock)
    book.note(offer("a"), score=0.9, seconds=1.5)
    clock.now += MARK_SECONDS_MAX + 1
    assert book.mark(offer("a"), 0.5) is None
    assert not book.needs_only_speed(offer("a"), 0.5)


def test_an_exam_that_was_stopped_counts_while_the_local_labeller_is_as_good(tmp_path: Path) -> None:
    book = MarkBook(tmp_path / EXAMS_FILE, Clock())
    book.note(offer("a"), score=0.4, seconds=1.5, beaten_by=0.8)
    assert book.mark(offer("a"), 0.8) is not None
    assert book.mark(offer("a"), 0.9) is not None
    assert book.mark(offer("a"), 0.7) is None


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        "[]",
        '{"edition": 3}',
        '{"edition": "x", "quality": {"a": {"taken_at": 1, "score": 7}}}',
        '{"edition": "x", "speed": {"a": {"taken_at": NaN, "seconds": 1}}}',
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, damaged: str) -> None:
    file = tmp_path / EXAMS_FILE
    file.write_text(damaged)
    book = MarkBook(file, Clock())
    assert book.mark(offer("a"), 0.0) is None
    assert (tmp_path / f"{EXAMS_FILE}.corrupt-1").read_text() == damaged
    book.note(offer("a"), score=0.9, seconds=1.5)
    assert MarkBook(file, Clock()).mark(offer("a"), 0.5) is not None


def test_marks_of_another_edition_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / EXAMS_FILE
    MarkBook(file, Clock()).note(offer("a"), score=0.9, seconds=1.5)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"edition": "earlier"}))
    assert MarkBook(file, Clock()).mark(offer("a"), 0.5) is None


def test_a_folder_that_cannot_be_written_loses_nothing_but_the_file(tmp_path: Path) -> None:
    book = MarkBook(tmp_path / "missing" / EXAMS_FILE, Clock())
    book.note(offer("a"), score=0.9, seconds=1.5)
    assert book.mark(offer("a"), 0.5) is not None


def test_the_oldest_mark_makes_room_for_a_new_one(tmp_path: Path) -> None:
    file, clock = tmp_path / EXAMS_FILE, Clock()
    MarkBook(file, clock).note(offer("p0", ""), score=0.9, seconds=1.5)
    kept = json.loads(file.read_text())
    for kind in ("quality", "speed"):
        ((key, entry),) = kept[kind].items()
        kept[kind] = {key.replace("p0", f"p{at}"): entry | {"taken_at": 1e6 + at} for at in range(500)}
    file.write_text(json.dumps(kept))
    clock.now += 1_000
    book = MarkBook(file, clock)
    assert book.mark(offer("p0", ""), 0.5) is not None
    book.note(offer("new", ""), score=0.9, seconds=1.5)
    marked = book.marks([offer("p0", ""), offer("p1", ""), offer("new", "")], 0.5)
    assert [peer for peer, _ in marked] == ["p1", "new"]
