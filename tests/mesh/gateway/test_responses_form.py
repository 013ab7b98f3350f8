from __future__ import annotations

import json
from typing import Any

from monai_node.mesh.gateway.responses.body import response_call
from monai_node.mesh.gateway.responses.form import ResponseForm
from monai_node.mesh.gateway.responses.items import ItemObject
from monai_node.mesh.gateway.responses.store import ResponseStore
from monai_node.mesh.gateway.testing import completed, provenance
from monai_node.registry.errors import NoProvider
from monai_node.registry.events import AnswerDelta, PlanTask, TaskText, run_failed
from monai_node.registry.ids import RunId

RUN = RunId("run-abc")
TASK = PlanTask(run=RUN, task="t1", text="say hello", depends_on=[])
FAILED = run_failed(RUN, NoProvider("nobody is there"))


def _form(kept: list[ItemObject], **body: Any) -> ResponseForm:
    own = ResponseStore(lambda: 0.0).of("")
    call = response_call(json.dumps({"input": "hello", **body}).encode(), RUN, own)
    return ResponseForm(call, lambda: 7.0, lambda response, given: kept.append(response))


def _events(pieces: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(piece.partition(b"data: ")[2]) for piece in pieces]


def test_a_response_is_kept_before_its_last_event_is_out() -> None:
    kept: list[ItemObject] = []
    form = _form(kept)
    form.told(AnswerDelta(run=RUN, text="Hello"))
    assert kept == []
    assert form.told(completed(RUN, provenance()))
    assert [(each["id"], each["completed_at"]) for each in kept] == [("resp_abc", 7)]


def test_a_failure_is_kept_only_of_a_response_that_somebody_was_told_of() -> None:
    kept: list[ItemObject] = []
    _form(kept).told(FAILED)
    assert kept == []
    form = _form(kept)
    form.told(AnswerDelta(run=RUN, text="Hel"))
    (failed,) = _events(form.told(FAILED))
    assert failed["response"]["error"] == {"code": "rate_limit_exceeded", "message": "nobody is there"}
    assert kept[0]["output"][0]["status"] == "incomplete"


def test_what_happens_between_the_deltas_is_told_on_request_only() -> None:
    text = TaskText(run=RUN, task="t1", text="Hel")
    quiet, chatty = _form([]), _form([], mesh={"events": True})
    assert [quiet.told(event) for event in (TASK, text)] == [[], []]
    told = _events([piece for event in (TASK, text) for piece in chatty.told(event)])
    assert [(event["type"], event["sequence_number"]) for event in told] == [
        ("plan.task", 0),
        ("task.delta", 1),
    ]
    assert [form.has_events for form in (quiet, chatty)] == [False, True]


def test_an_empty_answer_is_a_message_all_the_same() -> None:
    form = _form([])
    events = _events(form.told(completed(RUN, provenance())))
    assert [event["type"] for event in events][:2] == [
        "response.output_item.added",
        "response.content_part.added",
    ]
    (message,) = form.response["output"]
    assert message["content"][0]["text"] == ""
