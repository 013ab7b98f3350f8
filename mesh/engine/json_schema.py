"""JSON Schema from a caller to a grammar that llama.cpp survives.

A grammar is the one part of a request that native code interprets: repetition unrolls rules, and
nesting is recursion on the C stack (20 000 nested groups end the process). So the schema is bounded
before it is converted and the grammar after. Callers never hand over a grammar itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import SCHEMA_BYTES_MAX

_DEPTH_MAX = 32
_REPETITIONS_MAX = 4000  # over the whole schema: each one becomes a rule
_PROPERTIES_MAX = 128  # an optional one is written out with all that follow it
_GRAMMAR_CHARS_MAX = 256 << 10
# The converter writes characters beyond U+FFFF as two escapes, which a grammar reads as two characters
# that no text contains. A backslash before the first escape means that it is not one.
_SURROGATES = re.compile(r"(?<!\\)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")
_REPEATING = ("minItems", "maxItems", "minLength", "maxLength")


def checked_schema(schema: dict[str, Any]) -> str:
    """The schema as JSON; InvalidRequest when it is larger or deeper than can be afforded."""
    repetitions = 0
    for part, depth in _parts(schema, 0):
        if depth > _DEPTH_MAX:
            raise InvalidRequest(f"the JSON schema is nested more than {_DEPTH_MAX} deep")
        if "pattern" in part and isinstance(part["pattern"], str):
            raise InvalidRequest("patterns in a JSON schema are not supported")
        repetitions += sum(_repetitions(part.get(key, 0)) for key in _REPEATING)
        if _count(part.get("properties")) > _PROPERTIES_MAX:
            raise InvalidRequest(f"the JSON schema has an object of more than {_PROPERTIES_MAX} properties")
    if repetitions > _REPETITIONS_MAX:
        raise InvalidRequest(f"the lengths in the JSON schema add up to more than {_REPETITIONS_MAX}")
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError):
        raise InvalidRequest("the JSON schema is not JSON") from None
    if len(text) > SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"the JSON schema is larger than {SCHEMA_BYTES_MAX} bytes")
    return text


def _parts(value: Any, depth: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Every object inside a JSON value, with its depth."""
    pending = [(value, depth)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, dict):
            members = cast(dict[str, Any], item)
            yield members, depth
            pending.extend((member, depth + 1) for member in members.values())
        elif isinstance(item, list):
            pending.extend((member, depth + 1) for member in cast(list[Any], item))


def _count(value: Any) -> int:
    return len(cast(dict[str, Any], value)) if isinstance(value, dict) else 0


def _repetitions(value: Any) -> int:
    if isinstance(value, dict):  # a property that happens to have this name
        return 0
    if not isinstance(value, int) or value < 0:
        raise InvalidRequest("a length in the JSON schema is not a number of things")
    return value


def _joined(pair: re.Match[str]) -> str:
    halves = (int(half, 16).to_bytes(2, "big") for half in pair.groups())
    return b"".join(halves).decode("utf-16-be")


def grammar_of(schema: str) -> str:
    """The grammar for a checked schema; InvalidRequest when it says what no grammar can."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        grammar = json_schema_to_gbnf(schema)
    except Exception:  # entry point of a converter that raises whatever its assertions raise
        raise InvalidRequest("the JSON schema cannot be turned into a grammar") from None
    grammar = _SURROGATES.sub(_joined, grammar)
    if not grammar or len(grammar) > _GRAMMAR_CHARS_MAX:
        raise InvalidRequest("the JSON schema makes too large a grammar")
    return grammar
