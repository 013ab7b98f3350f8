"""Read the requests with gold plans, and part them into training and validation.

The split goes by a hash of the id, so that a request stays on its side when others are added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"

# 3 of 20 is about 15 %.
_VALIDATION_OF_20 = 3
# Twins: the same verbs as one task or as several. On two sides they would tell each other's answer.
_TWINS = ("ds-0710", "ds-0770")


@dataclass(frozen=True, slots=True)
class GoldTask:
    """`spans` are exact substrings of the request; `depends_on` are indices of tasks, forward ones too."""

    spans: tuple[str, ...]
    depends_on: tuple[int, ...]

    @property
    def text(self) -> str:
        return " ".join(self.spans)


@dataclass(frozen=True, slots=True)
class Gold:
    """A request and the plan that a person wrote for it. `voice` is the file that it stands in."""

    id: str
    text: str
    tasks: tuple[GoldTask, ...]
    tags: frozenset[str]
    voice: str

    @property
    def is_validation(self) -> bool:
        """Whether it may be used for measuring and stopping only, never for training."""
        if _TWINS[0] <= self.id <= _TWINS[1]:
            return False
        return hashlib.sha256(self.id.encode()).digest()[0] % 20 < _VALIDATION_OF_20


def read(folder: Path = CORPUS) -> list[Gold]:
    """Every request of the `*.jsonl` files in a folder, in the order of file names and lines."""
    return [gold for path in sorted(folder.glob("*.jsonl")) for gold in read_file(path)]


def read_file(path: Path) -> list[Gold]:
    """The requests of one file. Not by `splitlines`: a text may hold U+2028 unescaped."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_gold(json.loads(line), path.stem) for line in lines if line.strip()]


def _gold(row: dict[str, Any], voice: str) -> Gold:
    tasks = tuple(GoldTask(tuple(task["spans"]), tuple(task["depends_on"])) for task in row["tasks"])
    return Gold(row["id"], row["text"], tasks, frozenset(row["tags"]), voice)


def split(golds: Sequence[Gold]) -> tuple[list[Gold], list[Gold]]:
    """Training and validation."""
    return [gold for gold in golds if not gold.is_validation], [gold for gold in golds if gold.is_validation]


def without_voice(golds: Sequence[Gold], voice: str) -> tuple[list[Gold], list[Gold]]:
    """Training on the training half of all other voices, and the whole of one voice to measure on."""
    training = [gold for gold in golds if gold.voice != voice and not gold.is_validation]
    return training, [gold for gold in golds if gold.voice == voice]
