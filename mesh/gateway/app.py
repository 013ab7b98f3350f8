"""The gateway's HTTP routes. No work happens here: requests are read and handed to the backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import Response

from monai_node.mesh.gateway.backend import Backend, ModelEntry
from monai_node.mesh.gateway.bodies import ChatBody, FeedbackBody, PlanBody, RunBody, body_schema
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import install_error_handlers
from monai_node.mesh.gateway.json_io import JsonResponse
from monai_node.mesh.gateway.limits import Guard
from monai_node.mesh.gateway.openai import chat_call, feedback_of, plan_request, run_call
from monai_node.mesh.gateway.plan_view import PlanView, plan_view
from monai_node.mesh.gateway.runs import Accepting
from monai_node.mesh.gateway.stream import RunGate, RunResponse, while_connected
from monai_node.registry.errors import DeadlineExceeded, NotFound
from monai_node.registry.ids import new_run_id
from monai_node.registry.wire import Label

_DECISIONS_MAX = 500
_ROUTE_TEXT_CHARS_MAX = 8192  # of a query string; a URL is no place for more


def create_app(backend: Backend, config: GatewayConfig | None = None) -> FastAPI:
    """The gateway in front of `backend`. Holds no state but the count of runs in flight."""
    config = config or GatewayConfig()
    # No /docs and /redoc: their pages load scripts from elsewhere.
    app = FastAPI(title="monai-node", docs_url=None, redoc_url=None, redirect_slashes=False)
    gate = RunGate(config.runs_max)
    app.include_router(_openai_routes(backend, gate, config))
    app.include_router(_mesh_routes(backend, gate, config))
    app.include_router(_health_routes(backend))
    install_error_handlers(app)
    app.add_middleware(Guard, config=config)
    return app


def _openai_routes(backend: Backend, gate: RunGate, config: GatewayConfig) -> APIRouter:
    router = APIRouter(prefix="/v1")
    started = int(time.time())

    @router.post("/chat/completions", openapi_extra=body_schema(ChatBody))
    async def create_chat_completion(request: Request) -> Response:
        traceparent = request.headers.get("traceparent")
        call = chat_call(await request.body(), new_run_id(), traceparent)
        return RunResponse(backend, call, gate, config)

    @router.get("/models")
    async def list_models() -> Response:
        return JsonResponse({"object": "list", "data": model_list(backend.models(), started)})

    @router.get("/models/{model:path}")
    async def retrieve_model(model: str) -> Response:
        for entry in model_list(backend.models(), started):
            if entry["id"] == model:
                return JsonResponse(entry)
        raise NotFound(
            f"the model {model[:200]!r} does not exist here", code="model_not_found", param="model"
        )

    return router


def _mesh_routes(backend: Backend, gate: RunGate, config: GatewayConfig) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/plan", openapi_extra=body_schema(PlanBody), responses={200: {"model": PlanView}})
    async def plan(request: Request) -> Response:
        wanted = plan_request(await request.body(), new_run_id())
        with gate.admit():
            async with _within(wanted.options.deadline_seconds):
                found = await while_connected(backend.plan(wanted), request.receive)
                text = wanted.messages[-1].content
                return JsonResponse(await asyncio.to_thread(plan_view, text, found.plan, found.candidates))

    @router.post("/runs", openapi_extra=body_schema(RunBody))
    async def run(request: Request) -> Response:
        traceparent = request.headers.get("traceparent")
        call = run_call(await request.body(), new_run_id(), traceparent)
        return RunResponse(Accepting(backend), call, gate, config)

    @router.post("/feedback", openapi_extra=body_schema(FeedbackBody))
    async def feedback(request: Request) -> Response:
        said = feedback_of(await request.body())
        tasks = await backend.feedback(said.run, said.task, said.rating)
        return JsonResponse({"object": "feedback", "run": said.run, "rating": said.rating, "tasks": tasks})

    @router.get("/route")
    async def route(
        text: Annotated[str, Query(min_length=1, max_length=_ROUTE_TEXT_CHARS_MAX)],
        privacy: Label | None = None,
    ) -> Response:
        with gate.admit():
            async with _within(config.route_seconds):
                found = await backend.route(text, privacy)
        return JsonResponse(
            {
                "object": "list",
                "decision": found.decision,
                "reason": found.reason,
                "none": found.none,
                "data": found.candidates,
                "filtered": found.filtered,
            }
        )

    @router.get("/decisions")
    async def decisions(limit: Annotated[int, Query(ge=1, le=_DECISIONS_MAX)] = 20) -> Response:
        with gate.admit():
            async with _within(config.route_seconds):
                found = await backend.decisions(limit)
        return JsonResponse({"object": "list", "data": found})

    @router.get("/peers")
    async def peers() -> Response:
        return JsonResponse({"object": "list", "data": backend.peers()})

    return router


def _health_routes(backend: Backend) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        """The process lives and its event loop turns; nothing more."""
        return JsonResponse({"status": "ok"})

    @router.get("/ready")
    async def ready() -> Response:
        """Whether a request has any chance: with no skill in reach it has none."""
        is_ready, reason = backend.is_ready()
        if is_ready:
            return JsonResponse({"status": "ready"})
        return JsonResponse({"status": "not ready", "reason": reason}, 503)

    return router


def model_list(entries: Sequence[ModelEntry], created: int) -> list[dict[str, Any]]:
    """`mesh`, which chooses for itself, then every model as `alias`, then each as `alias@peer`."""
    listed = {"mesh": _model("mesh", created, "mesh")}
    for entry in entries:
        listed.setdefault(entry.alias, _model(entry.alias, created, "mesh"))
    for entry in entries:
        model = _model(entry.qualified, created, entry.peer_name or entry.peer)
        listed.setdefault(entry.qualified, {**model, "mesh": entry})
    return list(listed.values())


def _model(name: str, created: int, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None]:
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            yield
    except TimeoutError:
        if not clock.expired():
            raise
        raise DeadlineExceeded(f"no answer within {seconds:g} seconds") from None
