"""The child process of a GGUF model: it alone holds llama.cpp, the template and the tokenizer.

One generation runs at a time, on the main thread, in steps: a step is a piece of prefill or one
token, and each makes one message to the parent. Between steps the loop looks whether the call was
cancelled; the reader thread also interrupts a step that is being computed.
"""

from __future__ import annotations

import json
import queue
import time
import traceback
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from monai_node.mesh.child_channel import Channel, Command
from monai_node.mesh.engine.chat_template import Piece
from monai_node.mesh.engine.json_schema import grammar_of
from monai_node.mesh.engine.llama_binding import Context, Model, Vocabulary
from monai_node.mesh.engine.llama_sampler import Sampler, Sampling
from monai_node.mesh.engine.llama_template import Template, time_limit
from monai_node.mesh.engine.text_stream import TextStream
from monai_node.registry.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    MonaiError,
    Unsupported,
)
from monai_node.registry.wire import ChatMessage, Parameters

_PROMPT_BYTES_PER_TOKEN = 16  # more text than this per token of context is too long, unseen
_MAX_TOKENS_DEFAULT = 1024


def main(channel: Channel, config: dict[str, Any]) -> None:
    """Load `config["path"]`, then answer `generate` calls until the parent goes."""
    extra = config["use_extra_bufts"]
    model = Model(config["path"], config["n_gpu_layers"], use_extra_bufts=extra)
    context = Context(model, config["n_ctx"], config["n_threads"])
    engine = _Engine(channel, model.vocabulary, Template(model), context)
    channel.listen(engine.deliver)
    channel.ready({"n_ctx": context.n_ctx, "has_template": bool(model.chat_template)})
    engine.run()


@dataclass(frozen=True, slots=True)
class _Job:
    call: int
    payload: Any
    arrived: float


