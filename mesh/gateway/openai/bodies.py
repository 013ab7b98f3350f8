"""The bodies that clients send, as far as they matter here, and what is wrong with one. Pure.

Names and bounds are OpenAI's (its OpenAPI document), where the wire has no tighter ones.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from monai_node.agents.graph import TASKS_MAX, TaskGraph
from monai_node.agents.request import MeshOptions
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import BIASES_MAX, LOGPROBS_MAX, MESSAGES_MAX, TOKENS_MAX, Id, TokenId

FUNCTION_NAME = r"^[a-zA-Z0-9_-]{1,64}$"
CHOICES_MAX = 8  # answers to one request: each is a run of its own
# Prompts of one request, times answers to each: all wait at one peer, which takes twice as many of a caller.
RUNS_MAX = 16
PARTS_MAX = 4096  # of all contents of a conversation, calls among them
_OPTIONS_MAX = 64
_PARAM_CHARS_MAX = 128  # a client's own key may stand in it
# Of a body with more faults than these no single one is named: a megabyte of faults takes seconds to list.
_COMPLAINTS_MAX = 1024
# pydantic names the members of a union in the path of an error; a client knows only the fields.
_UNION_MEMBERS = re.compile(r".*\[.*|str|(constrained-)?float|Tool", re.DOTALL)


class Tolerant(BaseModel):
    """A part of an OpenAI body: what is not known here is ignored, a wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Function(Tolerant):
    name: str = Field(pattern=FUNCTION_NAME)


class Tool(Tolerant):
    type: str
    function: Function | None = None

    @property
    def name(self) -> str | None:
        return self.function.name if self.function else None


class CalledFunction(Tolerant):
    name: str = Field(min_length=1, max_length=256)
    arguments: str


class ToolCall(Tolerant):
    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction


class Part(Tolerant):
    type: str
    text: str | None = None
    refusal: str | None = None


class Message(Tolerant):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(fail_fast=True)] | None = None
    name: str | None = Field(default=None, max_length=256)
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = Field(default=None, max_length=256)


class StreamOptions(Tolerant):
    include_usage: bool | None = None


class JsonSchema(Tolerant):
    name: str = Field(pattern=FUNCTION_NAME)
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Tolerant):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


def few_parts(value: object) -> Any:
    """A list of messages or items as it came; ValueError when it has more than PARTS_MAX parts, each of
    which takes as long to read as a message."""
    listed = cast("list[object]", value) if isinstance(value, list) else []
    if sum(map(_part_count, listed[:MESSAGES_MAX])) > PARTS_MAX:
        raise ValueError(f"Messages should have at most {PARTS_MAX} parts and calls in all")
    return cast("Any", value)


def _part_count(message: object) -> int:
    if not isinstance(message, dict):
        return 0
    held = cast("dict[str, object]", message)
    lists = (held.get(field) for field in ("content", "output", "tool_calls"))
    return sum(len(cast("list[object]", each)) for each in lists if isinstance(each, list))


def few(count_max: int) -> BeforeValidator:
    """Refuses a larger object before it looks at each of its fields."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(cast("dict[str, object]", value)) > count_max:
            raise ValueError(f"Object should have at most {count_max} fields")
        return cast("Any", value)

    return BeforeValidator(check)


_Messages = Annotated[list[Message], Field(min_length=1, max_length=MESSAGES_MAX), BeforeValidator(few_parts)]
_Count = Annotated[int, Field(ge=1)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Choices = Annotated[int, Field(ge=1, le=CHOICES_MAX)]
_Biases = Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], few(BIASES_MAX)]


class Addressed(Tolerant):
    """What every body of ours that asks for a run holds."""

    model: str = Field(default="mesh", min_length=1, max_length=256)
    mesh: Annotated[MeshOptions, few(_OPTIONS_MAX)] = MeshOptions()


class Sampled(Addressed):
    """How a text is to be written."""

    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: _Biases = Field(default_factory=dict[str, float])
    stream: bool = False


class ChatBody(Sampled):
    messages: _Messages
    n: _Choices = 1
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=LOGPROBS_MAX)
    stream_options: StreamOptions = StreamOptions()
    response_format: ResponseFormat | None = None
    tools: list[Tool] = Field(default_factory=list[Tool], max_length=128)
    tool_choice: str | Tool | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] = Field(default_factory=list[Any])
    modalities: Annotated[list[str], Field(fail_fast=True)] = Field(default_factory=lambda: ["text"])


_Texts = Annotated[list[str], Field(fail_fast=True)]
_Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=TOKENS_MAX, fail_fast=True)]


_Prompt = str | _Texts | _Ids | Annotated[list[_Ids], Field(fail_fast=True)]


def _few_prompts(value: object) -> Any:
    listed = cast("list[object]", value) if isinstance(value, list) else []
    if len(listed) > RUNS_MAX and not isinstance(listed[0], int):
        raise ValueError(f"Prompts should have at most {RUNS_MAX} items")
    return cast("Any", value)


class CompletionBody(Sampled):
    """`POST /v1/completions`: without `max_tokens` 16 are written, as OpenAI does."""

    prompt: Annotated[_Prompt, BeforeValidator(_few_prompts)]
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    n: _Choices = 1
    best_of: int | None = None
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=5)
    suffix: str | None = None
    stream_options: StreamOptions = StreamOptions()


class PlanBody(Addressed):
    messages: _Messages | None = None
    text: str | None = Field(default=None, min_length=1)


class RunBody(Sampled):
    """`POST /v1/runs`. Our own, and so strict: what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid")

    graph: TaskGraph = Field(description="the plan to be carried out, as `POST /v1/plan` gave it or edited")
    shown: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=TASKS_MAX,
        description="the tasks whose results make the answer; default: those that no other needs",
    )
    text: str | None = Field(default=None, min_length=1, description="the request that the plan is for")
    messages: _Messages | None = Field(default=None, description="instead of text: the conversation")


