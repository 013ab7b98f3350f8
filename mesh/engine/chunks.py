"""The chunks of a streamed chat completion, put together. Pure.

Written for what servers really send: usage before or after the last choice, tool calls with and
without an index, errors in the middle of a stream, and streams that simply stop.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import ValidationError

from monai_node.registry.errors import TaskFailed
from monai_node.registry.wire import (
    LOGPROBS_MAX,
    LOGPROBS_PER_DELTA_MAX,
    TEXT_CHARS_MAX,
    LikelyToken,
    TaskCompleted,
    TokenLogprob,
    Usage,
)

_TOOL_CALLS_MAX = 128


class Answer:
    """Puts the chunks of one completion together. With `tells`, each must say how likely its tokens were."""

    def __init__(self, attempt: str, alias: str, *, tells: bool = False) -> None:
        self._attempt = attempt
        self._alias = alias
        self._tells = tells
        self._finish_reason = ""
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._usage = Usage()
        self._chars = 0

    def take(self, data: str) -> tuple[str, list[TokenLogprob]]:
        """The text that a chunk adds, and what is told of its tokens; TaskFailed when it is an error or makes
        no sense."""
        chunk = json_object(data)
        if chunk.get("error"):
            raise TaskFailed(f"the model's server failed: {words_of(chunk['error'])}")
        if isinstance(chunk.get("usage"), dict):
            self._take_usage(chunk["usage"])
        match chunk.get("choices"):
            case [{**choice}, *_]:
                fields = cast(dict[str, Any], choice)
                text = self._take_choice(fields)
                return text, self._logprobs(fields, text) if self._tells else []
            case _:
                return "", []

    def _logprobs(self, choice: dict[str, Any], text: str) -> list[TokenLogprob]:
        match choice.get("logprobs"):
            case {"content": [*told]}:
                pass
            case _ if text:
                raise TaskFailed("the model's server does not tell logprobs")
            case _:
                return []
        try:
            return [_token_logprob(each) for each in told[:LOGPROBS_PER_DELTA_MAX]]
        except (ValidationError, TypeError, AttributeError):
            raise TaskFailed("the model's server sent logprobs of unknown shape") from None

    def _take_usage(self, usage: Any) -> None:
        try:
            self._usage = Usage.model_validate(usage)
        except ValidationError:
            self._usage = Usage()

    def _take_choice(self, choice: dict[str, Any]) -> str:
        self._finish_reason = str(choice.get("finish_reason") or self._finish_reason)
        match choice.get("delta"):
            case {**delta}:
                pass
            case _:
                return ""
        for call in items(delta.get("tool_calls")):
            self._take_tool_call(call)
        content = delta.get("content")
        text = content if isinstance(content, str) else ""
        self._grow(text)
        return text

    def _take_tool_call(self, part: Any) -> None:
        """Parts of one call share an index; its arguments come in pieces."""
        match part:
            case {"index": int(index), **fields} if 0 <= index < _TOOL_CALLS_MAX:
                pass
            case {**fields}:
                index = len(self._tool_calls)
            case _:
                raise TaskFailed("the model's server sent a tool call of unknown shape")
        blank = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._tool_calls.setdefault(index, blank)
        if isinstance(fields.get("id"), str) and fields["id"]:
            call["id"] = fields["id"]
        match fields.get("function"):
            case {**function}:
                for key in ("name", "arguments"):
                    piece = function.get(key)
                    if isinstance(piece, str):
                        self._grow(piece)
                        call["function"][key] += piece
            case _:
                pass

    def _grow(self, text: str) -> None:
        self._chars += len(text)
        if self._chars > TEXT_CHARS_MAX:
            raise TaskFailed(f"the result is longer than {TEXT_CHARS_MAX} characters")

    def completed(self) -> TaskCompleted:
        """The end of the answer; TaskFailed when the server did not say that it is complete."""
        match self._finish_reason:
            case "stop" | "length" | "tool_calls" as reason:
                finish_reason = "tool_calls" if self._tool_calls and reason == "stop" else reason
            case "":
                raise TaskFailed("the model's server cut the result off")
            case _:
                reason = self._finish_reason[:40]
                raise TaskFailed(f"the model's server withheld the result ({reason!r})")
        return TaskCompleted(
            attempt=self._attempt,
            finish_reason=finish_reason,
            model=self._alias,
            usage=self._usage,
            tool_calls=[self._tool_calls[index] for index in sorted(self._tool_calls)],
        )


def _token_logprob(told: dict[str, Any]) -> TokenLogprob:
    top = [LikelyToken.model_validate(each) for each in items(told.get("top_logprobs"))[:LOGPROBS_MAX]]
    return TokenLogprob.model_validate({**told, "top": top})


def json_object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TaskFailed("the model's server sent an event that is not a JSON object")
    return cast(dict[str, Any], value)


def items(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def words_of(error: Any) -> str:
    """What an error object says, in whichever of the usual shapes."""
    message: Any = cast(dict[str, Any], error).get("message") if isinstance(error, dict) else error
    return message[:300] if isinstance(message, str) and message else "no reason given"
