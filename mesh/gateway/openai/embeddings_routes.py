"""OpenAI's route for embeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from monai_node.agents.passthrough import MESH_MODEL
from monai_node.mesh.embeddings import EmbeddingModel
from monai_node.mesh.gateway.caller import caller_of
from monai_node.mesh.gateway.http.asgi import while_connected
from monai_node.mesh.gateway.openai.bodies import body_schema
from monai_node.mesh.gateway.openai.embeddings import (
    EmbeddingBody,
    embedding_body,
    embedding_list,
    fewer_dimensions,
)
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import NotFound, Unsupported


def embeddings_routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/embeddings", openapi_extra=body_schema(EmbeddingBody))
    async def create_embeddings(request: Request) -> Response:
        wanted = embedding_body(await request.body())
        model, caller = _model(site, wanted.model), caller_of(request.scope)

        async def embedded() -> bytes:
            await site.vet(model.alias, wanted.texts, caller)
            found = await site.backend.embed(wanted.texts)
            site.access.spend(caller, found.token_count)
            vectors = fewer_dimensions(found.vectors, wanted.dimensions, model)
            return await embedding_list(found, vectors, model, wanted.encoding_format)

        work = site.in_turn(embedded(), caller, wanted.mesh.deadline_seconds)
        content = await while_connected(work, request.receive)
        return Response(content, media_type="application/json")

    return router


def _model(site: Site, name: str) -> EmbeddingModel:
    """The one meant; Unsupported for a model that chats, NotFound for one that nobody has."""
    model = site.backend.embedding_model()
    if model is None:
        raise Unsupported("this gateway makes no embeddings", param="model")
    if name in (MESH_MODEL, model.alias):
        return model
    if any(name in (entry.alias, entry.qualified) for entry in site.backend.models()):
        raise Unsupported(f"{name[:200]!r} makes no embeddings; {model.alias} does", param="model")
    raise NotFound(
        f"the model {name[:200]!r} does not exist here; {model.alias} makes embeddings",
        code="model_not_found",
        param="model",
    )
