"""Vectors of what peers announce, kept between runs, so that a gateway that starts again has not to embed
the whole mesh anew.

Only what was announced to everybody in the mesh: never a request, which goes past this file. Nothing but
hashes and vectors is kept, in a file that is its owner's alone.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np

from monai_node.mesh.sqlite import Database, Migration, Unavailable, open_database
from monai_node.router.embed import Embedder, Vector, Vectors, text_key

_log = logging.getLogger(__name__)

# Ten times what an index compares; with 384 dimensions about 180 MB. Those not used for longest go first.
VECTORS_MAX = 200_000
# New rows between two looks at whether there are too many, which reads an index of all of them.
_COUNTED_EVERY = 1000
# That announced texts wait for the disk before they are embedded anew.
_READ_SECONDS = 2.0
# How far the length of a kept vector is from 1, at most: rounding to 16 bits changes it by 0.0005.
_LENGTH_ERROR_MAX = 0.01
_DAY_SECONDS = 86_400

_VECTORS: Migration = (
    """CREATE TABLE vectors (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,  -- router.embed.text_key
        vector BLOB NOT NULL,      -- float16, little-endian
        used INTEGER NOT NULL      -- the day, counted from 1970
    ) STRICT""",
    "CREATE INDEX by_use ON vectors (used)",
)
_READ = "SELECT vector FROM vectors WHERE key = ?"
_USE = "UPDATE vectors SET used = ?1 WHERE key = ?2 AND used < ?1"
_KEEP = "INSERT OR REPLACE INTO vectors (key, vector, used) VALUES (?, ?, ?)"
_FORGET = """DELETE FROM vectors WHERE id IN (
    SELECT id FROM vectors ORDER BY used, id LIMIT max(0, (SELECT count(*) FROM vectors) - ?))"""


class StoredEmbedder:
    """An embedder that computes a text once and remembers it over restarts. Made by
    `open_stored_embedder`.

    Its rows are rounded to 16 bits, whether they were computed now or years ago, so that two runs compare
    with the same vectors.
    """

    def __init__(
        self, embedder: Embedder, database: Database, clock: Callable[[], float], vectors_max: int
    ) -> None:
        self._embedder = embedder
        self._database = database
        self._clock = clock
        self._vectors_max = vectors_max
        self._uncounted = 0
        self._forget()

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text; raises what the embedder raises. A disk that fails costs no more than computing
        again, and _READ_SECONDS."""
        nothing = await self._embedder.embed([])
        if not texts:
            return nothing
        keys = [text_key(self.fingerprint, text) for text in texts]
        found = await self._kept(set(keys), dimensions=nothing.shape[1])
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            rows = await self._embedder.embed(list(missing.values()))
            found |= {key: self._keep(key, row) for key, row in zip(missing, rows, strict=True)}
        return np.stack([found[key] for key in keys])

    async def _kept(self, keys: Collection[bytes], dimensions: int) -> dict[bytes, Vector]:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                packed = await self._database.call(partial(_read, keys=keys, day=self._today()))
        except (TimeoutError, Unavailable) as error:
            _log.warning("announced texts are embedded anew: %s", str(error) or "the disk is too slow")
            return {}
        found = {key: _unpacked(data, dimensions) for key, data in packed.items()}
        return {key: vector for key, vector in found.items() if vector is not None}

    def _keep(self, key: bytes, row: Vector) -> Vector:
        """The row as it will be read again."""
        data = row.astype("<f2").tobytes()
        self._database.write(_KEEP, key, data, self._today())
        self._uncounted += 1
        if self._uncounted >= _COUNTED_EVERY:
            self._forget()
        vector = _unpacked(data, len(row))
        return row if vector is None else vector

    def _forget(self) -> None:
        self._uncounted = 0
        self._database.write(_FORGET, self._vectors_max)

    def _today(self) -> int:
        return int(self._clock() // _DAY_SECONDS)


def _read(connection: sqlite3.Connection, keys: Collection[bytes], day: int) -> dict[bytes, bytes]:
    rows = [(key, connection.execute(_READ, (key,)).fetchone()) for key in keys]
    found: dict[bytes, bytes] = {key: row[0] for key, row in rows if row is not None}
    connection.executemany(_USE, [(day, key) for key in found])
    return found


def _unpacked(data: bytes, dimensions: int) -> Vector | None:
    """The unit vector; None for what is none: SQLite does not notice every damage."""
    if len(data) != 2 * dimensions:
        return None
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) <= _LENGTH_ERROR_MAX:  # NaN is neither
        return None
    return vector / np.float32(length)


@asynccontextmanager
async def open_stored_embedder(
    path: Path, embedder: Embedder, clock: Callable[[], float], vectors_max: int = VECTORS_MAX
) -> AsyncGenerator[StoredEmbedder]:
    """An embedder for announced texts that keeps their vectors in `path`, at most `vectors_max` of them and
    _COUNTED_EVERY more. `clock` gives wall-clock seconds.

    A damaged file is set aside and a new one begun. SetupError when the file cannot be used.
    """
    async with open_database(path, [_VECTORS]) as database:
        yield StoredEmbedder(embedder, database, clock, vectors_max)
