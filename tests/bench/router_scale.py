"""Measure choosing a peer in a large mesh: time, memory, and what a change costs.

    python tests/bench/router_scale.py --json [--adverts N] [--skills N]

Prints one JSON line. Distinct skills of six texts (name with description, five examples) are made from the
words of the shared sets, and each is announced by several peers; every hundredth peer announces a chat
model too. Their vectors are made of random vectors of their words, so that only requests are embedded.

`decision_ms`: processor time from a text's vector to ranked candidates (`index` and `rank` apart, `both`),
and the time until the embedder has a request that it has not seen (`embedder`, `all`). `update_s`: seconds
and the longest that the event loop stood still, for everything new, for one peer that changes one skill,
and for new loads of all peers. `memory`: bytes of the vectors, and by how much the process grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from router_data import NAMES, Set, data_folder, files_of, open_stored_embedder, read_set

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.ids import PeerId
from monai_node.router.demand import Sieve, of_label
from monai_node.router.embed import Embedder, Vector, Vectors
from monai_node.router.health import Health
from monai_node.router.index import SkillIndex
from monai_node.router.offer import Offer
from monai_node.router.rank import rank
from monai_node.router.texts import cleaned
from monai_node.router.worth import Knowledge

EXAMPLES = 5
REQUESTS = 300
_CHAT_EVERY = 100
_DIMENSIONS = 384
_WORDS_SWAPPED = 0.4


class WordVectors:
    """Texts are near each other by the words they share; a request may be embedded by another."""

    fingerprint = "words"

    def __init__(self, embedder: Embedder) -> None:
        self.requests: frozenset[str] = frozenset()
        self._embedder = embedder
        self._rng = np.random.default_rng(1)
        self._vector_of: dict[str, Vector] = {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self.requests.issuperset(texts):
            return await self._embedder.embed(texts)
        sums = np.stack([sum(map(self._of, text.lower().split()), np.zeros(_DIMENSIONS)) for text in texts])
        await asyncio.sleep(0)  # as an embedder in another process would
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)

    def _of(self, word: str) -> Vector:
        if word not in self._vector_of:
            self._vector_of[word] = self._rng.standard_normal(_DIMENSIONS).astype(np.float32)
        return self._vector_of[word]


def made_skills(sets: Sequence[Set], count: int) -> list[Skill]:
    """Skills of the sets with some words of others in place of theirs: all are different."""
    rng = np.random.default_rng(0)
    cards = [skill for each in sets for skill in each.skills if len(skill.examples) >= EXAMPLES]
    words = [word for card in cards for text in card.examples for word in text.split()]

    def varied(text: str) -> str:
        mine = text.split()
        other: list[int] = rng.integers(len(words), size=len(mine)).tolist()
        swapped: list[bool] = (rng.random(len(mine)) < _WORDS_SWAPPED).tolist()
        return " ".join(
            words[at] if is_swapped else word
            for word, at, is_swapped in zip(mine, other, swapped, strict=True)
        )

    return [
        Skill(
            id=f"s{number}",
            name=f"{card.name[:100]} {number}",
            description=varied(card.description),
            examples=[f"{varied(text)} {number}" for text in card.examples[:EXAMPLES]],
        )
        for number in range(count)
        for card in [cards[number % len(cards)]]
    ]


def made_offers(skills: Sequence[Skill], adverts: int) -> list[Offer]:
    offers = [
        Offer(PeerId(f"p{number}"), f"p{number}", "trusted", skills[number % len(skills)], None, number % 3)
        for number in range(adverts)
    ]
    for number in range(0, adverts, _CHAT_EVERY):
        alias = f"chat-{number % 1000}"
        card = Skill(
            id="chat", name=f"Chat with {alias}", description="Answers", model=alias, is_general=True
        )
        model = ModelInfo(alias=alias, parameter_count=1_000_000_000 + number)
        offers.append(Offer(PeerId(f"p{number}"), f"p{number}", "trusted", card, model))
    return offers


async def timed(work: Coroutine[Any, Any, None]) -> dict[str, float]:
    """Seconds, and for how long the event loop stood still at most."""
    loop = asyncio.get_running_loop()
    started = before = loop.time()
    task, stall = asyncio.create_task(work), 0.0
    while not task.done():
        await asyncio.sleep(0.001)
        stall, before = max(stall, loop.time() - before), loop.time()
    await task
    return {"seconds": round(loop.time() - started, 3), "stall": round(stall, 3)}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{rank}": round(1000 * float(np.percentile(seconds, rank)), 2) for rank in (50, 95)}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def decisions(index: SkillIndex, texts: Sequence[str], embedder: Embedder) -> dict[str, Any]:
    """Each text is embedded first, and found in the embedder's memory then."""
    taken: dict[str, list[float]] = {"embedder": [], "index": [], "rank": []}
    demand, knowledge = of_label("trusted"), Knowledge(Health())
    for text in texts:
        started = time.perf_counter()
        await embedder.embed([cleaned(text)])
        taken["embedder"].append(time.perf_counter() - started)
        started = time.thread_time()
        sieve = Sieve(demand)
        matches = await index.match(text, sieve)
        taken["index"].append(time.thread_time() - started)
        started = time.thread_time()
        rank(matches, sieve, knowledge, 0.0)
        taken["rank"].append(time.thread_time() - started)
    columns = {part: np.array(seconds) for part, seconds in taken.items()}
    columns["both"] = columns["index"] + columns["rank"]
    columns["all"] = columns["both"] + columns["embedder"]
    return {part: percentiles(seconds.tolist()) for part, seconds in columns.items()}


async def measure(adverts: int, count: int) -> dict[str, Any]:
    sets = [read_set(*files_of(name)) for name in NAMES]
    texts = [request.text for each in sets for request in each.requests]
    places: list[int] = np.random.default_rng(2).permutation(len(texts))[:REQUESTS].tolist()
    texts = [texts[at] for at in places]
    offers = made_offers(made_skills(sets, count), adverts)
    before = resident_bytes()
    async with open_stored_embedder() as embedder:
        embedder.forget()
        words = WordVectors(embedder)
        words.requests = frozenset(map(cleaned, texts))
        index = SkillIndex(words)
        new = await timed(index.update(offers))
        grown = resident_bytes() - before
        found = await decisions(index, texts, embedder)
        first = offers[0].skill.model_copy(update={"description": "Something else altogether"})
        changed = [replace(offers[0], skill=first), *offers[1:]]
        one = await timed(index.update(changed))
        loads = await timed(index.update([replace(offer, running=9) for offer in changed]))
    return {
        "adverts": adverts,
        "skills": count,
        "texts": len(index),
        "decision_ms": found,
        "update_s": {"everything": new, "one_skill": one, "all_loads": loads},
        "memory": {"vectors": len(index) * _DIMENSIONS * 4, "process_grew": grown},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure choosing a peer at scale; prints one JSON line.")
    parser.add_argument("--json", action="store_true", help="one JSON line (the default, and only, form)")
    parser.add_argument("--adverts", type=int, default=10_000)
    parser.add_argument("--skills", type=int, default=2_000)
    options = parser.parse_args()
    line: dict[str, Any] = {
        "bench": "router_scale",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    if all(path.is_file() for name in NAMES for path in files_of(name)):
        line |= asyncio.run(measure(options.adverts, options.skills))
    else:
        line["skipped"] = f"no data in {data_folder()}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