class _Engine:
    """Takes jobs in order. `deliver` runs in the reader thread, everything else on the main one."""

    def __init__(
        self, channel: Channel, vocabulary: Vocabulary, template: Template, context: Context
    ) -> None:
        self._channel = channel
        self._vocabulary = vocabulary
        self._template = template
        self._context = context
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._open: set[int] = set()
        self._running = 0

    def deliver(self, command: Command) -> None:
        if command.kind == "open":
            self._open.add(command.call)
            self._jobs.put(_Job(command.call, command.payload, time.monotonic()))
        elif command.call in self._open:
            self._cancelled.add(command.call)
            if command.call == self._running:
                self._context.abort()

    def run(self) -> None:
        while True:
            job = self._jobs.get()
            self._running = job.call
            try:
                self._answer(job)
            except MonaiError as error:
                self._channel.fail(job.call, error)
            except Exception as error:  # entry point: a defect costs its call, not the model
                traceback.print_exc()
                self._channel.fail(job.call, error)
            self._open.discard(job.call)
            self._cancelled.discard(job.call)

    def _answer(self, job: _Job) -> None:
        with closing(self._generate(job)) as events:
            for event in events:
                self._channel.event(job.call, event)
        self._channel.end(job.call)

    def _is_cancelled(self, job: _Job) -> bool:
        return job.call in self._cancelled

    def _generate(self, job: _Job) -> Generator[dict[str, Any], None, None]:
        """`{text}` for each step that showed any, then one `{finish_reason, …}`."""
        begun = time.monotonic()
        messages, prefix, parameters = _request(job.payload)
        prompt = self._prompt(messages, prefix, parameters.tools)
        sampler = Sampler(self._vocabulary, _sampling(parameters, job.payload["schema"]), self._context.n_ctx)
        with closing(sampler):
            if not self._prefill(job, prompt, is_cold=parameters.seed is not None):
                return
            prefilled = time.monotonic()
            room = self._context.n_ctx - len(prompt)
            # What another provider wrote before it was lost counts: the limit is on the whole result.
            shown = len(self._vocabulary.tokenise(str(job.payload["prefix"]), with_controls=False))
            budget = min((parameters.max_tokens or _MAX_TOKENS_DEFAULT) - shown, room)
            stream = TextStream(parameters.stop)
            count, finish_reason = 0, "length"
            while count < budget:
                token = sampler.choose(self._context.logits())
                if self._vocabulary.is_end(token):
                    finish_reason = "stop"
                    break
                count += 1
                if text := stream.feed(self._vocabulary.piece(token)):
                    yield {"text": text}
                if stream.is_stopped:
                    finish_reason = "stop"
                    break
                if count < budget and not self._step(job, token):
                    return
        if text := stream.finish():
            yield {"text": text}
        ended = time.monotonic()
        yield {
            "finish_reason": finish_reason,
            "prompt_tokens": len(prompt),
            "completion_tokens": count,
            "queue_ms": (begun - job.arrived) * 1000,
            "prefill_ms": (prefilled - begun) * 1000,
            "generate_ms": (ended - prefilled) * 1000,
        }

    def _prompt(self, messages: list[ChatMessage], prefix: str, tools: list[dict[str, Any]]) -> list[int]:
        n_ctx, vocabulary = self._context.n_ctx, self._vocabulary
        pieces = [*self._template.pieces(messages, tools), Piece(prefix, is_template=False)]
        size = sum(len(piece.text.encode("utf-8", "replace")) for piece in pieces)
        if size > _PROMPT_BYTES_PER_TOKEN * n_ctx:  # tokenising it would take seconds
            raise ContextLengthExceeded(f"the request is longer than the {n_ctx} tokens possible")
        tokens = [
            token
            for piece in pieces
            for token in vocabulary.tokenise(piece.text, with_controls=piece.is_template)
        ]
        if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
            tokens.insert(0, vocabulary.bos)
        if len(tokens) >= n_ctx:
            raise ContextLengthExceeded(
                f"the request has {len(tokens)} tokens; this model's context holds {n_ctx}"
            )
        if not tokens:
            raise InvalidRequest("there is no text to go on from")
        return tokens

    def _prefill(self, job: _Job, prompt: list[int], *, is_cold: bool) -> bool:
        """Decode the prompt, what the last request left of it first; False when cancelled.

        A seeded request starts cold: tokens that were decoded in other company differ in the last
        bits, and the same seed shall give the same text.
        """
        context = self._context
        shared = 0 if is_cold else _shared(context.tokens, prompt[:-1])
        at = context.keep(shared)
        while at < len(prompt):
            if self._is_cancelled(job):
                return False
            chunk = prompt[at : at + context.n_batch]
            if context.decode(chunk, with_logits=at + len(chunk) == len(prompt)):
                at += len(chunk)
        return True

    def _step(self, job: _Job, token: int) -> bool:
        """Decode one generated token; False when cancelled."""
        while not self._is_cancelled(job):
            if self._context.decode([token], with_logits=True):
                return True
        return False


def _shared(held: list[int], wanted: list[int]) -> int:
    """How many tokens two lists have in common from their start."""
    for count, (one, other) in enumerate(zip(held, wanted, strict=False)):
        if one != other:
            return count
    return min(len(held), len(wanted))


def _request(payload: Any) -> tuple[list[ChatMessage], str, Parameters]:
    """Messages to answer, text to go on after, and parameters. A last message of the assistant is
    the beginning of the result."""
    messages = [ChatMessage.model_validate(message) for message in payload["messages"]]
    parameters = Parameters.model_validate(payload["parameters"])
    parameters = parameters.model_copy(update={"tools": json.loads(payload["tools"])})
    prefix = str(payload["prefix"])
    if messages and messages[-1].role == "assistant":
        prefix = messages.pop().content + prefix
    if parameters.tool_choice not in (None, "auto", "none"):
        raise Unsupported("this model cannot be made to call a tool")
    return messages, prefix, parameters


def _sampling(parameters: Parameters, schema: str) -> Sampling:
    grammar = ""
    if schema:
        with time_limit("the JSON schema"):
            grammar = grammar_of(schema)
    return Sampling(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        seed=parameters.seed,
        presence_penalty=parameters.presence_penalty,
        frequency_penalty=parameters.frequency_penalty,
        grammar=grammar,
    )
