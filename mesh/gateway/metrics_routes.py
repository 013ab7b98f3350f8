"""What Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from monai_node.mesh.gateway.metrics import Metrics
from monai_node.mesh.gateway.site import Site


def metrics_routes(site: Site, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", response_class=PlainTextResponse)
    async def read_metrics(request: Request) -> Response:
        """All figures of this gateway."""
        body, content_type = await metrics.exposition(
            request.headers.get("accept", ""),
            site.gate.running_count,
            site.gate.waiting_count,
            site.backend.peers(),
            site.backend.ejected_count(),
        )
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return router
