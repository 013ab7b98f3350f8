# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportPrivateImportUsage=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""llama.cpp's C interface as four typed objects: Vocabulary, Model, Adapter, Context.

Only a child process imports this: an assertion in ggml ends the process, and so do a batch longer
than `n_batch`, a token id outside the vocabulary and a freed pointer. The methods below make those
impossible; what a hostile file does is the parent's business.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from monai_node.registry.errors import SetupError, TaskFailed

_LOG_LEVEL_ERROR = 4  # ggml.h: enum ggml_log_level
_ATTRIBUTES_HIDDEN = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_PIECE_BYTES_MAX = 512
_BATCH_TOKENS = 512  # one step of prefill: what a cancel may have to wait for
_ABORTED = 2  # llama_decode: the abort flag was set
_POINTER = ctypes.POINTER

Logits = NDArray[np.float32]


class NativeLog:
    """Sends llama.cpp's errors to stderr and remembers the first one; drops the rest."""

    def __init__(self) -> None:
        self.first_error = ""  # the later ones only say that something failed
        self._callback = llama_cpp.llama_log_callback(self._take)  # kept: C holds only the pointer
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _: object) -> None:
        if level == _LOG_LEVEL_ERROR:
            line = text.decode("utf-8", "replace").strip()
            self.first_error = self.first_error or line
            sys.stderr.write(line + "\n")


class Vocabulary:
    """Text to tokens and back."""

    def __init__(self, model: Any) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES_MAX)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.bos: int = llama_cpp.llama_vocab_bos(self._vocab)
        self.eos: int = llama_cpp.llama_vocab_eos(self._vocab)
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0

    @property
    def pointer(self) -> Any:
        return self._vocab

    def text_of(self, token: int) -> str:
        """How the vocabulary writes a token, "" for none: for control tokens, not for output."""
        if not 0 <= token < self.size:
            return ""
        return (llama_cpp.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    def control_texts(self) -> list[str]:
        """The texts that become control tokens when a prompt is tokenised as a template's."""
        return [
            self.text_of(token)
            for token in range(self.size)
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & _ATTRIBUTES_HIDDEN
        ]

    def tokenise(self, text: str, *, with_controls: bool) -> list[int]:
        """Tokens of a text, nothing added; control tokens are recognised only when asked for."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 2
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = llama_cpp.llama_tokenize(self._vocab, data, len(data), tokens, room, False, with_controls)
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for in a result; control tokens stand for none."""
        known = self._pieces.get(token)
        if known is None:
            count = llama_cpp.llama_token_to_piece(
                self._vocab, token, self._buffer, _PIECE_BYTES_MAX, 0, False
            )
            known = self._pieces[token] = self._buffer.raw[: max(count, 0)]
        return known

    def is_end(self, token: int) -> bool:
        """Whether the token ends a result."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))


class Model:
    """A loaded file; freed with its process."""

    def __init__(self, path: str, n_gpu_layers: int, *, use_extra_bufts: bool) -> None:
        log = NativeLog()
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = n_gpu_layers
        options.use_extra_bufts = use_extra_bufts
        model = llama_cpp.llama_model_load_from_file(path.encode(), options)
        if not model:
            raise SetupError(f"llama.cpp refuses the file ({log.first_error[:200] or 'no reason'})")
        if llama_cpp.llama_model_has_encoder(model):
            raise SetupError("models with an encoder cannot write text here")
        self._log = log
        self.pointer: Any = model
        self.vocabulary = Vocabulary(model)
        template: bytes | None = llama_cpp.llama_model_chat_template(model, None)
        self.chat_template = (template or b"").decode("utf-8", "replace")


class Adapter:
    """A low-rank change to a model's matrices, read from a GGUF file; freed with its process."""

    def __init__(self, model: Model, path: str) -> None:
        self.pointer: Any = llama_cpp.llama_adapter_lora_init(model.pointer, path.encode())
        if not self.pointer:
            raise SetupError("llama.cpp refuses the adapter: it was made for another model")


class Context:
    """The memory of one generation: the tokens it holds, and the logits after the last one.

    `is_exact` keeps keys, values and attention in 32 bits, not 16: to compare with other implementations.
    """

    def __init__(self, model: Model, n_ctx: int, n_threads: int, *, is_exact: bool = False) -> None:
        # strlen() of this flag is 0 or 1: an abort callback that never enters Python.
        self._flag = (ctypes.c_char * 2)(b"\0", b"\0")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_seq_max = n_ctx, 1
        options.n_batch, options.n_ubatch = _BATCH_TOKENS, _BATCH_TOKENS
        options.n_threads, options.n_threads_batch = n_threads, n_threads
        options.no_perf = True
        if is_exact:
            options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        strlen = ctypes.CDLL(None).strlen
        options.abort_callback = ctypes.cast(strlen, llama_cpp.ggml_abort_callback)
        options.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        self._context = llama_cpp.llama_init_from_model(model.pointer, options)
        if not self._context:
            raise SetupError(f"there is not enough memory for a context of {n_ctx} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary_size = model.vocabulary.size
        self.n_ctx: int = llama_cpp.llama_n_ctx(self._context)
        # llama.cpp clips the batch to the context; a longer one is an abort of the process.
        self.n_batch: int = min(llama_cpp.llama_n_batch(self._context), _BATCH_TOKENS)
        self._batch = _Batch(self.n_batch)
        self.tokens: list[int] = []

    def abort(self) -> None:
        """Make a decode that runs now return early. From any thread."""
        self._flag[0] = b"\1"

    def keep(self, count: int) -> int:
        """Forget all but the first `count` tokens; how many are left: models with a recurrent state
        can only forget everything."""
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, count, -1):
            llama_cpp.llama_memory_clear(self._memory, True)
            count = 0
        del self.tokens[count:]
        return count

    def use(self, adapter: Adapter | None) -> None:
        """Compute with an adapter from now on, or without; what was computed otherwise is forgotten."""
        self.keep(0)
        many = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter.pointer) if adapter else None
        scales = (ctypes.c_float * 1)(1.0) if adapter else None
        if llama_cpp.llama_set_adapters_lora(self._context, many, 1 if adapter else 0, scales):
            raise SetupError("llama.cpp cannot use the adapter with this model")

    def decode(self, tokens: Sequence[int], *, with_logits: bool) -> bool:
        """Append up to `n_batch` tokens; False when it was aborted, with nothing appended."""
        return self._decode(tokens, int(with_logits))

    def score(self, tokens: Sequence[int], count: int) -> Logits | None:
        """Append up to `n_batch` tokens: the logits after each of the last `count` of them, in order, as
        [count, vocabulary]. None when it was aborted, with nothing appended."""
        if not self._decode(tokens, count):
            return None
        places = range(len(tokens) - count, len(tokens))
        return np.stack([self._logits(place) for place in places])

    def _decode(self, tokens: Sequence[int], logits_count: int) -> bool:
        self._batch.fill(tokens, len(self.tokens), logits_count)
        code = llama_cpp.llama_decode(self._context, self._batch.native)
        if code == 0:
            self.tokens.extend(tokens)
            return True
        self._flag[0] = b"\0"
        self.keep(len(self.tokens))
        if code == _ABORTED:
            return False
        self.keep(0)
        raise TaskFailed(f"the model could not be run (llama_decode returned {code})")

    def logits(self) -> Logits:
        """A view of the last token's logits, valid until the next decode."""
        return self._logits(-1)

    def _logits(self, place: int) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, (self._vocabulary_size,))


