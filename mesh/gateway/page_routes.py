"""The chat page at `/`: fixed files from this package, under headers that let nothing else run or load.

The page shows text of strangers (answers, names of peers). It is made safe twice: its scripts build DOM from
text nodes only, and a browser that were made to do otherwise finds that nothing but these files may run, that
nothing may be loaded from or sent to anywhere but this gateway, and that no string becomes code (Trusted
Types).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import NotFound

PAGE_PATH = "/page"
_PACKAGE = "monai_node.mesh.gateway.page"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Asked for anew each time, and answered with 304 while nothing changed: after an update no browser mixes
    # modules of two versions.
    "cache-control": "no-cache",
}


def page_routes(site: Site) -> APIRouter:
    """`/` and the files below PAGE_PATH. They hold nothing of any user: whoever may reach the gateway may
    have them, also where the API asks for a key."""
    router = APIRouter(include_in_schema=False)
    pages = {name: _answer(name, body) for name, body in _files().items()}

    async def index(request: Request) -> Response:
        return pages["index.html"](request)

    async def asset(request: Request, name: str) -> Response:
        if name not in pages:
            raise NotFound(f"the page has no file {name[:100]!r}")
        return pages[name](request)

    routes: dict[str, Callable[..., Coroutine[Any, Any, Response]]] = {
        "/": index,
        f"{PAGE_PATH}/{{name}}": asset,
    }
    for path, endpoint in routes.items():
        router.add_api_route(path, endpoint, methods=["GET", "HEAD"])
    return router


def _files() -> Mapping[str, bytes]:
    """The page's files by name."""
    found = {entry.name: entry for entry in files(_PACKAGE).iterdir() if entry.is_file()}
    return {name: entry.read_bytes() for name, entry in found.items() if _suffix(name) in _MEDIA_TYPES}


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _answer(name: str, body: bytes) -> Callable[[Request], Response]:
    """What a request for this file is answered with."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag}

    def answer(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=_MEDIA_TYPES[_suffix(name)])

    return answer
