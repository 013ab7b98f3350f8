"""What a model reads before it writes: a request as tokens, decoded, and told again where it is echoed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from monai_node.mesh.engine.chat_template import Piece
from monai_node.mesh.engine.llama_binding import Context, Vocabulary
from monai_node.mesh.engine.llama_logprobs import likelihood, unlikely
from monai_node.mesh.engine.llama_request import Asked
from monai_node.mesh.engine.llama_template import Template
from monai_node.mesh.engine.writing import Writing
from monai_node.registry.errors import ContextLengthExceeded, InvalidRequest, TaskFailed

_PROMPT_BYTES_PER_TOKEN = 16  # more text than this per token of context is too long, unseen
# Logits of every token of a prompt: 32 rows of 150k numbers are 19 MB, and the whole takes as long as
# writing a few hundred tokens.
_TOLD_STEP_TOKENS = 32
_TOLD_TOKENS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Prompt:
    """`tokens` in order: what is echoed from `echo_start` on, if it is, and as the last `shown_count` those
    of the result's text that was shown."""

    tokens: list[int]
    echo_start: int
    shown_count: int


class PromptReader:
    """Reads prompts into one context."""

    def __init__(self, vocabulary: Vocabulary, template: Template, context: Context) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._context = context

    def prompt_of(self, asked: Asked) -> Prompt:
        """The tokens of a request. ContextLengthExceeded when there are too many, InvalidRequest for none,
        or for such as the model has not."""
        n_ctx, vocabulary = self._context.n_ctx, self._vocabulary
        pieces = self._pieces(asked)
        size = sum(len(piece.text.encode("utf-8", "replace")) for piece in pieces) + len(asked.prefix)
        if size > _PROMPT_BYTES_PER_TOKEN * n_ctx:  # tokenising it would take seconds
            raise ContextLengthExceeded(f"the request is longer than the {n_ctx} tokens possible")
        tokens = [
            token
            for piece in pieces
            for token in vocabulary.tokenise(piece.text, with_controls=piece.is_template)
        ]
        if any(token >= vocabulary.size for token in asked.tokens):
            raise InvalidRequest(f"the model has no token above {vocabulary.size - 1}", param="prompt")
        adds_bos = vocabulary.adds_bos and not asked.tokens and tokens[:1] != [vocabulary.bos]
        tokens = [vocabulary.bos] * adds_bos + tokens + asked.tokens
        shown = vocabulary.tokenise(self._after_echo(asked, tokens[adds_bos:]), with_controls=False)
        tokens += shown
        if len(tokens) >= n_ctx:
            raise ContextLengthExceeded(
                f"the request has {len(tokens)} tokens; this model's context holds {n_ctx}"
            )
        if not tokens:
            raise InvalidRequest("there is no text to go on from")
        if asked.tells_prompt and len(tokens) > _TOLD_TOKENS_MAX:
            raise InvalidRequest(
                f"logprobs are told of a prompt of {_TOLD_TOKENS_MAX} tokens at most", param="logprobs"
            )
        return Prompt(tokens, int(adds_bos), len(shown))

    def _pieces(self, asked: Asked) -> list[Piece]:
        if not asked.is_completion:
            return self._template.pieces(asked.messages, asked.use)
        return [] if asked.tokens else [Piece(asked.prompt, is_template=True)]

    def _after_echo(self, asked: Asked, echoed: list[int]) -> str:
        """What was shown of the result itself."""
        if not asked.parameters.echo or not asked.prefix:
            return asked.prefix
        text = b"".join(map(self._echo, echoed)).decode("utf-8", "replace")
        if not asked.prefix.startswith(text):
            raise TaskFailed("an echo that broke off cannot be gone on with")
        return asked.prefix.removeprefix(text)

    def _echo(self, token: int) -> bytes:
        return self._vocabulary.piece(token) or self._vocabulary.text_of(token).encode()

    # --- decoding -----------------------------------------------------------------------------------
    def read(
        self, prompt: Prompt, asked: Asked, is_cancelled: Callable[[], bool]
    ) -> Generator[dict[str, Any], None, bool]:
        """Decode the prompt, what the last request left of it first; `{text, logprobs}` of what is echoed.
        Returns False when it was cancelled."""
        echoes = asked.parameters.echo and not asked.prefix
        context, tokens = self._context, prompt.tokens
        at = context.keep(0 if asked.is_cold else _shared(context.tokens, tokens[:-1]))
        if echoes and not asked.tells_prompt:
            yield {"text": b"".join(map(self._echo, tokens[prompt.echo_start :])).decode("utf-8", "replace")}
        if echoes and asked.tells_prompt:
            return (yield from self._tell(prompt, asked, is_cancelled))
        while at < len(tokens):
            if is_cancelled():
                return False
            chunk = tokens[at : at + context.n_batch]
            if context.decode(chunk, with_logits=at + len(chunk) == len(tokens)):
                at += len(chunk)
        return True

    def _tell(
        self, prompt: Prompt, asked: Asked, is_cancelled: Callable[[], bool]
    ) -> Generator[dict[str, Any], None, bool]:
        """Decode with all logits, and tell of each token how likely it was."""
        tokens, count = prompt.tokens, asked.parameters.logprobs or 0
        writing = Writing()
        told = unlikely(self._vocabulary, tokens[0])
        at = 0
        while at < len(tokens):
            if is_cancelled():
                return False
            chunk = tokens[at : at + _TOLD_STEP_TOKENS]
            logits = self._context.score(chunk, len(chunk))
            if logits is None:
                continue
            for row, token in zip(logits, chunk, strict=True):
                if at >= prompt.echo_start and (event := writing.take(self._echo(token), told)):
                    yield event
                at += 1
                if at < len(tokens):
                    told = likelihood(self._vocabulary, row, tokens[at], count)
        if event := writing.finish():
            yield event
        return True


def _shared(held: list[int], wanted: list[int]) -> int:
    """How many tokens two lists have in common from their start."""
    for count, (one, other) in enumerate(zip(held, wanted, strict=False)):
        if one != other:
            return count
    return min(len(held), len(wanted))
