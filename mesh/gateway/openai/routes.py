"""OpenAI's routes for chat, completions and models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from monai_node.mesh.embeddings import EmbeddingModel
from monai_node.mesh.gateway.backend import ModelEntry
from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.http.stream import RunResponse
from monai_node.mesh.gateway.openai.bodies import ChatBody, CompletionBody, body_schema
from monai_node.mesh.gateway.openai.completion import Chunks, Head
from monai_node.mesh.gateway.openai.reader import ChatCall, chat_call
from monai_node.mesh.gateway.openai.text_completion import TextCall, TextChunks, completion_call
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import NotFound
from monai_node.registry.ids import new_run_id


def openai_routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1")
    started = int(time.time())

    def listed() -> list[dict[str, Any]]:
        models = model_list(site.backend.models(), started, site.hook.name if site.hook else None)
        embedding = site.backend.embedding_model()
        return models if embedding is None else [*models, _embedding(embedding, started)]

    @router.post("/chat/completions", openapi_extra=body_schema(ChatBody))
    async def create_chat_completion(request: Request) -> Response:
        traceparent = request.headers.get("traceparent")
        call = chat_call(await request.body(), new_run_id(), traceparent)
        return RunResponse(site, call.request, _chunks(call), stream=call.stream, others=call.others)

    @router.post("/completions", openapi_extra=body_schema(CompletionBody))
    async def create_completion(request: Request) -> Response:
        traceparent = request.headers.get("traceparent")
        call = completion_call(await request.body(), new_run_id(), traceparent)
        return RunResponse(site, call.request, _text_chunks(call), stream=call.stream, others=call.others)

    @router.get("/models")
    async def list_models() -> Response:
        return JsonResponse({"object": "list", "data": listed()})

    @router.get("/models/{model:path}")
    async def retrieve_model(model: str) -> Response:
        for entry in listed():
            if entry["id"] == model:
                return JsonResponse(entry)
        raise NotFound(
            f"the model {model[:200]!r} does not exist here", code="model_not_found", param="model"
        )

    return router


def model_list(entries: Sequence[ModelEntry], created: int, hook: str | None = None) -> list[dict[str, Any]]:
    """`mesh`, which chooses for itself and says whether the owner's hook stands before all, then every model
    as `alias`, then each as `alias@peer`."""
    told = {"mesh": {"hook": hook}} if hook else {}
    listed = {"mesh": {**_model("mesh", created, "mesh"), **told}}
    for entry in entries:
        listed.setdefault(entry.alias, _model(entry.alias, created, "mesh"))
    for entry in entries:
        model = _model(entry.qualified, created, entry.peer_name or entry.peer)
        listed.setdefault(entry.qualified, {**model, "mesh": entry})
    return list(listed.values())


def _head(call: ChatCall) -> Head:
    others = tuple(other.run for other in call.others)
    return Head(call.request.run, call.request.model, int(time.time()), others)


def _chunks(call: ChatCall) -> Chunks:
    return Chunks(_head(call), include_usage=call.include_usage, has_events=call.request.options.events)


def _embedding(model: EmbeddingModel, created: int) -> dict[str, Any]:
    """What makes embeddings and nothing else; no peer has it, but this gateway."""
    told = {"features": ["embeddings"], "dimensions": model.dimensions, "tokens_max": model.tokens_max}
    return {**_model(model.alias, created, "mesh"), "mesh": told}


def _text_chunks(call: TextCall) -> TextChunks:
    has_events = call.request.options.events
    return TextChunks(_head(call), call.per_prompt, include_usage=call.include_usage, has_events=has_events)


def _model(name: str, created: int, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
