from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from monai_node.router.embed import CachedEmbedder, Vectors


class LetterEmbedder:
    """Unit vectors that differ by text; counts what it computes and waits while `gate` is closed."""

    def __init__(self) -> None:
        self.fingerprint = "letters@1"
        self.computed: list[str] = []
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.started = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        self.started.set()
        await self.gate.wait()
        self.computed.extend(texts)
        rows = np.zeros((len(texts), 256), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[ord(text[0])] = 1.0
        return rows


def rows(vectors: Vectors) -> str:
    return "".join(chr(int(at)) for at in np.argmax(vectors, axis=1))


def test_each_text_is_computed_once_and_rows_keep_their_order() -> None:
    async def run() -> None:
        inner = LetterEmbedder()
        cache = CachedEmbedder(inner)
        assert rows(await cache.embed(["b", "a", "b"])) == "bab"
        assert rows(await cache.embed(["c", "a"])) == "ca"
        assert inner.computed == ["b", "a", "c"]
        assert (await cache.embed([])).shape == (0, 256)

    asyncio.run(run())


def test_the_texts_used_least_recently_are_forgotten() -> None:
    async def run() -> None:
        inner = LetterEmbedder()
        cache = CachedEmbedder(inner, texts_max=2)
        for text in ("a", "b", "a", "c"):
            await cache.embed([text])
        assert len(cache) == 2
        await cache.embed(["a"])
        assert inner.computed == ["a", "b", "c"]
        assert rows(await cache.embed(list("wxyz"))) == "wxyz"  # more than it may remember
        assert len(cache) == 2

    asyncio.run(run())


def test_another_fingerprint_shares_no_vectors() -> None:
    async def run() -> None:
        inner = LetterEmbedder()
        cache = CachedEmbedder(inner)
        await cache.embed(["a"])
        inner.fingerprint = "letters@2"
        await cache.embed(["a"])
        assert inner.computed == ["a", "a"]

    asyncio.run(run())


def test_a_text_asked_for_twice_at_once_is_computed_once() -> None:
    async def run() -> None:
        inner = LetterEmbedder()
        inner.gate.clear()
        cache = CachedEmbedder(inner)
        both = asyncio.gather(cache.embed(["a", "b"]), cache.embed(["b", "c"]))
        await inner.started.wait()
        inner.gate.set()
        first, second = await both
        assert (rows(first), rows(second)) == ("ab", "bc")
        assert sorted(inner.computed) == ["a", "b", "c"]

    asyncio.run(run())


def test_who_waits_for_anothers_text_survives_its_cancellation() -> None:
    async def run() -> None:
        inner = LetterEmbedder()
        inner.gate.clear()
        cache = CachedEmbedder(inner)
        owner = asyncio.create_task(cache.embed(["a"]))
        await inner.started.wait()
        waiter = asyncio.create_task(cache.embed(["a"]))
        await asyncio.sleep(0)
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        inner.gate.set()
        async with asyncio.timeout(2):
            assert rows(await waiter) == "a"
        assert inner.calls == 2

    asyncio.run(run())
