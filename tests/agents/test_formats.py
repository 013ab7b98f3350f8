from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.formats import fits, has_cron

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "*/15 8-18 * * 1-5",
        "0 0 1,15 * SUN",
        "0 12 L * ?",
        "`0 9 * jan-mar mon`.",
        "5 4 * * 7",
    ],
)
def test_cron_expressions_are_found(text: str) -> None:
    assert has_cron(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "a b c d e",
    ],
)
def test_what_is_out_of_range_is_no_cron_expression(text: str) -> None:
    assert not has_cron(text)


@pytest.mark.parametrize(
    ("value", "schema", "is_right"),
    [
        (1, {"type": "integer"}, True),
        (1.0, {"type": "integer"}, True),
        (True, {"type": "integer"}, False),
        (1, {"type": ["string", "number"]}, True),
        (None, {"type": "string"}, False),
        ([1, "a"], {"items": {"type": "integer"}}, False),
        ({"a": 1}, {"required": ["b"]}, False),
        ({"a": 1}, {"properties": {"a": {"const": 2}}}, False),
        ({"a": 1}, {"properties": {}, "additionalProperties": False}, False),
        ("x", {"enum": ["y", 1]}, False),
        (1, {"allOf": [{"type": "number"}, {"const": 2}]}, False),
        (1, {"oneOf": [{"type": "string"}, {"type": "number"}]}, True),
        (1, {"$ref": "#/definitions/unknown", "pattern": "("}, True),
        (1, True, True),
        (1, False, False),
    ],
)
def test_a_value_fits_a_schema_or_not(value: object, schema: Any, is_right: bool) -> None:
    assert fits(value, schema) == is_right


@settings(max_examples=150, deadline=None)
@given(value=json_values, schema=json_values)
def test_anything_may_stand_in_a_schema(value: object, schema: object) -> None:
    assert fits(value, {"type": schema, "properties": schema, "items": schema, "anyOf": schema}) in (
        True,
        False,
    )


def test_a_deep_value_is_taken_as_right() -> None:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    value: list[Any] = []
    for _ in range(5_000):
        value = [value]
    assert fits(value, schema)
