"""How an answer is to be written, read from the bodies of requests. Pure."""

from __future__ import annotations

from typing import Any

from monai_node.agents.passthrough import MESH_MODEL
from monai_node.mesh.gateway.http.json_io import check_plain, encode_json
from monai_node.mesh.gateway.openai.bodies import ChatBody, ResponseFormat, Sampled, validated
from monai_node.mesh.gateway.openai.tools import tool_choice_of, tools_of
from monai_node.registry.errors import InvalidRequest, Unsupported
from monai_node.registry.wire import SCHEMA_BYTES_MAX, TOKENS_MAX, Parameters

# OpenAI accepts top_p = 0 and means the likeliest token; engines want a mass above zero.
_TOP_P_MIN = 1e-6


def chat_parameters(chat: ChatBody, raw: dict[str, Any]) -> Parameters:
    """What a chat body says of how its answer is written."""
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidRequest("top_logprobs are told beside logprobs: set logprobs", param="top_logprobs")
    values = {
        **sampling_of(chat),
        "json_schema": _json_schema(chat.response_format),
        "logprobs": (chat.top_logprobs or 0) if chat.logprobs else None,
        "tools": tools_of(chat.tools, raw, "function"),
        "tool_choice": tool_choice_of(chat.tool_choice, chat.tools),
        "parallel_tool_calls": chat.parallel_tool_calls if chat.tools else None,
    }
    return validated(Parameters, values)


def sampling_of(body: Sampled) -> dict[str, Any]:
    """The fields of Parameters that say how a text is written."""
    limit = body.max_completion_tokens or body.max_tokens
    top_p = body.top_p
    return {
        # A limit, not a wish: one above what any engine allows is met by the engine's own.
        "max_tokens": None if limit is None else min(limit, TOKENS_MAX),
        "temperature": body.temperature,
        "top_p": None if top_p is None else max(top_p, _TOP_P_MIN),
        "seed": body.seed,
        "stop": _stop(body.stop),
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": _logit_bias(body),
    }


def _logit_bias(body: Sampled) -> dict[str, float]:
    if body.logit_bias and body.model == MESH_MODEL:
        raise Unsupported(
            "logit_bias: a token's id means another word in every model; name the model that it is for",
            param="logit_bias",
        )
    return body.logit_bias


def _stop(stop: str | list[str] | None) -> list[str]:
    """Empty strings, which some clients send for none, would stop before the first token."""
    listed = [stop] if isinstance(stop, str) else stop or []
    return [text for text in listed if text]


def _json_schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    param = "response_format.json_schema"
    if wanted.json_schema is None:
        raise InvalidRequest(f"{param} is missing", param=param)
    return checked_schema(wanted.json_schema.schema_ or {"type": "object"}, f"{param}.schema")


def checked_schema(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """`schema`, if it is one that a peer can be sent; InvalidRequest that names `param` otherwise."""
    check_plain(schema, param)
    if len(encode_json(schema)) > SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"{param} is larger than {SCHEMA_BYTES_MAX} bytes", param=param)
    return schema
