"""The labeller "lora": the bundled model with an adapter, which reads a request in one pass of llama.cpp.

It computes in the process that calls it and takes its time, so a gateway runs it in a child of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.lora_labeller import ANSWERS, Prompt, Scores, prompt_of, reading_of
from monai_node.agents.segment import Segment
from monai_node.mesh.engine.llama import has_amx
from monai_node.mesh.engine.llama_binding import Adapter, Context, Model
from monai_node.registry.errors import SetupError, TaskFailed

_N_CTX = 512  # tokens; the longest prompt of the corpus has 268
_START, _END = "<|im_start|>", "<|im_end|>"


class LoraLabeller:
    """A Labeller. Requests that are too long for it are read by the rules.

    `base` and `adapter` are GGUF files; SetupError when they do not load or do not fit each other.
    """

    def __init__(self, base: Path, adapter: Path | None, n_threads: int = 1) -> None:
        self._model = Model(str(base), 0, use_extra_bufts=not has_amx())
        self._context = Context(self._model, _N_CTX, n_threads)
        if adapter is not None:
            self._adapter = Adapter(self._model, str(adapter))
            self._context.use(self._adapter)
        self._start, self._end = self._token(_START, is_control=True), self._token(_END, is_control=True)
        self._answers = [self._token(answer) for answer in ANSWERS]

    def __call__(self, segments: Sequence[Segment]) -> Reading:
        prompt = prompt_of(segments)
        tokens = self.tokens(prompt) if prompt else []
        if prompt is None or len(tokens) > self._context.n_batch:
            return label_by_rules(segments)
        return reading_of(self.score(tokens, len(prompt.letters)), segments)

    def tokens(self, prompt: Prompt) -> list[int]:
        """The prompt as tokens; nothing in it can become a control token."""
        said = [token for piece in prompt.pieces for token in self._tokens(piece)]
        return [self._start, *said, self._end, *(self._token(letter) for letter in prompt.letters)]

    def score(self, tokens: Sequence[int], count: int) -> Scores:
        """Logits of ANSWERS after each of the last `count` tokens."""
        self._context.keep(0)
        logits = self._context.score(tokens, count)
        if logits is None:
            raise TaskFailed("the labeller was interrupted")
        return logits[:, self._answers]

    def _tokens(self, text: str) -> list[int]:
        return self._model.vocabulary.tokenise(text, with_controls=False)

    def _token(self, text: str, *, is_control: bool = False) -> int:
        tokens = self._model.vocabulary.tokenise(text, with_controls=is_control)
        if len(tokens) != 1:
            raise SetupError(f"the base writes {text!r} with {len(tokens)} tokens: use SmolLM2-135M-Instruct")
        return tokens[0]
