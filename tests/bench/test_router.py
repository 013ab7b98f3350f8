"""The scoring of the router's benchmark, on a set small enough to count by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from router_arms import Found, figures, measure
from router_data import Set, StoredEmbedder, read_set, with_examples
from router_figures import auroc, calibration_error
from router_fit import halves, listed

from monai_node.router.embed import Vectors
from monai_node.router.texts import cleaned, texts_of

SKILLS: list[dict[str, Any]] = [
    {
        "id": "sums/1",
        "name": "sums",
        "description": "adds numbers",
        "examples": ["add two numbers", "sum it"],
    },
    {"id": "verse", "name": "verse", "description": "writes poems", "examples": ["write a poem"]},
    {"id": "rain", "name": "rain", "description": "tells the weather", "examples": []},
]
QUERIES: list[dict[str, Any]] = [
    {"text": "add these numbers", "gold": ["sums/1"]},
    {"text": "a poem", "gold": ["verse", "gone"]},
    {"text": "the weather of tomorrow", "gold": ["rain"]},
    {"text": "zzz", "gold": []},
]


class WordEmbedder:
    fingerprint = "words"

    def __init__(self) -> None:
        self._place_of: dict[str, int] = {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.full((len(texts), 128), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.replace(":", "").split():
                row[self._place_of.setdefault(word, len(self._place_of))] += 1
            row /= np.linalg.norm(row)
        return rows


@pytest.fixture
def whole(tmp_path: Path) -> Set:
    for name, rows in (("skills", SKILLS), ("queries", QUERIES)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_set(tmp_path / "skills", tmp_path / "queries")


def found(*ranked: int, fit: float, none: float) -> Found:
    return Found(list(ranked), fit, none, 0.001)


def test_places_and_chances_are_counted(whole: Set) -> None:
    rows = [
        found(0, 1, fit=1.0, none=0.0),
        found(2, 1, fit=0.5, none=0.0),
        found(0, 1, fit=0.5, none=0.4),
        found(0, fit=0.0, none=0.2),
    ]
    counted = figures(whole, rows)
    assert counted["top1"] == pytest.approx(100 / 3, abs=0.01)
    assert counted["top3"] == pytest.approx(200 / 3, abs=0.01)
    assert counted["mrr"] == pytest.approx((1 + 1 / 2 + 0) / 3, abs=1e-4)
    assert counted["auroc"] == pytest.approx(2 / 3, abs=1e-4)
    assert counted["ece"] == pytest.approx((0.4 + 0.8) / 4, abs=1e-4)
    assert counted["ece_fit"] == pytest.approx((0.5 + 0.5) / 4, abs=1e-4)


def test_the_bench_s_arms_agree_on_what_is_plain(whole: Set, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = asyncio.run(measure(whole, (0, None), StoredEmbedder(WordEmbedder(), {}), out))
    assert {name: arm["all"]["top1"] for name, arm in line["arms"].items()} == {
        "dense": 100,
        "sparse": 100,
        "fused": 100,
    }
    assert line["summary"]["examples"] == "all"
    rows = [json.loads(row) for row in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    assert [row["ranked"][0] for row in rows[:3]] == ["sums/1", "verse", "rain"]
    assert max(row["p_none"] for row in rows[:3]) < rows[3]["p_none"]


def test_only_so_many_examples_are_taken(whole: Set) -> None:
    counts = [[len(with_examples(skill, count).examples) for skill in whole.skills] for count in (0, 1, None)]
    assert counts == [[0, 0, 0], [1, 1, 0], [2, 1, 0]]


def test_nothing_of_one_half_is_in_the_other(whole: Set) -> None:
    first, second = halves("clinc150", whole)
    assert {skill.id for skill in first.skills} & {skill.id for skill in second.skills} == set()
    assert {skill.id for skill in (*first.skills, *second.skills)} == {skill.id for skill in whole.skills}
    assert set(first.requests) & set(second.requests) == set()


def test_a_list_knows_where_its_skills_stand(whole: Set) -> None:
    async def vectors() -> StoredEmbedder:
        embedder = StoredEmbedder(WordEmbedder(), {})
        await embedder.embed([text for skill in whole.skills for text in texts_of(skill).texts])
        await embedder.embed([cleaned(request.text) for request in whole.requests])
        return embedder

    skills = listed(whole.skills[1:], 5, asyncio.run(vectors()).vectors)
    assert skills.right(whole.requests[0]) == []
    (place,) = skills.right(whole.requests[2])
    assert skills.likeness(whole.requests[2].text).described.argmax() == place


def test_chances_that_are_frequencies_have_no_error() -> None:
    chance = np.repeat([0.25, 0.75], 4)
    is_true = np.array([1, 0, 0, 0, 1, 1, 1, 0.0])
    assert calibration_error(chance, is_true) == pytest.approx(0)
    assert calibration_error(1 - chance, is_true) == pytest.approx(0.5)
    assert auroc(chance, is_true) == pytest.approx((1 * 1.5 + 3 * (3 + 0.5)) / 16)
    assert auroc(chance, np.ones(8)) is None
