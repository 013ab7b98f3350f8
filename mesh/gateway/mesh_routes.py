"""Our own routes: plans and runs, what users say of them, who would be asked, and who is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from monai_node.mesh.gateway.bodies import FeedbackBody, PlanBody, RunBody, body_schema
from monai_node.mesh.gateway.json_io import JsonResponse
from monai_node.mesh.gateway.openai import feedback_of, plan_request, run_call
from monai_node.mesh.gateway.plan_view import PlanView, plan_view
from monai_node.mesh.gateway.runs import Accepting, EventFrames
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.stream import RunResponse, while_connected
from monai_node.registry.errors import DeadlineExceeded
from monai_node.registry.ids import new_run_id
from monai_node.registry.wire import Label

_DECISIONS_MAX = 500
_ROUTE_TEXT_CHARS_MAX = 8192  # of a query string; a URL is no place for more


def mesh_routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1")
    backend, config = site.backend, site.config

    @router.post("/plan", openapi_extra=body_schema(PlanBody), responses={200: {"model": PlanView}})
    async def plan(request: Request) -> Response:
        wanted = plan_request(await request.body(), new_run_id())
        async with site.gate.admit(), _within(wanted.options.deadline_seconds):
            found = await while_connected(backend.plan(wanted), request.receive)
            text = wanted.messages[-1].content
            return JsonResponse(await asyncio.to_thread(plan_view, text, found.plan, found.candidates))

    @router.post("/runs", openapi_extra=body_schema(RunBody))
    async def run(request: Request) -> Response:
        traceparent = request.headers.get("traceparent")
        call = run_call(await request.body(), new_run_id(), traceparent)
        return RunResponse(site, call.request, EventFrames(), stream=call.stream, runs=Accepting(backend))

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
        async with site.gate.admit(), _within(config.route_seconds):
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
        async with site.gate.admit(), _within(config.route_seconds):
            found = await backend.decisions(limit)
        return JsonResponse({"object": "list", "data": found})

    @router.get("/peers")
    async def peers() -> Response:
        return JsonResponse({"object": "list", "data": backend.peers()})

    return router


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
