"""JSON in and out of the gateway: UTF-8, no NaN, no infinity, bounded depth."""

from __future__ import annotations

import math
from typing import Any, cast

from fastapi.responses import Response
from pydantic_core import from_json, to_json

from monai_node.registry.errors import InvalidRequest
from monai_node.registry.garbage import uncollected
from monai_node.registry.wire import PLAIN_VALUES_MAX

# What is handed on to a peer as plain data travels inside a CBOR frame: at most CBOR_DEPTH_MAX (32)
# deep with everything around it, integers of 64 bits.
PLAIN_DEPTH_MAX = 24
_INTEGER_MAX = 2**63
_FIELDS_MAX = 256  # of a body; OpenAI's have 40


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in an HTTP body; InvalidRequest otherwise, which does not quote the body."""
    try:
        with uncollected():
            value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body is JSON but not an object", code="invalid_json")
    found = cast("dict[str, Any]", value)
    if len(found) > _FIELDS_MAX:
        raise InvalidRequest(f"the body has {len(found)} fields; send at most {_FIELDS_MAX}")
    return found


def check_plain(value: Any, param: str) -> None:
    """InvalidRequest unless the wire can carry `value`, which is handed on as it is."""
    pending, count = [(value, PLAIN_DEPTH_MAX)], 1
    while pending:
        value, depth = pending.pop()
        match value:
            case dict() | list() if depth == 0:
                raise InvalidRequest(f"{param} is nested deeper than {PLAIN_DEPTH_MAX}", param=param)
            case dict():
                inner = list(cast("dict[str, Any]", value).values())
            case list():
                inner = cast("list[Any]", value)
            case float() if not math.isfinite(value):
                raise InvalidRequest(f"{param} holds a number that is not finite", param=param)
            case int() if not -_INTEGER_MAX <= value < _INTEGER_MAX:
                raise InvalidRequest(f"{param} holds an integer beyond 64 bits", param=param)
            case _:
                continue
        count += len(inner)
        if count > PLAIN_VALUES_MAX:
            raise InvalidRequest(f"{param} holds more than {PLAIN_VALUES_MAX} values", param=param)
        pending += [(each, depth - 1) for each in inner]


def encode_json(value: object) -> bytes:
    """UTF-8 JSON of plain values, models and dataclasses; NaN and infinities become null."""
    return to_json(value, inf_nan_mode="null")


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return encode_json(content)
