"""How the command line talks to a gateway: an answer, a stream, or one sentence of what went wrong."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from monai_node.mesh.state import read_json, state_path
from monai_node.registry.errors import SetupError

if TYPE_CHECKING:
    import httpx

NO_ANSWER = "the gateway sent what is not an answer of a mesh; is --url right?"
_CONNECT_SECONDS = 5.0


def gateway_url(options: argparse.Namespace) -> str:
    """The gateway to talk to: the one named, else this user's running one."""
    if options.url:
        url: str = options.url
        return url.rstrip("/").removesuffix("/v1")
    known = (read_json(state_path(options.state_dir) / "gateway.json") or {}).get("url")
    if not isinstance(known, str):
        raise SetupError("no gateway is running here; start one with `monai-node up`, or give --url")
    return known


def stream(url: str, body: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """The objects of a streamed answer, to its `[DONE]`; a caller that knows another end stops there.
    SetupError for an error status, an error event, a cut, or an answer that is not over after `seconds`."""
    import httpx

    from monai_node.mesh.engine.sse import SseParser

    parser, ends_at, is_open = SseParser(), time.monotonic() + seconds, False
    timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
    try:
        with httpx.stream("POST", url, json=body, timeout=timeout, trust_env=False) as response:
            if response.status_code != 200:
                response.read()
                raise SetupError(_message(response))
            is_open = True
            for block in response.iter_bytes():
                for data in parser.feed(block):
                    if data == "[DONE]":
                        return
                    yield _chunk(data)
                if time.monotonic() > ends_at:  # keep-alives alone must not hold us for ever
                    raise SetupError(f"the gateway did not complete the answer within {seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if not is_open:
            raise SetupError(_unreachable(url, error)) from None
    raise SetupError("the gateway ended the answer before it was complete")


def _chunk(data: str) -> dict[str, Any]:
    try:
        chunk: object = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise SetupError(NO_ANSWER)
    known = cast("dict[str, Any]", chunk)
    if "error" in known:
        raise SetupError(_error_of(known) or "the gateway could not answer")
    return known


def request(method: str, url: str, **arguments: Any) -> dict[str, Any]:
    """The object that the gateway answers; SetupError for anything else."""
    import httpx

    try:
        response = httpx.request(method, url, timeout=30.0, trust_env=False, **arguments)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SetupError(_unreachable(url, error)) from None
    if response.status_code != 200:
        raise SetupError(_message(response))
    found = _json(response)
    if not isinstance(found, dict):
        raise SetupError(NO_ANSWER)
    return cast("dict[str, Any]", found)


@contextmanager
def understood() -> Generator[None]:
    """Around what reads an answer's fields: one that has others is no answer of a mesh (SetupError)."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SetupError(NO_ANSWER) from None


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def _message(response: httpx.Response) -> str:
    return _error_of(_json(response)) or f"the gateway answered with status {response.status_code}"


def _error_of(body: object) -> str:
    """The sentence in an OpenAI error body; empty for anything else."""
    match body:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return ""


def _unreachable(url: str, error: Exception) -> str:
    base = url.partition("/v1/")[0]
    return f"the gateway at {base} did not answer ({type(error).__name__}); is `monai-node up` running?"