class FeedbackBody(BaseModel):
    """`POST /v1/feedback`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    run: Id = Field(description="the run that is rated: `x-mesh-run`, or the id of the chat completion")
    task: Id | None = Field(default=None, description="the one task of it that is rated; default: all")
    rating: Literal["up", "down"] | Annotated[float, Field(ge=0, le=1)] = Field(
        description="up, down, or a number from 0 for bad to 1 for good"
    )


@cache
def body_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """How an OpenAPI document describes a body that is read here and not by the framework; where it has
    `stream`, also that its answer may be one. Made once, which takes 10 ms and more: not to be changed."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions)}}
    described: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if "stream" in kind.model_fields:
        described["responses"] = {"200": {"content": {"text/event-stream": {}}}}
    return described


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A reference would be looked up from the root of the document; none of our bodies is recursive."""
    match schema:
        case {"$ref": str(name), **rest}:
            return {**_inlined(definitions[name.rpartition("/")[2]], definitions), **rest}
        case dict():
            known = cast("dict[str, Any]", schema)
            return {key: _inlined(value, definitions) for key, value in known.items()}
        case list():
            return [_inlined(value, definitions) for value in cast("list[Any]", schema)]
        case _:
            return schema


_B = TypeVar("_B", bound=BaseModel)


def validated(kind: type[_B], raw: dict[str, Any]) -> _B:
    """`raw` as a `kind`, null meaning absent; InvalidRequest that names the field otherwise."""
    present = {key: value for key, value in raw.items() if value is not None}
    try:
        return kind.model_validate(present)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> InvalidRequest:
    """The deepest complaint: of a union's members, the one that the value came closest to."""
    if error.error_count() > _COMPLAINTS_MAX:
        return InvalidRequest(f"{error.error_count()} parts of the body are wrong or not known here")
    complaints = [(_path(each), each) for each in error.errors(include_url=False, include_input=False)]
    path, complaint = max(complaints, key=lambda pair: len(pair[0]))
    param = ".".join(path)[:_PARAM_CHARS_MAX]
    if complaint["type"] == "extra_forbidden":
        takes_options = len(path) == 2 and path[0] == "mesh"
        known = f"; mesh takes {', '.join(MeshOptions.model_fields)}" if takes_options else ""
        return InvalidRequest(f"{param} is not an option{known}", param=param)
    if complaint["type"] == "missing":
        return InvalidRequest(f"{param} is missing", param=param)
    if complaint["type"] in ("model_type", "dict_type"):
        return InvalidRequest(f"{param} should be an object", param=param)
    said = complaint["msg"].removeprefix("Value error, ")
    subject, _, rest = said.partition(" should ")
    if not rest:
        return InvalidRequest(f"{param}: {subject}"[:500], param=param)
    # A union complains once for each of its members.
    others = [each["msg"].partition(" should be ")[2] for other, each in complaints if other == path]
    rest = "be " + " or ".join(dict.fromkeys(others)) if all(others) else rest
    return InvalidRequest(f"{param} should {rest}"[:500], param=param)


def _path(complaint: ErrorDetails) -> list[str]:
    *path, last = (str(part) for part in complaint["loc"])
    fields = [part for part in path if not _UNION_MEMBERS.fullmatch(part)]
    is_own_key = complaint["type"] == "extra_forbidden"  # the client's own word, whatever it is
    return [*fields, last] if is_own_key or not _UNION_MEMBERS.fullmatch(last) else fields
