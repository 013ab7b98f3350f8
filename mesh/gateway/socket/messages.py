"""What a client says over `/v1/ws`, and what it is told besides the events of its runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.errors import error_body
from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.mesh.gateway.openai.bodies import validated
from monai_node.mesh.gateway.openai.reader import read_chat, read_run
from monai_node.registry.errors import InvalidRequest, MonaiError, Unsupported
from monai_node.registry.events import RunEvent
from monai_node.registry.ids import RunId
from monai_node.registry.wire import Id

# The client's own name for a run or a ping: given back as it came.
_NAME_CHARS_MAX = 128
ClientId = Annotated[str, Field(min_length=1, max_length=_NAME_CHARS_MAX, description="the client's own id")]


class _Said(BaseModel):
    """Ours alone, and so strict: what it does not know it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RunStart(_Said):
    """Begins a run; its events follow, each with this `id` if there is one."""

    type: Literal["run.start"]
    id: ClientId | None = None
    request: dict[str, Any] = Field(
        description="the body of POST /v1/chat/completions; with graph, that of POST /v1/runs"
    )


class RunCancel(_Said):
    """Ends a run of this socket: its last event is an `error` with the code `cancelled`. A run that still
    waits for its place has no events yet and is known by the client's `id` only."""

    type: Literal["run.cancel"]
    run: Id | None = None
    id: ClientId | None = None


class Ping(_Said):
    type: Literal["ping"]
    id: ClientId | None = None


ClientMessage = RunStart | RunCancel | Ping
_KINDS: dict[str, type[ClientMessage]] = {"run.start": RunStart, "run.cancel": RunCancel, "ping": Ping}


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Pong(_Told):
    """The answer to a ping."""

    type: Literal["pong"] = "pong"
    id: ClientId | None = None


class ErrorObject(_Told):
    """OpenAI's, always with its four keys."""

    message: str
    type: str
    param: str | None
    code: str


class Refusal(_Told):
    """A message of the client that was refused: nothing began. It has no `run`, unlike the `error` that
    ends one."""

    type: Literal["error"] = "error"
    id: ClientId | None = None
    status: int
    error: ErrorObject
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that is to begin; `is_plan`: its user gave the plan."""

    request: RunRequest
    is_plan: bool


def name_in(raw: dict[str, Any]) -> str | None:
    """The client's own id in a message that may be wrong otherwise: its refusal carries it."""
    name = raw.get("id")
    return name if isinstance(name, str) and 0 < len(name) <= _NAME_CHARS_MAX else None


def read_message(raw: dict[str, Any]) -> ClientMessage:
    """One message of a client; InvalidRequest when it is none."""
    kind = _KINDS.get(str(raw.get("type")))
    if kind is None:
        raise InvalidRequest(f"type should be {', '.join(_KINDS)}", param="type")
    said = validated(kind, raw)
    if isinstance(said, RunCancel) and (said.run is None) == (said.id is None):
        raise InvalidRequest("give either run or id", param="run")
    return said


def wanted_of(said: RunStart, run: RunId, traceparent: str | None) -> Wanted:
    """The run that a message asks for; InvalidRequest or Unsupported. Everything comes as events, so that
    `stream` in its request says nothing."""
    if "graph" in said.request:
        return Wanted(read_run(said.request, run, traceparent).request, is_plan=True)
    call = read_chat(said.request, run, traceparent)
    if call.others:
        raise Unsupported("n: over a socket every answer is a run of its own; start as many", param="n")
    return Wanted(call.request, is_plan=False)


def refusal_of(error: MonaiError, name: str | None = None) -> Refusal:
    return Refusal(
        id=name,
        status=error.status,
        error=ErrorObject.model_validate(error_body(error)["error"]),
        retry_after_seconds=error.retry_after_seconds,
    )


def line(said: RunEvent | Pong | Refusal, name: str | None = None) -> str:
    """What goes over the socket: an event as over HTTP, and the client's `id` of its run."""
    if name is None:
        return encode_json(said).decode()
    return encode_json({**said.model_dump(), "id": name}).decode()
