# pyright: reportUnknownMemberType=false
"""llama.cpp's side of an embedding model: token ids of several texts in, one mean vector a text out.

Only a child process imports this, for the reasons that llama_binding gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from monai_node.mesh.engine.llama import has_amx
from monai_node.mesh.engine.llama_binding import Model
from monai_node.mesh.minilm import batched
from monai_node.registry.errors import SetupError, TaskFailed

# Texts are computed together up to so many tokens. Measured on texts of 18 tokens, one thread, in texts a
# second: 74 with 64, 115 with 128, 121 with 256, 90 with 512, as every token is compared with all others.
BATCH_TOKENS = 256
TEXTS_MAX = 16  # computed together
# From here on ggml's flash attention works in tiles: 24 ms instead of 31 with 64 tokens, 102 instead of 203
# with 192. With fewer it takes 7 instead of 6 with 8 tokens, 45 instead of 25 with 48.
_TILED_TOKENS = 64

Vectors = NDArray[np.float32]


class Encoder:
    """A model without memory that gives the mean of its last layer over the tokens of a text.

    It computes in the process that calls it, on one thread. SetupError when the file does not load.
    """

    def __init__(self, path: Path) -> None:
        self._model = Model(str(path), 0, use_extra_bufts=not has_amx())
        self._short = _open_context(self._model, _TILED_TOKENS, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        self._long = _open_context(self._model, BATCH_TOKENS, llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED)
        self.dimensions: int = llama_cpp.llama_model_n_embd(self._model.pointer)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, (BATCH_TOKENS,))
        self._position = np.ctypeslib.as_array(self._batch.pos, (BATCH_TOKENS,))
        self._text = [self._batch.seq_id[place] for place in range(BATCH_TOKENS)]
        np.ctypeslib.as_array(self._batch.n_seq_id, (BATCH_TOKENS,))[:] = 1
        np.ctypeslib.as_array(self._batch.logits, (BATCH_TOKENS,))[:] = 1

    def __call__(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """Unit vectors [len(texts), dimensions]; each text has 1 to BATCH_TOKENS tokens. TaskFailed when
        the model cannot be run or gives no numbers."""
        found = [np.empty((0, self.dimensions), np.float32)]
        for tokens in texts:
            if not 0 < len(tokens) <= BATCH_TOKENS:
                raise ValueError(f"a text has 1 to {BATCH_TOKENS} tokens, not {len(tokens)}")
        found += [self._encode(batch) for batch in batched(texts, BATCH_TOKENS, TEXTS_MAX)]
        means = np.concatenate(found)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths) & (lengths > 0)):
            raise TaskFailed("the embedding model gave no vector for a text")
        return means / lengths

    def _encode(self, texts: Sequence[Sequence[int]]) -> Vectors:
        end = 0
        for number, tokens in enumerate(texts):
            start, end = end, end + len(tokens)
            self._token[start:end] = tokens
            self._position[start:end] = np.arange(len(tokens))
            for place in range(start, end):
                self._text[place][0] = number
        self._batch.n_tokens = end
        context = self._short if end < _TILED_TOKENS else self._long
        code = llama_cpp.llama_encode(context, self._batch)
        if code != 0:
            raise TaskFailed(f"the embedding model could not be run (llama_encode returned {code})")
        means = [llama_cpp.llama_get_embeddings_seq(context, number) for number in range(len(texts))]
        return np.stack([np.ctypeslib.as_array(mean, (self.dimensions,)) for mean in means])


def _open_context(model: Model, tokens: int, flash_attention: int) -> Any:
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_seq_max = tokens * TEXTS_MAX, TEXTS_MAX
    # A text is computed in one step or not at all: ggml aborts where n_ubatch is less than the batch.
    options.n_batch, options.n_ubatch = tokens, tokens
    options.n_threads, options.n_threads_batch = 1, 1
    options.embeddings, options.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_MEAN
    options.flash_attn_type = flash_attention
    options.no_perf = True
    context = llama_cpp.llama_init_from_model(model.pointer, options)
    if not context:
        raise SetupError("there is not enough memory for the embedder")
    return context
