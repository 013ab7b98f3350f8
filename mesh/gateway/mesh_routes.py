"""Our own routes: plans and runs, what users say of them, who would be asked, and who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from monai_node.mesh.gateway.caller import caller_of
from monai_node.mesh.gateway.http.asgi import while_connected
from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.http.stream import RunResponse
from monai_node.mesh.gateway.openai.bodies import FeedbackBody, PlanBody, RunBody, body_schema
from monai_node.mesh.gateway.openai.reader import feedback_of, plan_request, run_call
from monai_node.mesh.gateway.plan_view import PlanView, plan_view
from monai_node.mesh.gateway.runs import Accepting, EventFrames
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import NotFound
from monai_node.registry.ids import new_run_id
from monai_node.registry.wire import Label

_T = TypeVar("_T")

_DECISIONS_MAX = 500
_ROUTE_TEXT_CHARS_MAX = 8192  # of a query string; a URL is no place for more


def mesh_routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1")
    backend, config = site.backend, site.config

    async def in_turn(request: Request, work: Coroutine[Any, Any, _T], seconds: float) -> _T:
        """As `site.in_turn`; ends when the client is gone."""
        return await while_connected(site.in_turn(work, caller_of(request.scope), seconds), request.receive)

    @router.post("/plan", openapi_extra=body_schema(PlanBody), responses={200: {"model": PlanView}})
    async def plan(request: Request) -> Response:
        wanted = plan_request(await request.body(), new_run_id())
        asked = site.plan(wanted, caller_of(request.scope))
        found = await in_turn(request, asked, wanted.options.deadline_seconds)
        text = wanted.messages[-1].content
        return JsonResponse(await asyncio.to_thread(plan_view, text, found.plan, found.candidates))

    @router.post("/runs", openapi_extra=body_schema(RunBody))
    async def run(request: Request) -> Response:
        traceparent = request.headers.get("traceparent")
        call = run_call(await request.body(), new_run_id(), traceparent)
        # A recipe is used for the requests of all: a guest's plan must not become one.
        runs = Accepting(backend) if caller_of(request.scope).is_admin else None
        return RunResponse(site, call.request, EventFrames(), stream=call.stream, runs=runs)

    @router.post("/feedback", openapi_extra=body_schema(FeedbackBody))
    async def feedback(request: Request) -> Response:
        said = feedback_of(await request.body())
        if not site.access.may_rate(caller_of(request.scope), said.run):
            raise NotFound("there is no such run of yours", code="run_not_found", param="run")
        tasks = await backend.feedback(said.run, said.task, said.rating)
        return JsonResponse({"object": "feedback", "run": said.run, "rating": said.rating, "tasks": tasks})

    @router.get("/route")
    async def route(
        request: Request,
        text: Annotated[str, Query(min_length=1, max_length=_ROUTE_TEXT_CHARS_MAX)],
        privacy: Label | None = None,
    ) -> Response:
        found = await in_turn(request, backend.route(text, privacy), config.route_seconds)
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
    async def decisions(
        request: Request, limit: Annotated[int, Query(ge=1, le=_DECISIONS_MAX)] = 20
    ) -> Response:
        found = await in_turn(request, backend.decisions(limit), config.route_seconds)
        return JsonResponse({"object": "list", "data": found})

    @router.get("/peers")
    async def peers(request: Request) -> Response:
        found = backend.peers()
        if not caller_of(request.scope).is_admin:  # where each machine is, is no guest's business
            found = [replace(peer, addrs=[]) for peer in found]
        return JsonResponse({"object": "list", "data": found})

    return router
