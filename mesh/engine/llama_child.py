"""The child process of a GGUF model: it alone holds llama.cpp, the template and the tokenizer.

One generation runs at a time, on the main thread, in steps: a step is a piece of prefill or one
token, and each makes one message to the parent. Between steps the loop looks whether the call was
cancelled; the reader thread also interrupts a step that is being computed.
"""

from __future__ import annotations

import queue
import time
import traceback
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from monai_node.mesh.child_channel import Channel, Command
from monai_node.mesh.engine.json_schema import grammar_of
from monai_node.mesh.engine.llama_binding import Context, Model, Vocabulary
from monai_node.mesh.engine.llama_logprobs import likelihood
from monai_node.mesh.engine.llama_prompt import PromptReader
from monai_node.mesh.engine.llama_request import Asked, asked_of
from monai_node.mesh.engine.llama_sampler import Sampler, Sampling
from monai_node.mesh.engine.llama_template import Template, time_limit
from monai_node.mesh.engine.writing import Writing
from monai_node.registry.errors import MonaiError


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
        self._context = context
        self._reader = PromptReader(vocabulary, template, context)
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
        """`{text, logprobs}` for each step that showed any, then one `{finish_reason, …}`."""
        begun = time.monotonic()
        asked = asked_of(job.payload)
        prompt = self._reader.prompt_of(asked)
        writing = Writing(asked.parameters.stop, asked.use)
        with closing(Sampler(self._vocabulary, _sampling(asked), self._context.n_ctx)) as sampler:
            if not (yield from self._reader.read(prompt, asked, lambda: self._is_cancelled(job))):
                return
            prefilled = time.monotonic()
            # What another provider wrote before it was lost counts: the limit is on the whole result.
            room = self._context.n_ctx - len(prompt.tokens)
            budget = min(asked.tokens_max - prompt.shown_count, room)
            count, is_over = 0, False
            while count < budget and not is_over:
                token = sampler.choose(self._context.logits())
                if event := self._write(writing, asked, token):
                    yield event
                is_end = self._vocabulary.is_end(token)
                count += not is_end
                is_over = is_end or writing.is_over
                if count < budget and not is_over and not self._step(job, token):
                    return
        if event := writing.finish():
            yield event
        ended = time.monotonic()
        yield {
            "finish_reason": "tool_calls" if writing.calls else "stop" if is_over else "length",
            "tool_calls": writing.calls,
            "prompt_tokens": len(prompt.tokens),
            "completion_tokens": count,
            "queue_ms": (begun - job.arrived) * 1000,
            "prefill_ms": (prefilled - begun) * 1000,
            "generate_ms": (ended - prefilled) * 1000,
        }

    def _write(self, writing: Writing, asked: Asked, token: int) -> dict[str, Any] | None:
        """The event that a chosen token makes. The one that ends a result has no text; whoever compares
        the chances of whole texts wants to be told of it all the same."""
        count, vocabulary = asked.parameters.logprobs, self._vocabulary
        if vocabulary.is_end(token) and not asked.is_completion:
            return None
        told = None if count is None else likelihood(vocabulary, self._context.logits(), token, count)
        return writing.take(b"" if vocabulary.is_end(token) else vocabulary.piece(token), told)

    def _step(self, job: _Job, token: int) -> bool:
        """Decode one generated token; False when cancelled."""
        while not self._is_cancelled(job):
            if self._context.decode([token], with_logits=True):
                return True
        return False


def _sampling(asked: Asked) -> Sampling:
    parameters = asked.parameters
    grammar = ""
    if asked.schema:
        with time_limit("the JSON schema"):
            grammar = grammar_of(asked.schema)
    return Sampling(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        seed=parameters.seed,
        presence_penalty=parameters.presence_penalty,
        frequency_penalty=parameters.frequency_penalty,
        logit_bias={int(token): bias for token, bias in parameters.logit_bias.items()},
        grammar=grammar,
    )