class _Batch:
    """One llama_batch over memory of our own, filled through numpy; a single sequence."""

    def __init__(self, size: int) -> None:
        self._token = np.zeros(size, np.int32)
        self._position = np.zeros(size, np.int32)
        self._sequence = np.zeros(size, np.int32)
        self._sequence_count = np.ones(size, np.int32)
        self._wants_logits = np.zeros(size, np.int8)
        step = np.arange(size, dtype=np.uint64) * np.uint64(self._sequence.itemsize)
        self._sequence_at = np.uint64(self._sequence.ctypes.data) + step
        self.native = llama_cpp.llama_batch()
        int32 = _POINTER(ctypes.c_int32)
        self.native.token = ctypes.cast(self._token.ctypes.data, int32)
        self.native.pos = ctypes.cast(self._position.ctypes.data, int32)
        self.native.n_seq_id = ctypes.cast(self._sequence_count.ctypes.data, int32)
        self.native.seq_id = ctypes.cast(self._sequence_at.ctypes.data, _POINTER(int32))
        self.native.logits = ctypes.cast(self._wants_logits.ctypes.data, _POINTER(ctypes.c_int8))

    def fill(self, tokens: Sequence[int], start: int, logits_count: int) -> None:
        count = len(tokens)
        self._token[:count] = tokens
        self._position[:count] = np.arange(start, start + count)
        self._wants_logits[:count] = 0
        self._wants_logits[count - logits_count : count] = 1
        self.native.n_tokens = count
