"""OpenAI's chat completion request, and our own bodies that look like it, read into a RunRequest. Pure.

Tolerant where OpenAI adds fields (unknown ones are ignored, null means absent), strict where a
misreading would change the answer: wrong types and bounds are a 400 that names the field, things
this mesh cannot do are a 422 that says so. `mesh` is our own object and wholly strict.

Ignored, because no answer depends on them: `user`, `metadata`, `store`, `service_tier`, `reasoning_effort`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.http.json_io import parse_object
from monai_node.mesh.gateway.openai.bodies import (
    ChatBody,
    FeedbackBody,
    Message,
    Part,
    PlanBody,
    RunBody,
    validated,
)
from monai_node.mesh.gateway.openai.sampling import chat_parameters, sampling_of
from monai_node.registry.errors import InvalidRequest, Unsupported
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage, Parameters

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Of chat messages and of response items.
_PARTS_TEXT = frozenset({"text", "refusal", "input_text", "output_text"})
_PARTS_NOT_TEXT = {
    "image_url": "an image",
    "input_image": "an image",
    "input_audio": "audio",
    "video_url": "a video",
    "file": "a file",
    "input_file": "a file",
}


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A request, and the form in which its answer is wanted; `others` are to be answered beside it, as
    further choices."""

    request: RunRequest
    stream: bool = False
    include_usage: bool = False
    others: tuple[RunRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class RunCall:
    """A plan to be carried out; `stream`: its events as they come, instead of one object at the end."""

    request: RunRequest
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user says of a run, or of one `task` of it: `rating` is 0 for bad to 1 for good."""

    run: RunId
    task: str | None
    rating: float


def chat_call(body: bytes, run: RunId, traceparent: str | None = None) -> ChatCall:
    """The call in the body of `POST /v1/chat/completions`; InvalidRequest or Unsupported."""
    return read_chat(parse_object(body), run, traceparent)


def read_chat(raw: dict[str, Any], run: RunId, traceparent: str | None = None) -> ChatCall:
    """As `chat_call`, of a body that was parsed."""
    chat = validated(ChatBody, raw)
    _refuse_unsupported(chat)
    request = RunRequest(
        run=run,
        messages=_messages(chat.messages),
        model=chat.model,
        parameters=chat_parameters(chat, raw),
        options=chat.mesh,
        traceparent=traceparent_of(traceparent),
    )
    others = tuple(another(request, n) for n in range(1, chat.n))
    return ChatCall(request, chat.stream, bool(chat.stream_options.include_usage), others)


def another(request: RunRequest, n: int) -> RunRequest:
    """The same request as a run of its own, whose answer is the `n`th beside the first: with the next seeds,
    where there is one, so that they differ."""
    seed = request.parameters.seed
    parameters = request.parameters
    if seed is not None:
        # Wrapped around: seeds are 64-bit numbers.
        parameters = parameters.model_copy(update={"seed": (seed + n + 2**63) % 2**64 - 2**63})
    return replace(request, run=RunId(f"{request.run}-{n}"), parameters=parameters)


def plan_request(body: bytes, run: RunId) -> RunRequest:
    """The request in the body of `POST /v1/plan`: a conversation in `messages`, or one `text`."""
    plan = validated(PlanBody, parse_object(body))
    messages = _conversation(plan)
    if not messages:
        raise InvalidRequest("give either messages or text", param="messages")
    return RunRequest(run=run, messages=messages, model=plan.model, options=plan.mesh)


def run_call(body: bytes, run: RunId, traceparent: str | None = None) -> RunCall:
    """The call in the body of `POST /v1/runs`: a plan, and the conversation it is for if that is known."""
    return read_run(parse_object(body), run, traceparent)


def read_run(raw: dict[str, Any], run: RunId, traceparent: str | None = None) -> RunCall:
    """As `run_call`, of a body that was parsed."""
    wanted = validated(RunBody, raw)
    if wanted.mesh.plan != "auto" or wanted.mesh.shown is not None:
        raise InvalidRequest("here the plan is given as graph and shown, not in mesh", param="mesh")
    try:
        wanted.graph.check()
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="graph") from None
    plan = {"plan": list(wanted.graph.tasks), "shown": wanted.shown}
    request = RunRequest(
        run=run,
        messages=_conversation(wanted),
        model=wanted.model,
        parameters=validated(Parameters, sampling_of(wanted)),
        options=wanted.mesh.model_copy(update=plan),
        traceparent=traceparent_of(traceparent),
    )
    return RunCall(request, wanted.stream)


def feedback_of(body: bytes) -> Feedback:
    """The rating in the body of `POST /v1/feedback`."""
    said = validated(FeedbackBody, parse_object(body))
    # A completion's id is that of its run in OpenAI's clothes.
    name = said.run.removeprefix("chatcmpl-").removeprefix("cmpl-").removeprefix("run-")
    match said.rating:
        case "up":
            rating = 1.0
        case "down":
            rating = 0.0
        case number:
            rating = float(number)
    return Feedback(RunId(f"run-{name}"), said.task, rating)


def _conversation(body: PlanBody | RunBody) -> tuple[ChatMessage, ...]:
    if body.messages is not None and body.text is not None:
        raise InvalidRequest("give either messages or text", param="messages")
    if body.text is not None:
        return (ChatMessage(role="user", content=body.text),)
    return _messages(body.messages or [])


def traceparent_of(given: str | None) -> str | None:
    """The W3C header if it is well-formed."""
    return given if _TRACEPARENT.fullmatch(given or "") else None


def _refuse_unsupported(chat: ChatBody) -> None:
    if chat.logprobs and isinstance(chat.mesh.plan, list):
        raise Unsupported(
            "logprobs: they are told of an answer by one model; send no plan with them", param="logprobs"
        )
    if chat.functions:
        raise Unsupported("functions is deprecated; use tools instead", param="functions")
    if chat.modalities != ["text"]:
        raise Unsupported("modalities: answers are text only", param="modalities")


# --- messages -------------------------------------------------------------------------------------
def _messages(messages: list[Message]) -> tuple[ChatMessage, ...]:
    return tuple(_message(message, f"messages.{n}") for n, message in enumerate(messages))


def _message(message: Message, param: str) -> ChatMessage:
    if message.content is None and not (message.role == "assistant" and message.tool_calls):
        raise InvalidRequest(f"{param}.content is missing", param=f"{param}.content")
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidRequest(f"{param}.tool_call_id is missing", param=f"{param}.tool_call_id")
    extra = message.model_dump(include={"name", "tool_calls", "tool_call_id"}, exclude_none=True)
    content = text_of(message.content, f"{param}.content")
    return ChatMessage(role=message.role, content=content, extra=extra)


def text_of(content: str | list[Part] | None, param: str) -> str:
    """The text of a message's content; Unsupported, naming `param`, for what is not text."""
    if not isinstance(content, list):
        return content or ""
    return "\n".join(_part(part, f"{param}.{n}") for n, part in enumerate(content))


def _part(part: Part, param: str) -> str:
    if part.type in _PARTS_TEXT:
        name = "refusal" if part.type == "refusal" else "text"
        text = part.refusal if name == "refusal" else part.text
        if text is None:
            raise InvalidRequest(f"{param}.{name} is missing", param=f"{param}.{name}")
        return text
    what = _PARTS_NOT_TEXT.get(part.type, f"of the type {part.type!r:.40}")
    raise Unsupported(f"{param} is {what}; only text can be read here", param=param)
