"""What a gateway remembers on disk: how well tasks were done, and why each went where it went.

No words of a request or of an answer. The vectors of tasks, however, tell roughly what they were about
(a text can in part be read back out of its embedding), so the file is its owner's alone, as all state.
Bounded by rows, the oldest forgotten first.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast, get_args

import numpy as np
from pydantic_core import from_json, to_json

from monai_node.mesh.sqlite import Database, Migration, open_database
from monai_node.registry.ids import PeerId
from monai_node.router.embed import Vector
from monai_node.router.outcome import Ending, Outcome, Source

# About 15 MB with vectors of 384 dimensions: twice what the estimates hold in memory, so that theirs are
# there again after a start whichever they are.
OUTCOMES_MAX = 16_384
# With six candidates each about 40 MB: some days of a busy gateway, all that anybody looks back on.
DECISIONS_MAX = 10_000
DIMENSIONS_MAX = 4096

# A peer or skill is named as in its advert, a digest as its peer told it ("" for an agent). `run`, `task`
# and `attempt` mean in every table the same, which tables to come may refer to.
_OUTCOMES_AND_DECISIONS: Migration = (
    """CREATE TABLE outcomes (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,        -- wall clock, seconds
        run TEXT NOT NULL,       -- '' when it is part of none
        task TEXT NOT NULL,
        peer TEXT NOT NULL,
        skill TEXT NOT NULL,
        digest TEXT NOT NULL,
        value REAL NOT NULL,     -- 0 badly done to 1 well done
        source TEXT NOT NULL,
        embedder TEXT NOT NULL,  -- fingerprint of what made the vector, '' without one
        vector BLOB              -- float16, little-endian
    ) STRICT""",
    # Whoever rates a task again changes what was said before.
    "CREATE UNIQUE INDEX one_feedback ON outcomes (run, task) WHERE source = 'feedback'",
    """CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        run TEXT NOT NULL,
        task TEXT NOT NULL,
        attempt TEXT NOT NULL,
        peer TEXT NOT NULL,      -- that was asked
        skill TEXT NOT NULL,
        model TEXT NOT NULL,     -- '' for an agent
        candidates TEXT NOT NULL,  -- JSON: all that would have been asked, in order, with their terms
        verdict TEXT,            -- NULL from here on as long as the attempt has not ended
        error TEXT,              -- code, '' when there was none
        seconds REAL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER
    ) STRICT""",
    "CREATE UNIQUE INDEX one_attempt ON decisions (run, task, attempt)",
)

_KEEP_OUTCOME = """INSERT OR REPLACE INTO outcomes
    (at, run, task, peer, skill, digest, value, source, embedder, vector)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_OUTCOMES = "SELECT peer, skill, digest, value, source, at, embedder, vector FROM outcomes ORDER BY id"
