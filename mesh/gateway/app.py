"""The gateway's HTTP faces, put together. No work happens here: requests are read and handed to the
backend."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.access.guard import Guard
from monai_node.mesh.gateway.backend import Backend
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import ERROR_RESPONSES, install_error_handlers
from monai_node.mesh.gateway.feed import Watcher
from monai_node.mesh.gateway.gate import RunGate
from monai_node.mesh.gateway.health_routes import health_routes
from monai_node.mesh.gateway.hook import Hook
from monai_node.mesh.gateway.http.access_log import AccessLog
from monai_node.mesh.gateway.http.idempotency import Idempotency
from monai_node.mesh.gateway.mesh_routes import mesh_routes
from monai_node.mesh.gateway.metrics import Metrics
from monai_node.mesh.gateway.metrics_routes import metrics_routes
from monai_node.mesh.gateway.openai.embeddings_routes import embeddings_routes
from monai_node.mesh.gateway.openai.routes import openai_routes
from monai_node.mesh.gateway.page_routes import page_routes
from monai_node.mesh.gateway.responses.routes import responses_routes
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.socket.asyncapi import asyncapi_routes
from monai_node.mesh.gateway.socket.routes import socket_routes


def create_app(
    backend: Backend,
    config: GatewayConfig | None = None,
    access: Access | None = None,
    hook: Hook | None = None,
    metrics: Metrics | None = None,
    gate: RunGate | None = None,
    watchers: Sequence[Watcher] = (),
) -> FastAPI:
    """The gateway in front of `backend`, for whoever `access` lets in: everybody without; and for what the
    owner's `hook` lets through. Holds no other state but who runs and who waits, and what `metrics` count."""
    config, access, metrics = config or GatewayConfig(), access or Access(), metrics or Metrics()
    gate = gate or run_gate(config, metrics)
    site = Site(backend, config, gate, [metrics, *watchers], access, hook)
    # No /docs and /redoc: their pages load scripts from elsewhere.
    app = FastAPI(
        title="monai-node", docs_url=None, redoc_url=None, redirect_slashes=False, responses=ERROR_RESPONSES
    )
    for routes in (
        openai_routes,
        responses_routes,
        embeddings_routes,
        mesh_routes,
        socket_routes,
        asyncapi_routes,
        health_routes,
        page_routes,
    ):
        app.include_router(routes(site))
    app.include_router(metrics_routes(site, metrics))
    install_error_handlers(app)
    app.add_middleware(Idempotency, config=config)
    app.add_middleware(Guard, config=config, access=access, told={"x-mesh-hook": hook.name} if hook else {})
    app.add_middleware(AccessLog, answered=metrics.answered)
    return app


def run_gate(config: GatewayConfig, metrics: Metrics) -> RunGate:
    return RunGate(config.runs_max, config.waiting_max, config.waiting_seconds, queued=metrics.queued)
