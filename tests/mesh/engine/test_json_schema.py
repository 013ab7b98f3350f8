from __future__ import annotations

from typing import Any

import pytest

from monai_node.mesh.engine.json_schema import checked_schema
from monai_node.registry.errors import InvalidRequest


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def test_an_ordinary_schema_passes_unchanged() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "pattern": {"type": "string"},
            "minItems": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
        },
        "required": ["name"],
    }
    assert '"maxLength": 40' in checked_schema(schema)


COSTLY: list[tuple[dict[str, Any], str]] = [
    (nested(40), "nested"),
    ({"type": "string", "pattern": "^(((a{9}){9}){9})$"}, "patterns"),
    ({"type": "string", "maxLength": 10**9}, "add up"),
    ({"prefixItems": [{"type": "string", "maxLength": 1000}] * 5}, "add up"),
    ({"type": "string", "minLength": -1}, "length"),
    ({"type": "array", "maxItems": "many"}, "length"),
    ({"properties": {f"p{n}": {} for n in range(200)}}, "properties"),
    ({"enum": ["x" * 40_000]}, "larger"),
    ({"const": b"bytes"}, "not JSON"),
]


@pytest.mark.parametrize(("schema", "sentence"), COSTLY)
def test_a_schema_that_would_cost_too_much_is_refused(schema: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        checked_schema(schema)