_KEEP_DECISION = """INSERT OR REPLACE INTO decisions
    (at, run, task, attempt, peer, skill, model, candidates) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_KEEP_ENDING = """UPDATE decisions SET verdict = ?, error = ?, seconds = ?, prompt_tokens = ?,
    completion_tokens = ? WHERE run = ? AND task = ? AND attempt = ?"""
_DECISIONS = """SELECT at, run, task, attempt, peer, skill, model, candidates, verdict, error, seconds,
    prompt_tokens, completion_tokens FROM decisions"""
_FORGET = "DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?"

_SOURCES = frozenset(get_args(Source))
_INTEGER_MAX = 2**63 - 1


class Considered(TypedDict):
    """One candidate of a decision. `terms` are the parts of its place in the order, by name."""

    peer: str
    peer_name: str
    skill: str
    model: str
    tier: int
    terms: Mapping[str, float]
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """One attempt of a task: who was asked, who would have been asked next, and what came of it.

    What stands below `candidates` is known when the attempt has ended. `verdict` is a verdict's kind, ""
    when nothing was checked; `error` a code, "" when there was none. `at` is wall-clock seconds.
    """

    at: float
    run: str
    task: str
    attempt: str
    peer: str
    skill: str
    model: str
    candidates: Sequence[Considered]
    verdict: str | None = None
    error: str | None = None
    seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Store:
    """One gateway's memory. What is kept is on disk a moment later, or lost and counted when the disk is
    too slow: keeping waits for nothing. Reading raises `sqlite.Unavailable`."""

    def __init__(self, database: Database, embedder: str) -> None:
        self._database = database
        self._embedder = embedder

    def keep_outcome(self, outcome: Outcome, run: str = "", task: str = "") -> None:
        """Feedback takes the place of what was fed back on the same task of the same run before."""
        vector = outcome.vector
        if vector is not None and (vector.ndim != 1 or not 0 < len(vector) <= DIMENSIONS_MAX):
            vector = None
        self._database.write(
            _KEEP_OUTCOME,
            outcome.at,
            run,
            task,
            outcome.peer,
            outcome.skill,
            outcome.digest,
            outcome.value,
            outcome.source,
            self._embedder if vector is not None else "",
            None if vector is None else vector.astype("<f2").tobytes(),
        )
        self._database.write(_FORGET.format(table="outcomes"), OUTCOMES_MAX)

    async def outcomes(self) -> list[Outcome]:
        """All that are kept, oldest first. Those whose vectors another embedder made have none."""

        def read(connection: sqlite3.Connection) -> list[Outcome]:
            found = [self._outcome(*row) for row in connection.execute(_OUTCOMES)]
            return [outcome for outcome in found if outcome is not None]

        return await self._database.call(read)

    def keep_decision(self, decision: Decision) -> None:
        """As far as it is known when an attempt begins; `keep_ending` adds the rest."""
        self._database.write(
            _KEEP_DECISION,
            decision.at,
            decision.run,
            decision.task,
            decision.attempt,
            decision.peer,
            decision.skill,
            decision.model,
            to_json(list(decision.candidates), inf_nan_mode="null").decode(),
        )
        self._database.write(_FORGET.format(table="decisions"), DECISIONS_MAX)

    def keep_ending(self, run: str, task: str, attempt: str, ending: Ending) -> None:
        """What came of a decision that is kept."""
        self._database.write(
            _KEEP_ENDING,
            ending.verdict.kind if ending.verdict is not None else "",
            ending.code,
            ending.seconds,
            min(ending.usage.prompt_tokens, _INTEGER_MAX),
            min(ending.usage.completion_tokens, _INTEGER_MAX),
            run,
            task,
            attempt,
        )

    async def decision(self, run: str, task: str) -> list[Decision]:
        """The attempts of one task, in their order; none when it is not known, or not any more."""
        return await self._decisions("WHERE run = ? AND task = ? ORDER BY id", run, task)

    async def decisions(self, limit: int) -> list[Decision]:
        """The last ones, newest first."""
        return await self._decisions("ORDER BY id DESC LIMIT ?", max(0, limit))

    async def flush(self) -> None:
        """Return when all that was kept before is on disk, or lost and counted."""
        await self._database.flush()

    async def _decisions(self, which: str, *values: str | int) -> list[Decision]:
        def read(connection: sqlite3.Connection) -> list[Decision]:
            return [_decision(row) for row in connection.execute(f"{_DECISIONS} {which}", values)]

        return await self._database.call(read)

    def _outcome(
        self,
        peer: str,
        skill: str,
        digest: str,
        value: float,
        source: str,
        at: float,
        embedder: str,
        vector: bytes | None,
    ) -> Outcome | None:
        """None for what another version of us may have kept, and this one cannot learn from."""
        if source not in _SOURCES or not math.isfinite(at) or not 0 <= value <= 1:
            return None
        known = _vector(vector) if vector is not None and embedder == self._embedder else None
        return Outcome(PeerId(peer), skill, digest, value, cast("Source", source), at, known)


@asynccontextmanager
async def open_store(path: Path, embedder: str) -> AsyncGenerator[Store]:
    """The store in `path`, made when missing; `embedder` is the fingerprint of what makes vectors now.

    SetupError when it cannot be used, or was written by a newer version.
    """
    async with open_database(path, [_OUTCOMES_AND_DECISIONS]) as database:
        yield Store(database, embedder)


def _vector(kept: bytes) -> Vector | None:
    """Of length 1 again, which half precision misses by a little."""
    if len(kept) % 2:
        return None
    vector = np.frombuffer(kept, "<f2").astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if math.isfinite(length) and length > 0 else None


def _decision(row: Sequence[Any]) -> Decision:
    at, run, task, attempt, peer, skill, model, candidates, *ending = row
    considered = cast("list[Considered]", from_json(candidates))
    return Decision(at, run, task, attempt, peer, skill, model, considered, *ending)
