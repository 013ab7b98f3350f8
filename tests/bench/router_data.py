"""Skills and requests of the shared sets, as the router sees them, and vectors that are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_node.mesh.embedders import open_embedder
from monai_node.registry.advert import Skill
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import EXAMPLES_PER_SKILL_MAX
from monai_node.router.embed import Embedder, Vector, Vectors
from monai_node.router.offer import Offer
from monai_node.router.texts import TEXT_CHARS_MAX

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("clinc150", "metatool", "seal-tools")
_NAME_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Request:
    """A text, and the places of the skills that are right for it; none where no skill is."""

    text: str
    gold: frozenset[int]


@dataclass(frozen=True, slots=True)
class Set:
    """Skills in the order of their file, the ids that they have there, and requests."""

    skills: tuple[Skill, ...]
    ids: tuple[str, ...]
    requests: tuple[Request, ...]


def data_folder() -> Path:
    return Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench")) / "dispatch"


def files_of(name: str) -> tuple[Path, Path]:
    return data_folder() / f"{name}-skills.jsonl", data_folder() / f"{name}-queries.jsonl"


def read_set(skills: Path, queries: Path) -> Set:
    cards = _rows(skills)
    place_of = {str(card["id"]): place for place, card in enumerate(cards)}
    requests = [
        Request(str(row["text"]), frozenset(place_of.get(str(gold), -1) for gold in row["gold"]))
        for row in _rows(queries)
    ]
    return Set(tuple(map(_skill, range(len(cards)), cards)), tuple(place_of), tuple(requests))


def with_examples(skill: Skill, count: int | None) -> Skill:
    """Only the first `count` examples of it; all of them for None."""
    return skill if count is None else skill.model_copy(update={"examples": skill.examples[:count]})


def offers_of(skills: Sequence[Skill]) -> list[Offer]:
    """Each skill at a peer of its own."""
    return [Offer(PeerId(skill.id), skill.id, "trusted", skill) for skill in skills]


def place_of(skill: Skill) -> int:
    """Where in its set it stands."""
    return int(skill.id.removeprefix("s"))


def _skill(place: int, card: dict[str, Any]) -> Skill:
    """Cut to what an advert carries; its id says where it stands, and nothing else."""
    return Skill(
        id=f"s{place}",
        name=str(card["name"])[:_NAME_CHARS_MAX],
        description=str(card["description"])[:TEXT_CHARS_MAX],
        examples=[str(text)[:TEXT_CHARS_MAX] for text in card["examples"][:EXAMPLES_PER_SKILL_MAX]],
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


class StoredEmbedder:
    """An embedder that never forgets a text, and finds it again in the next run."""

    def __init__(self, embedder: Embedder, vectors: dict[str, Vector]) -> None:
        self._embedder = embedder
        self.vectors = vectors

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    def forget(self) -> None:
        """What is asked for from here on is embedded."""
        self.vectors.clear()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        new = sorted({text for text in texts if text not in self.vectors}, key=len)
        if new:
            self.vectors.update(zip(new, await self._embedder.embed(new), strict=True))
        return np.stack([self.vectors[text] for text in texts])


@asynccontextmanager
async def open_stored_embedder() -> AsyncGenerator[StoredEmbedder]:
    """The gateway's embedder; its vectors are kept in the system's folder for temporary files."""
    folder = Path(tempfile.gettempdir()) / f"monai-node-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    async with open_embedder("auto", folder) as embedder:
        path = folder / f"{hashlib.sha256(embedder.fingerprint.encode()).hexdigest()[:16]}.npz"
        stored = StoredEmbedder(embedder, _read(path))
        known = len(stored.vectors)
        yield stored
        if len(stored.vectors) > known:
            _write(path, stored.vectors)


def _read(path: Path) -> dict[str, Vector]:
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        texts = json.loads(bytes(arrays["texts"]).decode("utf-8", "surrogatepass"))
        return dict(zip(texts, arrays["vectors"], strict=True))


def _write(path: Path, vectors: dict[str, Vector]) -> None:
    texts = json.dumps(list(vectors)).encode("utf-8", "surrogatepass")
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, texts=np.frombuffer(texts, np.uint8), vectors=np.stack(list(vectors.values())))
    partial.replace(path)
