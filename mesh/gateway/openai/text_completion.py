"""OpenAI's older completions: raw text that one model goes on with, read into requests, and their answers.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from monai_node.agents.passthrough import MESH_MODEL
from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.http.json_io import parse_object
from monai_node.mesh.gateway.http.sse import frame
from monai_node.mesh.gateway.openai.bodies import RUNS_MAX, CompletionBody, validated
from monai_node.mesh.gateway.openai.completion import AnswerFrames, Head, mesh_of_all, usage_of, usage_of_all
from monai_node.mesh.gateway.openai.reader import ChatCall, another, traceparent_of
from monai_node.mesh.gateway.openai.sampling import sampling_of
from monai_node.mesh.gateway.said import Said
from monai_node.registry.errors import InvalidRequest, Unsupported
from monai_node.registry.events import AnswerCompleted, AnswerDelta
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage, Parameters, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class TextCall(ChatCall):
    """The runs are those of the prompts in order, `per_prompt` of each."""

    per_prompt: int = 1


def completion_call(body: bytes, run: RunId, traceparent: str | None = None) -> TextCall:
    """The call in the body of `POST /v1/completions`; InvalidRequest or Unsupported."""
    wanted = validated(CompletionBody, parse_object(body))
    _refuse_unsupported(wanted)
    prompts = _prompts(wanted)
    if len(prompts) * wanted.n > RUNS_MAX:
        raise InvalidRequest(f"at most {RUNS_MAX} answers are given to one request", param="prompt")
    values = {**sampling_of(wanted), "logprobs": wanted.logprobs, "echo": wanted.echo}
    first = RunRequest(
        run=run,
        messages=(),
        model=wanted.model,
        parameters=validated(Parameters, values),
        options=wanted.mesh,
        traceparent=traceparent_of(traceparent),
        is_completion=True,
    )
    requests = [
        replace(
            another(first, n),
            run=RunId(f"{run}-{at}-{n}") if at or n else run,
            messages=(ChatMessage(role="user", content=prompt if isinstance(prompt, str) else ""),),
            tokens=() if isinstance(prompt, str) else tuple(prompt),
        )
        for at, prompt in enumerate(prompts)
        for n in range(wanted.n)
    ]
    include_usage = bool(wanted.stream_options.include_usage)
    return TextCall(requests[0], wanted.stream, include_usage, tuple(requests[1:]), wanted.n)


def _refuse_unsupported(wanted: CompletionBody) -> None:
    if wanted.suffix:
        raise Unsupported("suffix: models here go on with a text, they fill no gap", param="suffix")
    if wanted.best_of is not None and wanted.best_of != wanted.n:
        raise Unsupported("best_of: every answer is given; ask for n of them", param="best_of")
    if isinstance(wanted.mesh.plan, list):
        raise Unsupported("a text to go on with is one task; send no plan", param="mesh.plan")


def _prompts(wanted: CompletionBody) -> list[str] | list[list[int]]:
    prompt = wanted.prompt
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequest("prompt is empty", param="prompt")
    if isinstance(prompt[0], str):
        return cast("list[str]", prompt)
    if wanted.model == MESH_MODEL:
        raise Unsupported(
            "prompt: token ids mean other words in every model; name the model that they are for",
            param="prompt",
        )
    listed = [cast("list[int]", prompt)] if isinstance(prompt[0], int) else cast("list[list[int]]", prompt)
    if not all(listed):
        raise InvalidRequest("a prompt in token ids holds none", param="prompt")
    return listed


class TextChunks(AnswerFrames):
    """The `text_completion` objects of a stream, or the one of a whole answer. The runs are those of the
    prompts in order, `per_prompt` of each."""

    def __init__(self, head: Head, per_prompt: int, *, include_usage: bool, has_events: bool) -> None:
        super().__init__(head, include_usage=include_usage, has_events=has_events)
        self._per_prompt = per_prompt
        self._chars = dict.fromkeys(head.runs, 0)

    def opening(self) -> bytes:
        return b""

    def whole(self, said: Said, *others: Said) -> dict[str, Any]:
        every = (said, *others)
        return {
            **self._base(),
            "choices": [
                self._choice(each.run, each.text, each.logprobs, finish_reason=each.done.finish_reason)
                for each in every
            ],
            "usage": usage_of(self._usage(every)),
            "mesh": mesh_of_all(every),
        }

    def _delta(self, delta: AnswerDelta) -> bytes:
        start = self._chars[delta.run]
        self._chars[delta.run] += len(delta.text)
        choice = self._choice(delta.run, delta.text, delta.logprobs, start=start)
        return frame({**self._base(), "choices": [choice], **self._told(delta)})

    def _last(self, done: AnswerCompleted, mesh: dict[str, Any]) -> bytes:
        choice = self._choice(done.run, "", (), finish_reason=done.finish_reason)
        return frame({**self._base(), "choices": [choice], "mesh": mesh})

    def _usage(self, said: Sequence[Said]) -> Usage:
        """Each prompt is read once, however many answers it has."""
        usages = [each.done.usage for each in said]
        size = self._per_prompt
        read = [usage_of_all(usages[at : at + size]) for at in range(0, len(usages), size)]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in read),
            completion_tokens=sum(usage.completion_tokens for usage in read),
        )

    def _choice(
        self,
        run: str,
        text: str,
        logprobs: Sequence[TokenLogprob],
        *,
        finish_reason: str | None = None,
        start: int = 0,
    ) -> dict[str, Any]:
        return {
            "text": text,
            "index": self._index[run],
            "logprobs": _logprobs(logprobs, start),
            "finish_reason": finish_reason,
        }

    def _base(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._head.run.removeprefix('run-')}",
            "object": "text_completion",
            "created": self._head.created,
            "model": self._head.model,
        }


def _logprobs(told: Sequence[TokenLogprob], start: int) -> dict[str, Any] | None:
    """OpenAI's older form: lists side by side. The token that stands there is among the likeliest in any
    case; offsets count the characters of this answer."""
    if not told:
        return None
    offsets = [start]
    for each in told[:-1]:
        offsets.append(offsets[-1] + len(each.token))
    tops = [
        {other.token: other.logprob for other in each.top} | {each.token: each.logprob}
        if each.top and each.logprob is not None
        else None
        for each in told
    ]
    return {
        "tokens": [each.token for each in told],
        "token_logprobs": [each.logprob for each in told],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }
