"""Any OpenAI-compatible URL as an Engine: llama-server, Ollama, vLLM, or a service with a key."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from monai_node.mesh.engine.base import EngineCard
from monai_node.mesh.engine.chunks import Answer, items, json_object, words_of
from monai_node.mesh.engine.describe import chat_skill
from monai_node.mesh.engine.prompt import messages_of
from monai_node.mesh.engine.sse import SseParser
from monai_node.registry.advert import ModelInfo
from monai_node.registry.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    MonaiError,
    PeerBusy,
    PeerLost,
    SetupError,
    TaskFailed,
    Unsupported,
)
from monai_node.registry.wire import (
    Parameters,
    TaskCompleted,
    TaskDelta,
    TaskRequest,
)

if TYPE_CHECKING:
    import httpx

_OPEN_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_ERROR_BYTES_MAX = 64 << 10
_MODELS_BYTES_MAX = 4 << 20
_MODELS_NAMED = 10
_CONCURRENCY = 8  # such servers queue by themselves; more would only wait there instead of here


class UrlEngine:
    """Serves one model behind a URL. Made by `open_url_engine`."""

    def __init__(self, client: httpx.AsyncClient, model: str, info: ModelInfo) -> None:
        self._client = client
        self._model = model
        self._alias = info.alias
        self._card = EngineCard(skills=(chat_skill(info.alias, model),), model=info, concurrency=_CONCURRENCY)

    @property
    def card(self) -> EngineCard:
        return self._card

    async def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted, None]:
        if request.input.is_completion:
            raise Unsupported("this model is asked in chats only; it goes on with no raw prompt")
        answer = Answer(request.attempt, self._alias, tells=request.parameters.logprobs is not None)
        async with aclosing(self._events(request)) as events:
            async for data in events:
                if data == "[DONE]":
                    break
                text, logprobs = answer.take(data)
                if text or logprobs:
                    yield TaskDelta(attempt=request.attempt, text=text, logprobs=logprobs)
        yield answer.completed()

    async def _events(self, request: TaskRequest) -> AsyncGenerator[str, None]:
        import httpx

        parser = SseParser()
        remaining = request.remaining_ms / 1000
        timeout = httpx.Timeout(remaining, connect=min(_CONNECT_SECONDS, remaining))
        body = _body(request, self._model)
        try:
            async with self._client.stream(
                "POST", "chat/completions", content=body, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await _start_of(response, _ERROR_BYTES_MAX))
                async for chunk in response.aiter_bytes():
                    for event in parser.feed(chunk):
                        yield event
        except httpx.TimeoutException:
            raise TaskFailed("the model's server did not answer in time") from None
        except httpx.ConnectError:
            raise PeerLost("the model's server cannot be reached") from None
        except httpx.HTTPError as error:
            raise PeerLost(f"the model's server broke off ({type(error).__name__})") from None


def _body(request: TaskRequest, model: str) -> bytes:
    messages = [
        {**message.extra, "role": message.role, "content": message.content}
        for message in messages_of(request)
    ]
    if request.prefix:  # llama-server and others go on after a last message of the assistant
        messages.append({"role": "assistant", "content": request.prefix})
    body = {"model": model, "messages": messages, "stream": True, **_options(request.parameters)}
    body["stream_options"] = {"include_usage": True}
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError):
        raise InvalidRequest("the request holds values that are not JSON") from None


def _options(parameters: Parameters) -> dict[str, Any]:
    ours = {"json_schema", "stop", "tools", "logprobs", "logit_bias", "echo"}
    options = parameters.model_dump(exclude_none=True, exclude=ours)
    if parameters.logprobs is not None:
        options |= {"logprobs": True, "top_logprobs": parameters.logprobs}
    if parameters.logit_bias:
        options["logit_bias"] = parameters.logit_bias
    if parameters.stop:
        options["stop"] = parameters.stop
    if parameters.tools:
        options["tools"] = parameters.tools
    if parameters.json_schema is not None:
        schema = {"name": "result", "schema": parameters.json_schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return options


def _refusal(status: int, body: bytes) -> MonaiError:
    """The error a status stands for. Only a server that blames the request in OpenAI's words is
    believed: others refuse what another engine could do."""
    try:
        error: Any = json_object(body.decode("utf-8", "replace")).get("error")
    except TaskFailed:
        error = None
    words = words_of(error)
    fields = cast(dict[str, Any], error) if isinstance(error, dict) else {}
    if fields.get("code") == "context_length_exceeded" or "exceed_context_size" in str(fields.get("type")):
        return ContextLengthExceeded(words)
    if status == 400 and fields.get("type") == "invalid_request_error":
        return InvalidRequest(words)
    if status in (429, 503):
        return PeerBusy("the model's server is busy")
    return TaskFailed(f"the model's server answered {status}: {words}")


async def _start_of(response: httpx.Response, most: int) -> bytes:
    data = b""
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > most:
            break
    return data[:most]


def _is_loopback(host: str | None) -> bool:
    return host in ("localhost", "::1") or (host or "").startswith("127.")


async def _served(client: httpx.AsyncClient, base_url: str) -> dict[str, dict[str, Any]]:
    """The models a server lists, by id; SetupError when it does not answer like an OpenAI API."""
    import httpx

    try:
        async with client.stream("GET", "models", timeout=_OPEN_SECONDS) as response:
            status, body = response.status_code, await _start_of(response, _MODELS_BYTES_MAX)
    except httpx.HTTPError as error:
        raise SetupError(f"{base_url} does not answer ({type(error).__name__})") from None
    if status in (401, 403):
        raise SetupError(f"{base_url} refuses the API key")
    try:
        listed = items(json_object(body.decode("utf-8", "replace")).get("data"))
    except TaskFailed:
        listed = []
    if status != 200 or not listed:
        raise SetupError(f"{base_url}/models lists no models (status {status})")
    models: dict[str, dict[str, Any]] = {}
    for entry in listed:
        match entry:
            case {"id": str(name), **rest}:
                models[name] = rest
            case _:
                pass
    return models


def _n_ctx(entry: dict[str, Any]) -> int:
    """The context length, where a server tells it (vLLM, llama-server)."""
    match entry:
        case {"max_model_len": int(length)} | {"meta": {"n_ctx_train": int(length)}}:
            return max(length, 0)
        case _:
            return 0


@asynccontextmanager
async def open_url_engine(
    base_url: str, model: str, alias: str, api_key: str | None = None
) -> AsyncGenerator[UrlEngine, None]:
    """A model behind an OpenAI-compatible URL, such as http://127.0.0.1:8080/v1.

    SetupError in one sentence when nobody answers there, the key is refused, or the model is not
    among those listed. Leaving closes the connections.
    """
    import httpx

    base_url = base_url.rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SetupError(f"{base_url!r} is not an http or https URL")
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    async with httpx.AsyncClient(
        base_url=f"{base_url}/",
        headers=headers,
        limits=httpx.Limits(max_connections=None),
        trust_env=not _is_loopback(parts.hostname),  # a proxy cannot reach our own machine
    ) as client:
        models = await _served(client, base_url)
        if model not in models:
            known = ", ".join(sorted(models)[:_MODELS_NAMED])
            raise SetupError(f"{base_url} does not serve {model!r}; it serves {known}")
        features = ["tools", "json_schema", "logprobs"]
        try:
            info = ModelInfo(alias=alias, n_ctx=_n_ctx(models[model]), features=features)
        except ValidationError:
            raise SetupError(f"{alias!r} cannot be a model's alias") from None
        yield UrlEngine(client, model, info)
