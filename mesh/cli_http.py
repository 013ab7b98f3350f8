"""How the command line talks to a gateway: an answer, a stream, or one sentence of what went wrong."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from monai_node.mesh.state import read_json, state_path
from monai_node.registry.errors import SetupError

if TYPE_CHECKING:
    import httpx

NO_ANSWER = "the gateway sent what is not an answer of a mesh; is --url right?"
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway to talk to. `certificate` is a file: the only one that is taken for its own."""

    url: str
    key: str | None = field(default=None, repr=False)
    certificate: str | None = None

    @property
    def connection(self) -> dict[str, Any]:
        """What every request to it is sent with."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {"headers": headers, "verify": self._trust(), "trust_env": False}

    def _trust(self) -> ssl.SSLContext | bool:
        if self.certificate is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self.certificate)
        except OSError:
            raise SetupError(f"the gateway's certificate {self.certificate} cannot be read") from None
        # It is named by its owner, whoever has signed it and whatever names stand in it.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        return context


def gateway_of(options: argparse.Namespace) -> Gateway:
    """The gateway to talk to: the one named, else this user's running one, whose key needs no telling."""
    key = os.environ.get("MONAI_KEY") or None
    if options.url:
        url: str = options.url
        return Gateway(url.rstrip("/").removesuffix("/v1"), key)
    known = read_json(state_path(options.state_dir) / "gateway.json") or {}
    texts = {name: value for name, value in known.items() if isinstance(value, str)}
    if "url" not in texts:
        raise SetupError("no gateway is running here; start one with `monai-node up`, or give --url")
    return Gateway(texts["url"], key or texts.get("key"), texts.get("certificate"))


def stream(gateway: Gateway, path: str, body: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """The objects of a streamed answer, to its `[DONE]`; a caller that knows another end stops there.
    SetupError for an error status, an error event, a cut, or an answer that is not over after `seconds`."""
    import httpx

    from monai_node.mesh.engine.sse import SseParser

    parser, ends_at, is_open = SseParser(), time.monotonic() + seconds, False
    timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
    try:
        link = gateway.connection
        with httpx.stream("POST", gateway.url + path, json=body, timeout=timeout, **link) as response:
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
            raise SetupError(_unreachable(gateway, error)) from None
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


def request(gateway: Gateway, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    """The object that the gateway answers; SetupError for anything else."""
    import httpx

    try:
        response = httpx.request(method, gateway.url + path, timeout=30.0, **gateway.connection, **arguments)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SetupError(_unreachable(gateway, error)) from None
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


def _unreachable(gateway: Gateway, error: Exception) -> str:
    return (
        f"the gateway at {gateway.url} did not answer ({type(error).__name__}); is `monai-node up` running?"
    )
