"""OpenAI's chat completion request, and our own bodies that look like it, read into a RunRequest. Pure.

Tolerant where OpenAI adds fields (unknown ones are ignored, null means absent), strict where a
misreading would change the answer: wrong types and bounds are a 400 that names the field, things
this mesh cannot do are a 422 that says so. `mesh` is our own object and wholly strict.

Ignored, because no answer depends on them: `user`, `metadata`, `store`, `service_tier`,
`parallel_tool_calls`, `reasoning_effort`; and `logit_bias`, since a token id means another word in
every model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.bodies import (
    ChatBody,
    FeedbackBody,
    Message,
    Part,
    PlanBody,
    ResponseFormat,
    RunBody,
    Sampled,
    Tool,
    validated,
)
from monai_node.mesh.gateway.json_io import check_plain, encode_json, parse_object
from monai_node.registry.errors import InvalidRequest, Unsupported
from monai_node.registry.ids import RunId
from monai_node.registry.wire import (
    SCHEMA_BYTES_MAX,
    TOKENS_MAX,
    ChatMessage,
    Parameters,
)

# OpenAI accepts top_p = 0 and means the likeliest token; engines want a mass above zero.
_TOP_P_MIN = 1e-6
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
    """A request, and the form in which its answer is wanted."""

    request: RunRequest
    stream: bool = False
    include_usage: bool = False


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
        parameters=_parameters(chat, raw),
        options=chat.mesh,
        traceparent=traceparent_of(traceparent),
    )
    return ChatCall(request, chat.stream, bool(chat.stream_options.include_usage))


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
    name = said.run.removeprefix("chatcmpl-").removeprefix("run-")
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
    if chat.n > 1:
        raise Unsupported("n: one answer per request is given; send n requests instead", param="n")
    if chat.logprobs:
        raise Unsupported(
            "logprobs: several models may write one answer; their probabilities are not passed on",
            param="logprobs",
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


# --- parameters -----------------------------------------------------------------------------------
def _parameters(chat: ChatBody, raw: dict[str, Any]) -> Parameters:
    values = {
        **sampling_of(chat),
        "json_schema": _json_schema(chat.response_format),
        "tools": _tools(chat, raw),
        "tool_choice": _tool_choice(chat),
    }
    return validated(Parameters, values)


def sampling_of(body: Sampled) -> dict[str, Any]:
    """The fields of Parameters that say how a text is written."""
    limit = body.max_completion_tokens or body.max_tokens
    top_p = body.top_p
    return {
        # A limit, not a wish: one above what any engine allows is met by the engine's own.
        "max_tokens": None if limit is None else min(limit, TOKENS_MAX),
        "temperature": body.temperature,
        "top_p": None if top_p is None else max(top_p, _TOP_P_MIN),
        "seed": body.seed,
        "stop": _stop(body.stop),
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
    }


def _stop(stop: str | list[str] | None) -> list[str]:
    """Empty strings, which some clients send for none, would stop before the first token."""
    listed = [stop] if isinstance(stop, str) else stop or []
    return [text for text in listed if text]


def _json_schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    param = "response_format.json_schema"
    if wanted.json_schema is None:
        raise InvalidRequest(f"{param} is missing", param=param)
    return checked_schema(wanted.json_schema.schema_ or {"type": "object"}, f"{param}.schema")


def checked_schema(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """`schema`, if it is one that a peer can be sent; InvalidRequest that names `param` otherwise."""
    check_plain(schema, param)
    if len(encode_json(schema)) > SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"{param} is larger than {SCHEMA_BYTES_MAX} bytes", param=param)
    return schema


def _tools(chat: ChatBody, raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools as the client wrote them: what a schema may hold is the model's business."""
    for n, tool in enumerate(chat.tools):
        param = f"tools.{n}"
        if tool.type != "function":
            raise Unsupported(f"{param}: only tools of the type function are known", param=param)
        if tool.function is None:
            raise InvalidRequest(f"{param}.function is missing", param=f"{param}.function")
    tools = cast("list[dict[str, Any]]", raw.get("tools") or [])
    check_plain(tools, "tools")
    return tools


def _tool_choice(chat: ChatBody) -> str | dict[str, Any] | None:
    choice, names = chat.tool_choice, {tool.function.name for tool in chat.tools if tool.function}
    if isinstance(choice, Tool):
        if choice.type != "function" or choice.function is None:
            raise Unsupported("tool_choice: only a function can be chosen", param="tool_choice")
        if choice.function.name not in names:
            raise _bad_choice("names a tool that is not in tools")
        return {"type": "function", "function": {"name": choice.function.name}}
    if choice not in (None, "none", "auto", "required"):
        raise _bad_choice("should be none, auto, required or a function")
    if choice == "required" and not names:
        raise _bad_choice("is required but there are no tools")
    return choice if names else None


def _bad_choice(why: str) -> InvalidRequest:
    return InvalidRequest(f"tool_choice {why}", param="tool_choice")
