from __future__ import annotations

import numpy as np
import pytest

from monai_node.router import sparse
from monai_node.router.sparse import Scores, Spelling, counted


def compared(texts: list[str], text: str) -> Scores:
    return Spelling([counted(each) for each in texts]).compare(counted(text))


def test_forms_of_a_word_are_alike() -> None:
    texts = ["Transcribes speech", "Colours pictures"]
    first = compared(texts, "the transcription")
    second = compared(texts, "a coloured picture")
    assert first[0] > first[1] == 0.0
    assert second[1] > second[0]


def test_the_same_words_are_wholly_alike_however_they_are_written() -> None:
    texts = ["Transcribes speech", "Colours pictures"]
    assert compared(texts, "TRANSCRIBES\n  Speech")[0] == pytest.approx(1.0)
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "Transcribes")
    assert compared(texts, f"{wide} speech")[0] == pytest.approx(1.0)


def test_a_rare_word_says_more_than_one_that_every_text_has() -> None:
    rows = compared(["requests about rain", "requests about bread", "requests about soap"], "requests: soap")
    assert rows.argmax() == 2
    assert rows[2] > 2 * rows[0]


def test_nothing_known_is_alike_to_nothing() -> None:
    assert compared(["abc"], "").tolist() == [0.0]
    assert compared(["abc", ""], "xyz").tolist() == [0.0, 0.0]
    assert compared([], "abc").shape == (0,)


@pytest.mark.parametrize(
    "text", ["", " ", "a", "\u200b" * 9, "\ud800 x", "\ufdfa" * 100, "\x00\x1b", "é" * 999]
)
def test_any_text_can_be_counted(text: str) -> None:
    parts = counted(text)
    assert parts.parts.shape == parts.weights.shape
    assert (np.diff(parts.parts.astype(np.int64)) > 0).all()
    assert np.isfinite(compared([text, "x"], text)).all()


def test_common_parts_count_the_same_in_rows_and_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"requests about {word}" for word in ("rain", "bread", "soap", "rainbows", "")]
    in_rows = compared(texts, "a request: rain on bread")
    monkeypatch.setattr(sparse, "_COMMON_WEIGHTS_MAX", 0)
    assert compared(texts, "a request: rain on bread") == pytest.approx(in_rows)
    assert in_rows.max() > 0.3
