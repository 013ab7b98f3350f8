# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportPrivateImportUsage=false, reportArgumentType=false
"""Which token comes next: llama.cpp's samplers, a grammar that is asked before it is applied.

Costs that shape this (per token, vocabulary of 50k): a numpy argmax 5 µs, a chain with top_k first
60 µs, top_p over the whole vocabulary 3.8 ms, a JSON grammar over the whole vocabulary 4.6 ms but
3 µs for one candidate. So greedy is an argmax, top_k stands first, and the grammar sees the whole
vocabulary only after it has refused the candidate.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import llama_cpp
import numpy as np

from monai_node.mesh.engine.llama_binding import Logits, Vocabulary
from monai_node.registry.errors import InvalidRequest, TaskFailed

# llama.cpp's own defaults (common/common.h), but for the temperature.
_TEMPERATURE, _TOP_P, _TOP_K, _MIN_P = 0.7, 0.95, 40, 0.05
_SEED_MAX = 0xFFFFFFFE  # the value above means "random" to llama.cpp
_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asks of the sampler; None leaves the choice here."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    grammar: str = ""


class Sampler:
    """Chooses the tokens of one generation. `close` frees what C holds."""

    def __init__(self, vocabulary: Vocabulary, sampling: Sampling, n_ctx: int) -> None:
        self._candidates = np.zeros(vocabulary.size, _CANDIDATE)
        self._ids = np.arange(vocabulary.size, dtype=np.int32)
        presence, frequency = sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0
        has_penalties = presence != 0.0 or frequency != 0.0
        is_greedy = sampling.temperature == 0.0
        self._is_argmax = is_greedy and not has_penalties and not sampling.logit_bias
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if sampling.logit_bias:
            self._add_biases(vocabulary, sampling.logit_bias)
        if has_penalties:
            self._add(
                llama_cpp.llama_sampler_init_penalties(vocabulary.size, n_ctx, 1.0, frequency, presence)
            )
        if is_greedy:
            self._add(llama_cpp.llama_sampler_init_greedy())
        else:
            self._add_random(sampling)
        self._grammar: Any = None
        if sampling.grammar:
            self._grammar = self._open_grammar(vocabulary, sampling.grammar)

    def _add(self, link: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self._chain, link)

    def _add_biases(self, vocabulary: Vocabulary, biases: Mapping[int, float]) -> None:
        kind = llama_cpp.llama_logit_bias
        known = [(token, bias) for token, bias in biases.items() if 0 <= token < vocabulary.size]
        listed = (kind * len(known))(*[kind(token, bias) for token, bias in known])
        self._add(llama_cpp.llama_sampler_init_logit_bias(vocabulary.size, len(known), listed))

    def _add_random(self, sampling: Sampling) -> None:
        temperature = _TEMPERATURE if sampling.temperature is None else sampling.temperature
        top_p = _TOP_P if sampling.top_p is None else sampling.top_p
        seed = secrets.randbelow(_SEED_MAX) if sampling.seed is None else sampling.seed
        self._add(llama_cpp.llama_sampler_init_top_k(_TOP_K))
        self._add(llama_cpp.llama_sampler_init_top_p(top_p, 1))
        self._add(llama_cpp.llama_sampler_init_min_p(_MIN_P, 1))
        self._add(llama_cpp.llama_sampler_init_temp(temperature))
        self._add(llama_cpp.llama_sampler_init_dist(min(seed & 0xFFFFFFFF, _SEED_MAX)))

    def _open_grammar(self, vocabulary: Vocabulary, grammar: str) -> Any:
        native = llama_cpp.llama_sampler_init_grammar(vocabulary.pointer, grammar.encode(), b"root")
        if not native:
            self.close()
            raise InvalidRequest("the JSON schema cannot be turned into a grammar")
        return native

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)
        if self._grammar is not None:
            llama_cpp.llama_sampler_free(self._grammar)

    def choose(self, logits: Logits) -> int:
        """The next token; TaskFailed when the model computed no numbers or no token fits."""
        token = int(logits.argmax()) if self._is_argmax else self._from_all(logits, None)
        if self._grammar is not None and not self._allows(token):
            token = self._from_all(logits, self._grammar)
        if not math.isfinite(float(logits[token])):
            raise TaskFailed("the model computes values that are not numbers: its file is damaged")
        llama_cpp.llama_sampler_accept(self._chain, token)
        if self._grammar is not None:
            llama_cpp.llama_sampler_accept(self._grammar, token)
        return token

    def _allows(self, token: int) -> bool:
        one = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(token, 1.0, 0.0))
        candidates = llama_cpp.llama_token_data_array(one, 1, -1, False)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(candidates))
        return one[0].logit == 1.0

    def _from_all(self, logits: Logits, grammar: Any) -> int:
        self._candidates["id"] = self._ids
        self._candidates["logit"] = logits
        self._candidates["p"] = 0.0
        data = ctypes.cast(self._candidates.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
        candidates = llama_cpp.llama_token_data_array(data, len(self._candidates), -1, False)
        if grammar is not None:
            llama_cpp.llama_sampler_apply(grammar, ctypes.byref(candidates))
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        chosen = candidates.data[candidates.selected]
        if grammar is not None and not math.isfinite(chosen.logit):
            raise TaskFailed("no token fits the JSON schema here")
        return int(chosen.id)
