"""The body of `POST /v1/responses`, read into a request and the form of its answer. Pure.

Tolerant and strict as the chat reader is. Also taken are chat's sampling fields that OpenAI has not for
responses. Ignored, because no answer depends on them: `include`, `reasoning`, `truncation`, `user`,
`service_tier`, `max_tool_calls`, `text.verbosity` and the fields about caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.http.json_io import parse_object
from monai_node.mesh.gateway.openai.bodies import FUNCTION_NAME, Sampled, Tolerant, few, few_parts, validated
from monai_node.mesh.gateway.openai.reader import traceparent_of
from monai_node.mesh.gateway.openai.sampling import checked_schema, sampling_of
from monai_node.mesh.gateway.openai.tools import tool_choice_of, tools_of
from monai_node.mesh.gateway.responses.items import Item, ItemObject, items_of, messages_of
from monai_node.registry.errors import InvalidRequest, Unsupported
from monai_node.registry.ids import RunId
from monai_node.registry.wire import MESSAGES_MAX, Parameters

# OpenAI's bounds for metadata.
_METADATA_MAX = 16
_MetadataKey = Annotated[str, Field(max_length=64)]
_MetadataValue = Annotated[str, Field(max_length=512)]
_ELSEWHERE = ("conversation", "prompt", "context_management", "moderation")  # state that OpenAI holds


class ResponseTool(Tolerant):
    type: str
    name: str | None = Field(default=None, pattern=FUNCTION_NAME)


class TextFormat(Tolerant):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(default=None, pattern=FUNCTION_NAME)
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseText(Tolerant):
    format: TextFormat = TextFormat(type="text")


class ResponseBody(Sampled):
    input: Annotated[
        str | Annotated[list[Item], Field(max_length=MESSAGES_MAX, fail_fast=True)],
        BeforeValidator(few_parts),
    ]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    tools: list[ResponseTool] = Field(default_factory=list[ResponseTool], max_length=128)
    tool_choice: str | ResponseTool = "auto"
    text: ResponseText = ResponseText()
    store: bool = True
    background: bool = False
    previous_response_id: str | None = Field(default=None, min_length=1, max_length=128)
    metadata: Annotated[dict[_MetadataKey, _MetadataValue], few(_METADATA_MAX)] = Field(default={})
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"


class KeptItems(Protocol):
    """What earlier responses of the same caller left here."""

    def conversation(self, response_id: str) -> tuple[ItemObject, ...]:
        """All items up to the end of that response; NotFound."""
        ...

    def item(self, item_id: str) -> ItemObject | None: ...


@dataclass(frozen=True, slots=True)
class ResponseCall:
    """A request, and how its answer is wanted. `shown` are the fields of the answer that the request
    decides, `given` its items."""

    request: RunRequest
    shown: dict[str, Any]
    given: tuple[ItemObject, ...]
    stream: bool
    store: bool
    background: bool


def response_call(body: bytes, run: RunId, kept: KeptItems, traceparent: str | None = None) -> ResponseCall:
    """The call in the body; InvalidRequest, Unsupported, or NotFound for what is not kept."""
    raw = parse_object(body)
    _refuse_unsupported(raw)
    wanted = validated(ResponseBody, raw)
    if wanted.background and not wanted.store:
        raise InvalidRequest("background needs store: nobody could ask for the answer", param="background")
    previous = wanted.previous_response_id
    before = kept.conversation(previous) if previous else ()
    given = tuple(items_of(wanted.input, f"msg_{run.removeprefix('run-')}", kept.item))
    tools = _tools(wanted, raw)
    request = RunRequest(
        run=run,
        messages=messages_of(wanted.instructions, (*before, *given)),
        model=wanted.model,
        parameters=_parameters(wanted, tools),
        options=wanted.mesh,
        traceparent=traceparent_of(traceparent),
    )
    return ResponseCall(
        request=request,
        shown=_shown(wanted, tools),
        given=given,
        stream=wanted.stream,
        store=wanted.store,
        background=wanted.background,
    )


def _refuse_unsupported(raw: dict[str, Any]) -> None:
    for name in _ELSEWHERE:
        if raw.get(name):
            raise Unsupported(f"{name} is not kept here; send the items in input", param=name)


# --- parameters -----------------------------------------------------------------------------------
def _parameters(wanted: ResponseBody, tools: list[dict[str, Any]]) -> Parameters:
    limited = wanted.model_copy(update={"max_completion_tokens": wanted.max_output_tokens})
    functions = [
        {
            "type": "function",
            "function": {name: tool[name] for name in tool if name != "type" and tool[name] is not None},
        }
        for tool in tools
    ]
    values = {
        **sampling_of(limited if wanted.max_output_tokens else wanted),
        "json_schema": _json_schema(wanted.text.format),
        "tools": functions,
        "tool_choice": tool_choice_of(wanted.tool_choice, wanted.tools),
        "parallel_tool_calls": False if tools and not wanted.parallel_tool_calls else None,
    }
    return validated(Parameters, values)


def _json_schema(wanted: TextFormat) -> dict[str, Any] | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    for field, value in (("name", wanted.name), ("schema", wanted.schema_)):
        if value is None:
            raise InvalidRequest(f"text.format.{field} is missing", param=f"text.format.{field}")
    return checked_schema(wanted.schema_ or {"type": "object"}, "text.format.schema")


def _tools(wanted: ResponseBody, raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions, each with the fields that OpenAI shows; the schemas as the client wrote them."""
    tools = tools_of(wanted.tools, raw, "name")
    fields = ("type", "name", "description", "parameters", "strict")
    return [{field: tool.get(field) for field in fields} for tool in tools]


# --- what the answer repeats ------------------------------------------------------------------------
def _shown(wanted: ResponseBody, tools: list[dict[str, Any]]) -> dict[str, Any]:
    """What was not asked for is null where the model decides, and OpenAI's default elsewhere."""
    choice = wanted.tool_choice
    if isinstance(choice, ResponseTool):
        choice = {"type": choice.type, "name": choice.name}
    return {
        "background": wanted.background,
        "instructions": wanted.instructions,
        "max_output_tokens": wanted.max_output_tokens,
        "max_tool_calls": None,
        "metadata": wanted.metadata,
        "model": wanted.model,
        "parallel_tool_calls": wanted.parallel_tool_calls,
        "presence_penalty": wanted.presence_penalty or 0.0,
        "frequency_penalty": wanted.frequency_penalty or 0.0,
        "previous_response_id": wanted.previous_response_id,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": wanted.store,
        "temperature": wanted.temperature,
        "text": {"format": wanted.text.format.model_dump(by_alias=True, exclude_none=True)},
        "tool_choice": choice,
        "tools": tools,
        "top_logprobs": 0,
        "top_p": wanted.top_p,
        "truncation": wanted.truncation,
    }
