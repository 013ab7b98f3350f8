"""What schemathesis is told of a gateway; it loads this by name (SCHEMATHESIS_HOOKS)."""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, cast

import schemathesis

KEYS = {"message", "type", "param", "code"}
# By path. What nobody here can do: a body with one of them is refused, and nothing else in it tried. What
# schemathesis or the document cannot judge: events, of which it takes the frame for what is in it, and
# embeddings in base64. Streams are asked for by bodies that are made of our own document.
LEFT_OUT = {
    "/chat/completions": {"functions", "modalities", "stream"},
    "/embeddings": {"encoding_format"},
    "/responses": {"context_management", "conversation", "moderation", "prompt", "stream"},
}

seen: Counter[str] = Counter()


def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], **_: object) -> None:
    """Has the body ask for what this gateway has."""
    sent = cast("Any", case)
    body: Any = sent.body
    if isinstance(body, dict):
        body = cast("dict[str, Any]", body)
        left_out = LEFT_OUT.get(sent.operation.path, set[str]())
        wanted = {key: value for key, value in body.items() if key not in left_out}
        sent.body = {**wanted, "model": "mesh"} if "model" in wanted else wanted


cast("Any", schemathesis).hook(before_call)


@schemathesis.check
def errors_have_four_keys(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """No error of another shape, and of this node or its peers none but that of a time that was too short."""
    seen[f"{cast('Any', case).operation.label} {response.status_code}"] += 1
    if response.status_code < 400:
        return
    body = response.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == KEYS, body
    assert isinstance(body["error"]["message"], str), body
    assert response.status_code < 500 or body["error"]["code"] == "deadline_exceeded", body


def tell() -> None:
    Path(os.environ["SEEN"]).write_text(json.dumps(seen))


atexit.register(tell)
