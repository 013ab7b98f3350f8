"""Vectors kept between runs: over restarts, over a kill -9, over damage, and never more than fit."""

import asyncio
import hashlib
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from monai_node.mesh import vectors
from monai_node.mesh.vectors import open_stored_embedder
from monai_node.router.embed import Vectors

DAY = 86_400.0


class HashEmbedder:
    """A unit vector that a text alone decides; counts what it computes."""

    def __init__(self, fingerprint: str = "hash@1") -> None:
        self.fingerprint = fingerprint
        self.computed: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.computed += texts
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
        rows = [np.random.default_rng(seed).normal(size=384) for seed in seeds]
        units = [row / np.linalg.norm(row) for row in rows]
        return np.array(units, np.float32).reshape(len(texts), 384)


async def embedded(
    path: Path, texts: Sequence[str], inner: HashEmbedder | None = None, day: int = 1, vectors_max: int = 1000
) -> tuple[Vectors, list[str]]:
    """The rows of one run, and which texts it computed."""
    inner = inner or HashEmbedder()
    async with open_stored_embedder(path, inner, lambda: day * DAY, vectors_max) as stored:
        found = await stored.embed(texts)
    return found, inner.computed


def change(path: Path, statement: str, *values: bytes | int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


def test_what_one_run_computed_the_next_reads_bit_for_bit(path: Path) -> None:
    first, computed = asyncio.run(embedded(path, ["b", "a", "b"]))
    assert computed == ["b", "a"]
    again, computed = asyncio.run(embedded(path, ["a", "c", "b"]))
    assert computed == ["c"]
    assert np.array_equal(again[0], first[1])
    assert np.array_equal(again[2], first[0])
    assert np.linalg.norm(again, axis=1) == pytest.approx(1.0, abs=1e-6)
    exact = asyncio.run(HashEmbedder().embed(["a", "c", "b"]))
    assert np.einsum("ij,ij->i", again, exact).min() > 0.999999
    assert again.dtype == np.float32
    assert asyncio.run(embedded(path, []))[0].shape == (0, 384)


def test_vectors_of_another_model_are_another_models(path: Path) -> None:
    asyncio.run(embedded(path, ["a"]))
    assert asyncio.run(embedded(path, ["a"], HashEmbedder("hash@2")))[1] == ["a"]
    assert asyncio.run(embedded(path, ["a"]))[1] == []


def test_the_file_is_its_owners_alone_and_holds_no_words(path: Path) -> None:
    asyncio.run(embedded(path, ["translates invoices"]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"invoices" not in path.read_bytes()


def test_what_was_not_used_for_longest_is_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_COUNTED_EVERY", 1)
    asyncio.run(embedded(path, ["a", "b", "c"], day=1))
    asyncio.run(embedded(path, ["a"], day=2))
    assert asyncio.run(embedded(path, ["d", "e"], day=3, vectors_max=3))[1] == ["d", "e"]
    assert asyncio.run(embedded(path, ["a", "d", "e"], day=3, vectors_max=3))[1] == []
    assert asyncio.run(embedded(path, ["b"], day=3, vectors_max=3))[1] == ["b"]


def test_a_run_that_may_keep_less_begins_by_forgetting(path: Path) -> None:
    asyncio.run(embedded(path, ["a", "b", "c"]))
    asyncio.run(embedded(path, [], vectors_max=1))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM vectors").fetchone() == (1,)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 767,
        b"\0" * 768,
        b"\xff" * 768,  # not a number
        np.full(384, 0.06, "<f2").tobytes(),  # longer than 1
        np.full(384, 60_000.0, "<f2").tobytes(),
    ],
)
def test_a_row_that_is_no_unit_vector_is_computed_anew(path: Path, damage: bytes) -> None:
    first, _ = asyncio.run(embedded(path, ["a", "b"]))
    change(path, "UPDATE vectors SET vector = ? WHERE id = 1", damage)
    again, computed = asyncio.run(embedded(path, ["a", "b"]))
    assert computed == ["a"]
    assert np.array_equal(first, again)
    assert asyncio.run(embedded(path, ["a", "b"]))[1] == []


def test_a_damaged_file_is_set_aside_and_filled_anew(path: Path) -> None:
    texts = [f"text {number}" for number in range(50)]
    first, _ = asyncio.run(embedded(path, texts))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])  # all but the header
    path.write_bytes(content)
    again, computed = asyncio.run(embedded(path, texts))
    assert computed == texts
    assert np.array_equal(first, again)
    assert path.with_name("vectors.sqlite.corrupt-1").read_bytes() == content
    assert asyncio.run(embedded(path, texts))[1] == []


def test_a_file_that_another_process_holds_is_done_without(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> tuple[Vectors, Vectors]:
        inner = HashEmbedder()
        async with open_stored_embedder(path, inner, lambda: DAY) as stored:
            first = await stored.embed(["a"])
            monkeypatch.setattr(vectors, "_READ_SECONDS", 0.1)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                while_held = await stored.embed(["a"])
            assert inner.computed == ["a", "a"]
            assert "embedded anew" in caplog.text
            return first, while_held

    first, while_held = asyncio.run(scenario())
    assert np.array_equal(first, while_held)


WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from monai_node.mesh.vectors import open_stored_embedder

class Eye:
    fingerprint = "eye@1"
    async def embed(self, texts):
        rows = np.zeros((len(texts), 384), np.float32)
        for row, text in zip(rows, texts):
            row[int(text) % 384] = 1.0
        return rows

async def main():
    async with open_stored_embedder(Path(sys.argv[1]), Eye(), lambda: 0.0) as stored:
        number = int(sys.argv[2])
        while True:
            await stored.embed([str(number + step) for step in range(8)])
            number += 8
            print(number, flush=True)  # what was written before these is on disk: a call waits for it

asyncio.run(main())
"""


class Eye:
    fingerprint = "eye@1"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        assert not texts
        return np.empty((0, 384), np.float32)


def test_a_writer_that_is_killed_at_any_moment_loses_nothing_but_its_last_moments(path: Path) -> None:
    moments, reported = random.Random(3), 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(path), str(max(reported - 8, 0))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(moments.randrange(2, 60)):
                reported = int(writer.stdout.readline())
            writer.kill()

    async def read() -> Vectors:
        async with open_stored_embedder(path, Eye(), lambda: 0.0) as stored:
            return await stored.embed([str(number) for number in range(reported - 8)])

    found = asyncio.run(read())  # fails where one of them has to be computed
    assert np.array_equal(np.argmax(found, axis=1), np.arange(reported - 8) % 384)
    assert not list(path.parent.glob("*.corrupt-*"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
