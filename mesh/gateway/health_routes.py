"""Whether this gateway lives, and whether it is of use."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.site import Site


def health_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        """The process lives and its event loop turns; nothing more."""
        return JsonResponse({"status": "ok"})

    @router.get("/ready", responses={503: {"description": "No request has a chance; `reason` says why"}})
    async def ready() -> Response:
        """Whether a request has any chance: it has none with no skill in reach, or before the end."""
        if site.gate.is_closed:
            return JsonResponse({"status": "draining", "reason": "this gateway is about to stop"}, 503)
        is_ready, reason = site.backend.is_ready()
        if is_ready:
            return JsonResponse({"status": "ready"})
        return JsonResponse({"status": "not ready", "reason": reason}, 503)

    return router
