"""OpenAI's routes for responses: made, kept, streamed again, cancelled, deleted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from monai_node.mesh.gateway.caller import caller_of
from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.http.stream import RunResponse
from monai_node.mesh.gateway.openai.bodies import body_schema
from monai_node.mesh.gateway.responses.background import BackgroundResponse, StreamResponse
from monai_node.mesh.gateway.responses.body import ResponseBody, response_call
from monai_node.mesh.gateway.responses.form import ResponseForm
from monai_node.mesh.gateway.responses.items import ItemObject
from monai_node.mesh.gateway.responses.store import OwnResponses, ResponseStore
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.ids import new_run_id


def responses_routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1/responses")
    store = ResponseStore(time.monotonic)

    def own(request: Request) -> OwnResponses:
        return store.of(caller_of(request.scope).key)

    @router.post("", openapi_extra=body_schema(ResponseBody))
    async def create_response(request: Request) -> Response:
        mine = own(request)
        traceparent = request.headers.get("traceparent")
        call = response_call(await request.body(), new_run_id(), mine, traceparent)
        if call.background:
            return BackgroundResponse(site, ResponseForm(call, time.time), mine)
        form = ResponseForm(call, time.time, mine.keep if call.store else None)
        return RunResponse(site, call.request, form, stream=call.stream)

    @router.get("/{response_id}", responses={200: {"content": {"text/event-stream": {}}}})
    async def retrieve_response(
        request: Request,
        response_id: str,
        stream: bool = False,
        starting_after: Annotated[int, Query(ge=-1)] = -1,
    ) -> Response:
        kept = own(request).get(response_id)
        if not stream:
            return JsonResponse(kept.response)
        if kept.recording is None:
            raise InvalidRequest(
                "only a response made in the background can be streamed again", param="stream"
            )
        if not kept.recording.first <= starting_after + 1 <= kept.recording.end:
            known = f"{kept.recording.first - 1} to {kept.recording.end - 1}"
            raise InvalidRequest(f"starting_after should be from {known}", param="starting_after")
        return StreamResponse(kept.recording, starting_after + 1, site.config)

    @router.post("/{response_id}/cancel")
    async def cancel_response(request: Request, response_id: str) -> Response:
        kept = own(request).get(response_id)
        if kept.recording is None:
            raise InvalidRequest("only a response made in the background can be cancelled")
        if kept.response["status"] != "cancelled":
            if kept.cancel is None:
                raise InvalidRequest(f"the response is {kept.response['status']} already")
            kept.cancel()
        return JsonResponse(kept.response)

    @router.delete("/{response_id}")
    async def delete_response(request: Request, response_id: str) -> Response:
        mine = own(request)
        kept = mine.get(response_id)
        if kept.cancel is not None:
            kept.cancel()
        mine.drop(kept)
        return JsonResponse({"id": kept.id, "object": "response", "deleted": True})

    @router.get("/{response_id}/input_items")
    async def list_input_items(
        request: Request,
        response_id: str,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        given = own(request).get(response_id).given
        return JsonResponse(_page(given if order == "asc" else given[::-1], after, limit))

    return router


def _page(items: Sequence[ItemObject], after: str | None, limit: int) -> dict[str, Any]:
    """OpenAI's list of the items behind the one that `after` names."""
    names = [item["id"] for item in items]
    if after is not None and after not in names:
        raise InvalidRequest("after is not the id of an item of this response", param="after")
    start = names.index(after) + 1 if after is not None else 0
    page = items[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < len(items),
    }
