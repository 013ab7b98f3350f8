from __future__ import annotations

import json
import logging

import pytest

from monai_node.mesh.gateway.errors import (
    TooManyRuns,
    error_body,
    error_headers,
    error_response,
)
from monai_node.registry.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    MonaiError,
    NoProvider,
    NotFound,
    PeerLost,
    log_defect,
)
from monai_node.registry.events import run_failed


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("x", param="n"), 400, "invalid_request"),
        (NotFound("x", code="model_not_found"), 404, "model_not_found"),
        (TooManyRuns("x"), 429, "too_many_runs"),
        (PeerLost("x"), 502, "peer_lost"),
        (NoProvider("x"), 503, "no_provider"),
        (DeadlineExceeded("x"), 504, "deadline_exceeded"),
    ],
)
def test_an_error_keeps_its_status_and_gets_the_four_keys(error: MonaiError, status: int, code: str) -> None:
    response = error_response(error)
    assert response.status_code == status
    body = json.loads(bytes(response.body))["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert (body["message"], body["code"], body["param"]) == ("x", code, error.param)


def test_an_error_event_reads_like_the_error_it_stands_for() -> None:
    error = NoProvider("nobody is there", retry_after_seconds=7.2, param="model")
    failed = run_failed("run-1", error)
    assert error_body(failed) == error_body(error)
    assert error_headers(failed) == error_headers(error) == {"retry-after": "8"}


def test_a_status_that_is_no_error_is_never_sent_for_one() -> None:
    failed = run_failed("run-1", Internal("x")).model_copy(update={"status": 200})
    assert error_response(failed).status_code == 500


def test_clients_are_told_when_to_try_again_and_when_not_to() -> None:
    assert error_headers(TooManyRuns("x"))["retry-after"] == "2"
    assert error_headers(Internal("x")) == {"x-should-retry": "false"}
    assert error_headers(DeadlineExceeded("x")) == {"x-should-retry": "false"}
    assert error_headers(PeerLost("x")) == {}


def test_the_log_says_where_a_defect_arose_but_not_what_it_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> None:
        raise ValueError(canary)

    canary = "what a user wrote"
    with caplog.at_level(logging.ERROR):
        try:
            fails()
        except ValueError as error:
            log_defect("run run-1", error)
    assert "run run-1 failed: ValueError" in caplog.text
    assert "in fails" in caplog.text
    assert canary not in caplog.text
