"""How likely tokens were, as told to whoever asks for logprobs."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_node.mesh.engine.llama_binding import Logits, Vocabulary

_LEAST = -9999.0  # what OpenAI says of a token that cannot come


def likelihood(vocabulary: Vocabulary, logits: Logits, token: int, count: int) -> dict[str, Any]:
    """A `wire.TokenLogprob` of `token`, with the `count` likeliest ones, in plain data.

    Log-softmax of the model's own logits, before bias, penalties, temperature and grammar, as OpenAI and
    llama-server do: what the model thinks, not with which chance it was drawn.
    """
    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    best = np.argpartition(values, -count)[-count:] if count else np.empty(0, np.intp)
    best = best[np.argsort(-values[best], kind="stable")]
    top = [_told(vocabulary, int(each), float(values[each])) for each in best]
    return {**_told(vocabulary, token, float(values[token])), "top": top}


def unlikely(vocabulary: Vocabulary, token: int) -> dict[str, Any]:
    """The same of the first token of a prompt, before which there is nothing to go by."""
    return {**_told(vocabulary, token, 0.0), "logprob": None, "top": []}


def _told(vocabulary: Vocabulary, token: int, logprob: float) -> dict[str, Any]:
    data = vocabulary.piece(token)
    text = data.decode("utf-8", "replace") or vocabulary.text_of(token)
    return {"token": text[:512], "logprob": max(logprob, _LEAST), "bytes": list(data)}
