from __future__ import annotations

from typing import Any

import pytest

from monai_node.mesh.gateway.responses.store import (
    BYTES_MAX,
    RESPONSES_MAX,
    SECONDS_MAX,
    KeptResponse,
    ResponseStore,
)
from monai_node.registry.errors import NotFound


def _response(name: str, status: str = "completed", text: str = "") -> dict[str, Any]:
    item = {"id": f"msg_{name}", "type": "message", "content": text}
    return {"id": name, "status": status, "output": [item], "previous_response_id": None}


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_one_caller_made_no_other_finds() -> None:
    store = ResponseStore(_Clock())
    store.of("anna").keep(_response("r1"), [])
    assert store.of("anna").get("r1").id == "r1"
    assert store.of("anna").item("msg_r1") is not None
    with pytest.raises(NotFound):
        store.of("bela").get("r1")
    assert store.of("bela").item("msg_r1") is None


def test_the_least_lately_used_go_when_there_are_too_many() -> None:
    own = ResponseStore(_Clock()).of("")
    for n in range(RESPONSES_MAX):
        own.keep(_response(f"r{n}"), [])
    own.conversation("r0")
    own.keep(_response("last"), [])
    assert own.get("r0").id == "r0"
    with pytest.raises(NotFound):
        own.get("r1")
    assert own.item("msg_r1") is None


def test_many_bytes_push_out_what_is_over_and_never_what_is_in_progress() -> None:
    own = ResponseStore(_Clock()).of("")
    own.add(KeptResponse(_response("going", "in_progress"), []))
    own.keep(_response("old"), [])
    for n in range(3):
        own.keep(_response(f"big{n}", text="x" * (BYTES_MAX // 3)), [])
    assert own.get("going").id == "going"
    for name in ("old", "big0"):
        with pytest.raises(NotFound):
            own.get(name)
    assert own.get("big2").id == "big2"


def test_what_nobody_used_for_long_is_gone() -> None:
    clock = _Clock()
    own = ResponseStore(clock).of("")
    own.keep(_response("idle"), [])
    own.keep(_response("used"), [])
    clock.now = SECONDS_MAX
    own.conversation("used")
    clock.now += 1
    assert own.get("used").id == "used"
    with pytest.raises(NotFound):
        own.get("idle")


def test_a_response_that_was_deleted_while_it_went_on_stays_deleted() -> None:
    own = ResponseStore(_Clock()).of("")
    kept = KeptResponse(_response("r1", "in_progress"), [])
    own.add(kept)
    own.drop(kept)
    kept.response["status"] = "completed"
    own.update(kept)
    with pytest.raises(NotFound):
        own.get("r1")


def test_who_keeps_much_pushes_out_nothing_of_others() -> None:
    store = ResponseStore(_Clock())
    store.of("anna").keep(_response("r"), [])
    for n in range(RESPONSES_MAX):
        store.of("bela").keep(_response(f"r{n}"), [])
    for n in range(4):
        store.of("bela").keep(_response(f"big{n}", text="x" * (BYTES_MAX // 3)), [])
    assert store.of("anna").get("r").id == "r"
    with pytest.raises(NotFound):
        store.of("bela").get("r0")
