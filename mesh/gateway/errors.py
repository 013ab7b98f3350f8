"""Errors as OpenAI clients know them: the one place where they become statuses, bodies and headers.

Also the errors that only an HTTP front can have.

MonaiError
├── CallerError
│   ├── InvalidKey         401  no key where one is needed, or one that is none of ours
│   ├── NotAllowed         403  a host name or a web page that this gateway does not answer; a right
│   │                           that a key lacks; what its owner refuses
│   ├── MethodNotAllowed   405
│   ├── RequestTooSlow     408
│   ├── AnswerNotKept      409  an answer that was given once cannot be given again
│   ├── KeyReused          422  an Idempotency-Key came with another request
│   ├── HeadTooLarge       431
│   └── Cancelled          499  by its client; over a socket, where it is still there to be told
└── NodeError
    ├── HookFailed         500  its owner's hook could not be asked
    ├── Draining           503  about to stop: nothing new is begun
    ├── OverLimit          429  this caller had its share
    ├── TooManyRuns        429
    └── TooManyConnections 503
"""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.registry.errors import CallerError, InvalidRequest, MonaiError, NodeError, NotFound
from monai_node.registry.events import RunFailed

_log = logging.getLogger(__name__)

# Another try by the client would run the whole request again for the same end, so the OpenAI SDKs,
# which retry every 409 and 5xx twice, are told not to.
_NEVER_RETRIED = frozenset({409, 500, 504})
_RETRY_LATER = frozenset({429, 503})
_RETRY_AFTER_SECONDS_DEFAULT = 2.0


class InvalidKey(CallerError):
    status = 401
    default_code = "invalid_api_key"


class NotAllowed(CallerError):
    status = 403
    default_code = "not_allowed"


class MethodNotAllowed(CallerError):
    status = 405
    default_code = "method_not_allowed"


class RequestTooSlow(CallerError):
    status = 408
    default_code = "request_timeout"


class AnswerNotKept(CallerError):
    status = 409
    default_code = "answer_not_kept"


class KeyReused(CallerError):
    status = 422
    default_code = "idempotency_key_reused"


class HeadTooLarge(CallerError):
    status = 431
    default_code = "head_too_large"


class Cancelled(CallerError):
    status = 499  # nginx's, for which HTTP has none
    default_code = "cancelled"


class HookFailed(NodeError):
    default_code = "hook_failed"


class Draining(NodeError):
    status = 503
    default_code = "draining"


class OverLimit(NodeError):
    """Its code is `insufficient_quota` where it is of no use to come back within a run's time."""

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class TooManyRuns(NodeError):
    """`position` is the place in the line that the request had, or would have had, from 1."""

    status = 429
    kind = "rate_limit_error"
    default_code = "too_many_runs"

    def __init__(
        self, message: str, *, position: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.position = position


class TooManyConnections(NodeError):
    status = 503
    default_code = "too_many_connections"


_KEYS = {
    "message": {"type": "string"},
    "type": {"type": "string"},
    "param": {"type": ["string", "null"]},
    "code": {"type": "string"},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": list(_KEYS), "properties": _KEYS}},
}
# What an OpenAPI document says of every answer that is not a success.
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    statuses: {"description": what, "content": {"application/json": {"schema": _ERROR}}}
    for statuses, what in (
        ("4XX", "The request cannot be done as it is, or its caller has to wait"),
        ("5XX", "No peer did it, or this node failed"),
    )
}


def error_body(error: MonaiError | RunFailed) -> dict[str, Any]:
    """OpenAI's error object, always with its four keys."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_headers(error: MonaiError | RunFailed) -> dict[str, str]:
    """When, and whether at all, a client should try again."""
    headers: dict[str, str] = {}
    after = error.retry_after_seconds
    if after is None and error.status in _RETRY_LATER:
        after = _RETRY_AFTER_SECONDS_DEFAULT
    if after is not None:
        headers["retry-after"] = str(max(1, math.ceil(after)))
    if isinstance(error, TooManyRuns) and error.position is not None:
        headers["x-queue-position"] = str(error.position)
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="monai-node"'
    if error.status in _NEVER_RETRIED or error.code == "insufficient_quota":
        headers["x-should-retry"] = "false"
    return headers


def error_response(error: MonaiError | RunFailed) -> Response:
    status = error.status if 400 <= error.status <= 599 else 500
    return JsonResponse(error_body(error), status, headers=error_headers(error))


def install_error_handlers(app: FastAPI) -> None:
    """Every answer that is not a success, the framework's own included, gets OpenAI's shape."""
    app.add_exception_handler(MonaiError, _on_monai_error)
    app.add_exception_handler(HTTPException, _on_framework_error)
    app.add_exception_handler(RequestValidationError, _on_bad_parameter)


async def _on_monai_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MonaiError)
    return error_response(error)


async def _on_framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = error_response(_of_framework(error.status_code, request))
    response.headers.update(error.headers or {})  # `Allow`, of a 405
    return response


def _of_framework(status: int, request: Request) -> MonaiError:
    asked = f"{request.method} {request.url.path}"[:200]
    if status == 404:
        return NotFound(f"there is no {asked} here")
    if status == 405:
        return MethodNotAllowed(f"{asked} is not a method of that path")
    return InvalidRequest(f"{asked} could not be read")


async def _on_bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    said = str(first["msg"])
    rest = said.partition(" should ")[2]  # what stands before it names a type, not the parameter
    return error_response(
        InvalidRequest(f"{param} should {rest}" if rest else f"{param}: {said}", param=param)
    )
