from __future__ import annotations

import math

import pytest

from monai_node.mesh.gateway.http.json_io import PLAIN_DEPTH_MAX, check_plain, encode_json, parse_object
from monai_node.registry.errors import InvalidRequest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xff\xfe",
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[]",
        b'"canary"',
    ],
)
def test_what_is_not_a_json_object_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_object(body)
    assert refused.value.code == "invalid_json"
    assert "canary" not in refused.value.message
    assert len(refused.value.message) < 200


def test_an_object_is_parsed_as_utf_8() -> None:
    assert parse_object('{"ключ": ["é", 1.5, null]}'.encode()) == {"ключ": ["é", 1.5, None]}


def _nested(depth: int) -> object:
    return 1 if depth == 0 else [_nested(depth - 1)]


@pytest.mark.parametrize("value", [_nested(PLAIN_DEPTH_MAX + 1), {"x": [math.inf]}, [2**63]])
def test_what_the_wire_cannot_carry_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_plain(value, "tools")
    assert refused.value.param == "tools"


def test_what_the_wire_can_carry_passes() -> None:
    check_plain({"x": [1, -(2**63), 2.5, "a", None, True, _nested(PLAIN_DEPTH_MAX - 2)]}, "tools")


def test_numbers_that_are_not_finite_become_null_so_that_any_client_can_parse() -> None:
    assert encode_json({"a": math.nan, "b": -math.inf, "c": "é"}) == '{"a":null,"b":null,"c":"é"}'.encode()
