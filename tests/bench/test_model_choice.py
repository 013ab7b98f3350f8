"""The benchmark of the choice between models, on outcomes small enough to know what is right."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from model_choice import folds_of, hull_area, measure
from model_choice_rows import Row, read_rows, synthetic

from monai_node.router.embed import Vectors


def places(count: int, seed: int = 0) -> Vectors:
    """Vectors in two regions, in turn."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((2, 32)) / np.sqrt(32)
    vectors = centres[np.arange(count) % 2] + 0.6 * random.standard_normal((count, 32)) / np.sqrt(32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows_of(count: int, chances: tuple[tuple[float, float], ...]) -> list[Row]:
    """Each model's chance in the one region and in the other."""
    random = Random(1)
    return [
        Row(
            f"text {at}",
            {f"m{model}": float(random.random() < each[at % 2]) for model, each in enumerate(chances)},
            {f"m{model}": 1.0 + model for model in range(len(chances))},
            f"region {at % 2}",
        )
        for at in range(count)
    ]


def test_specialists_are_told_apart() -> None:
    found = measure(rows_of(400, ((0.9, 0.2), (0.2, 0.9), (0.6, 0.6))), places(400), folds=2, seed=0)
    arms = found["arms"]
    assert arms["knn"] > arms["best_single"] + 15
    assert arms["knn"] == pytest.approx(arms["dataset_oracle"], abs=4)
    assert found["summary"]["headroom_share"] > 0.4
    assert found["calibration_error"] < 0.1
    assert found["cost"]["area"] > found["cost"]["area_single"]


def test_where_neighbours_say_nothing_the_best_model_is_taken() -> None:
    found = measure(rows_of(400, ((0.5, 0.5), (0.5, 0.5), (0.6, 0.6))), places(400), folds=2, seed=0)
    assert found["arms"]["knn"] >= found["arms"]["best_trained"] - 1.5


def test_the_split_of_the_file_is_used_and_what_is_in_both_is_not_learnt() -> None:
    rows = rows_of(60, ((0.9, 0.1), (0.1, 0.9)))
    split = [
        Row(row.text if at else "text 59", row.score, row.cost, "", "train" if at < 40 else "test")
        for at, row in enumerate(rows)
    ]
    assert folds_of(split, 5, 0) == [(list(range(40)), list(range(40, 60)))]
    found = measure(split, places(60), folds=5, seed=0)
    assert (found["test_rows"], found["train_duplicates_removed"]) == (20, 1)
    assert found["arms"]["dataset_oracle"] is None


def test_folds_are_disjoint_and_whole() -> None:
    folds = folds_of(rows_of(23, ((0.5, 0.5),)), 5, 0)
    assert sorted(at for _, test in folds for at in test) == list(range(23))
    assert all(not set(train) & set(test) for train, test in folds)


def test_rows_are_read_in_every_spelling(tmp_path: Path) -> None:
    told = [
        {"query": "a", "score": {"x": 1, "y": 0.5}, "cost": {"x": 2}},
        {"text": "b", "scores": {"x": True}, "costs": {"x": 0.1}, "dataset": "d", "split": "test"},
        {"query": "c", "score": [{"model": "x", "score": 7, "cost": 3}, {"model": "y", "score": None}]},
        {"query": "no score"},
        {"query": "nan", "score": {"x": float("nan")}},
    ]
    lines, listed = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    lines.write_text("\n".join(map(json.dumps, told)) + "\n")
    listed.write_text(json.dumps(told))
    rows = read_rows(lines)
    assert rows == read_rows(listed)
    assert [(row.text, row.score, row.cost) for row in rows] == [
        ("a", {"x": 1.0, "y": 0.5}, {"x": 2.0}),
        ("b", {"x": 1.0}, {"x": 0.1}),
        ("c", {"x": 1.0}, {"x": 3.0}),
    ]
    assert (rows[1].dataset, rows[1].split) == ("d", "test")
    lines.write_text('{"query": "no score"}')
    with pytest.raises(ValueError, match="no row"):
        read_rows(lines)


def test_the_area_under_a_hull() -> None:
    assert hull_area([(0.0, 0.5), (1.0, 1.0)], 0.0, 1.0) == pytest.approx(0.75, abs=0.001)
    assert hull_area([(0.0, 0.5), (0.5, 0.6), (1.0, 1.0)], 0.0, 1.0) == pytest.approx(0.75, abs=0.001)
    assert hull_area([(0.0, 0.5), (1.0, 0.4)], 0.0, 1.0) == pytest.approx(0.5, abs=0.001)


def test_made_up_outcomes_follow_the_seed() -> None:
    texts, vectors = [f"text {at}" for at in range(50)], places(50)
    first = synthetic(texts, vectors, models=3, spread=0.1, seed=4)
    assert first == synthetic(texts, vectors, models=3, spread=0.1, seed=4)
    assert {len(row.score) for row in first} == {3}
