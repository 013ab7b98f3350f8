"""What is said over the socket, and what a run's events hold, for programs: an AsyncAPI 3.0 document and a
JSON Schema, both made from the models themselves."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any, Literal, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.responses import Response

from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.openai.bodies import ChatBody, RunBody
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.socket.messages import Ping, Pong, Refusal, RunCancel, RunStart
from monai_node.registry.events import RunEvent

_Model = type[BaseModel]
_Schema = dict[str, Any]

_EVENTS: tuple[_Model, ...] = get_args(get_args(RunEvent)[0])
_FROM_CLIENT: tuple[_Model, ...] = (RunStart, RunCancel, Ping)
_TO_CLIENT: tuple[_Model, ...] = (*_EVENTS, Pong, Refusal)
_BODIES: tuple[_Model, ...] = (ChatBody, RunBody)
_ABOUT = (
    "Many runs over one socket. `run.created` comes first and `seq` rises by one within a run; exactly one of"
    " `answer.completed` and `error` comes last. An `error` without `run` refuses a message."
)
_CLIENT_ID = {"type": "string", "description": "over a socket, the client's own id of the run if it gave one"}


def asyncapi_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/asyncapi.json")
    async def asyncapi(request: Request) -> Response:
        return JsonResponse(asyncapi_document(request.url.netloc, is_tls=request.url.scheme == "https"))

    @router.get("/v1/events.schema.json")
    async def events_schema() -> Response:
        return JsonResponse(schema_document())

    return router


@cache
def schema_document() -> _Schema:
    """A JSON Schema that every message of the socket and every event of a run satisfies; `RunEvent`,
    `ServerMessage` and `ClientMessage` among its `$defs` say which."""
    root = "#/$defs/"
    definitions = _definitions(root)
    definitions["RunEvent"] = {"oneOf": _references(_EVENTS, root)}
    definitions["ServerMessage"] = {"anyOf": _references(_TO_CLIENT, root)}
    definitions["ClientMessage"] = {"oneOf": _references(_FROM_CLIENT, root)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What a monai-node gateway and its clients say over /v1/ws, and the events of a run",
        "anyOf": [{"$ref": f"{root}ServerMessage"}, {"$ref": f"{root}ClientMessage"}],
        "$defs": definitions,
    }


def asyncapi_document(host: str, *, is_tls: bool = False) -> _Schema:
    """AsyncAPI 3.0, as seen from the gateway that listens at `host`: it receives what clients say."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "monai-node",
            "version": version("monai-node"),
            "description": _ABOUT,
        },
        "defaultContentType": "application/json",
        "servers": {"gateway": {"host": host, "protocol": "wss" if is_tls else "ws"}},
        "channels": {
            "socket": {
                "address": "/v1/ws",
                "messages": {
                    kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}
                    for kind in (*_FROM_CLIENT, *_TO_CLIENT)
                },
            }
        },
        "operations": {
            "receive": _operation("receive", _FROM_CLIENT),
            "send": _operation("send", _TO_CLIENT),
        },
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in (*_FROM_CLIENT, *_TO_CLIENT)},
            "schemas": _definitions("#/components/schemas/"),
        },
    }


def _operation(action: Literal["send", "receive"], kinds: tuple[_Model, ...]) -> _Schema:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/socket"},
        "messages": _references(kinds, "#/channels/socket/messages/"),
    }


def _message(kind: _Model) -> _Schema:
    (name,) = get_args(kind.model_fields["type"].annotation)
    summary = {"summary": " ".join(kind.__doc__.split())} if kind.__doc__ else {}
    return {"name": name, **summary, "payload": {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _references(kinds: tuple[_Model, ...], root: str) -> list[_Schema]:
    return [{"$ref": root + kind.__name__} for kind in kinds]


@cache
def _definitions(root: str) -> _Schema:
    """The schema of every model by name, referred to below `root`."""
    modes: dict[_Model, JsonSchemaMode] = dict.fromkeys(_TO_CLIENT, "serialization")
    modes |= dict.fromkeys((*_FROM_CLIENT, *_BODIES), "validation")
    _, found = models_json_schema(list(modes.items()), ref_template=root + "{model}")
    definitions: _Schema = found["$defs"]
    for kind in _EVENTS:
        definitions[kind.__name__]["properties"]["id"] = _CLIENT_ID
    request = definitions["RunStart"]["properties"]["request"]
    definitions["RunStart"]["properties"]["request"] = {
        "description": request["description"],
        "anyOf": _references(_BODIES, root),
    }
    return definitions
