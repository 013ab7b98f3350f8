"""One way and more to break each rule: changes to a good history, in place, chosen by a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from faults.history import (
    Answered,
    Candidates,
    Chunk,
    Ended,
    MeshEvent,
    Record,
    RequestStarted,
    StreamDone,
)
from faults.samples import PEERS, REQUEST, RUN, SKILL, provenance
from faults.violations import Rule
from monai_node.registry.events import (
    PlanTask,
    RunFailed,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasFailed,
)

Breaking = Callable[[list[Record], Random], None]
BREAKINGS: list[tuple[Rule, Breaking]] = []


def breaks(rule: Rule) -> Callable[[Breaking], Breaking]:
    def add(breaking: Breaking) -> Breaking:
        BREAKINGS.append((rule, breaking))
        return breaking

    return add


def places(records: Sequence[Record], what: type[Record] | str) -> list[int]:
    """Where the records of a type stand, or the run events of a name."""
    return [
        place
        for place, record in enumerate(records)
        if (isinstance(record, MeshEvent) and record.event["type"] == what)
        or (not isinstance(what, str) and isinstance(record, what))
    ]


def find(records: Sequence[Record], random: Random, what: type[Record] | str) -> int:
    """One of these places."""
    return random.choice(places(records, what))


def change(records: list[Record], place: int, **fields: Any) -> None:
    records[place] = records[place].model_copy(update=fields)


def edit(records: list[Record], place: int, **fields: Any) -> None:
    """Change fields of a run event."""
    record = records[place]
    assert isinstance(record, MeshEvent)
    change(records, place, event=record.event | fields)


def event_at(records: list[Record], place: int) -> dict[str, Any]:
    record = records[place]
    assert isinstance(record, MeshEvent)
    return record.event


def insert_event(records: list[Record], place: int, event: dict[str, Any]) -> None:
    """Insert a run event and number all of them anew, so that only its place is wrong."""
    records.insert(place, MeshEvent(at=records[place - 1].at, request=REQUEST, event=event))
    number_anew(records)


def number_anew(records: list[Record]) -> None:
    for seq, place in enumerate(places(records, MeshEvent)):
        edit(records, place, seq=seq)


def remove(records: list[Record], place: int) -> None:
    del records[place]
    number_anew(records)


@breaks(Rule.ONE_END)
def never_ends(records: list[Record], random: Random) -> None:
    remove(records, find(records, random, Ended))


@breaks(Rule.ONE_END)
def ends_twice(records: list[Record], random: Random) -> None:
    records.append(records[find(records, random, Ended)])


@breaks(Rule.ONE_END)
def starts_twice(records: list[Record], random: Random) -> None:
    records.append(records[find(records, random, RequestStarted)])


@breaks(Rule.IN_TIME)
def ends_late(records: list[Record], random: Random) -> None:
    change(records, find(records, random, Ended), at=6.1)


@breaks(Rule.EXPLICIT_END)
def ends_in_a_bad_way(records: list[Record], random: Random) -> None:
    change(records, find(records, random, Ended), how=random.choice(["reset", "gave_up"]))


@breaks(Rule.EXPLICIT_END)
def is_refused_without_a_body(records: list[Record], random: Random) -> None:
    change(records, find(records, random, Answered), status=500)


@breaks(Rule.RETRY_AFTER)
def is_refused_without_a_time(records: list[Record], random: Random) -> None:
    change(records, find(records, random, Answered), status=503, code="no_provider")


@breaks(Rule.SILENT_CUT)
def is_cut_within_the_text(records: list[Record], random: Random) -> None:
    del records[find(records, random, Chunk) :]
    records.append(Ended(at=records[-1].at, request=REQUEST, how="clean_end_without_done"))


@breaks(Rule.SILENT_CUT)
def has_no_finish_reason(records: list[Record], random: Random) -> None:
    change(records, places(records, Chunk)[-1], finish_reason=None)


@breaks(Rule.SILENT_CUT)
def has_no_done(records: list[Record], random: Random) -> None:
    remove(records, find(records, random, StreamDone))
    change(records, find(records, random, Ended), how="clean_end_without_done")


@breaks(Rule.SILENT_CUT)
def one_of_two_choices_is_cut(records: list[Record], random: Random) -> None:
    records.insert(3, Chunk(at=0, request=REQUEST, n=1, bytes=9, chars=1, choice=1))


@breaks(Rule.AFTER_ERROR)
def goes_on_after_an_error(records: list[Record], random: Random) -> None:
    text = random.choice(places(records, Chunk)[:-1])
    change(records, text, error="peer_lost", chars=0)


@breaks(Rule.AFTER_ERROR)
def the_answer_goes_on_in_the_events(records: list[Record], random: Random) -> None:
    place = find(records, random, "answer.delta")
    records[place:] = [record for record in records[place:] if not isinstance(record, Chunk)]
    records.insert(place, Chunk(at=0, request=REQUEST, n=1, bytes=9, error="peer_lost"))


@breaks(Rule.AFTER_END)
def has_text_after_finish_done_or_end(records: list[Record], random: Random) -> None:
    finish = places(records, Chunk)[-1]
    text = Chunk(at=records[-1].at, request=REQUEST, n=99, bytes=9, chars=3)
    records.insert(random.randint(finish + 1, len(records)), text)


@breaks(Rule.AFTER_END)
def is_done_twice(records: list[Record], random: Random) -> None:
    place = find(records, random, StreamDone)
    records.insert(place, records[place])


@breaks(Rule.MALFORMED)
def holds_half_a_message(records: list[Record], random: Random) -> None:
    change(records, find(records, random, Chunk), is_malformed=True)


@breaks(Rule.ONE_RESULT)
def has_a_second_result(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.completed")
    insert_event(records, place + 1, event_at(records, place))


@breaks(Rule.ONE_RESULT)
def completes_and_fails(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.completed")
    task = event_at(records, place)["task"]
    failed = TaskWasFailed(run=RUN, task=task, code="c", message="m")
    insert_event(records, place + 1, failed.model_dump(mode="json"))


@breaks(Rule.ONE_RESULT)
def has_no_result(records: list[Record], random: Random) -> None:
    remove(records, find(records, random, "task.completed"))


@breaks(Rule.ONE_RESULT)
def has_no_result_and_no_part(records: list[Record], random: Random) -> None:
    completed = find(records, random, "task.completed")
    task = event_at(records, completed)["task"]
    remove(records, completed)
    place = find(records, random, "answer.completed")
    parts = [part for part in event_at(records, place)["parts"] if part["task"] != task]
    edit(records, place, parts=parts)


@breaks(Rule.ONE_RESULT)
def uses_a_result_twice(records: list[Record], random: Random) -> None:
    place = find(records, random, "answer.completed")
    parts: list[object] = event_at(records, place)["parts"]
    edit(records, place, parts=[*parts, random.choice(parts)])


@breaks(Rule.ONE_RESULT)
def uses_the_result_of_another_task(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.completed")
    edit(records, place, provenance=event_at(records, place)["provenance"] | {"task": "t9"})


@breaks(Rule.ONE_RESULT)
def shows_a_completed_task_as_failed(records: list[Record], random: Random) -> None:
    place = find(records, random, "answer.completed")
    first, *rest = event_at(records, place)["parts"]
    edit(records, place, parts=[first | {"status": "failed"}, *rest])


@breaks(Rule.CURRENT_ATTEMPT)
def uses_the_result_of_a_stranger(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.completed")
    edit(records, place, provenance=event_at(records, place)["provenance"] | {"peer": "x"})


@breaks(Rule.CURRENT_ATTEMPT)
def uses_the_result_of_a_lost_peer(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.completed")
    event = event_at(records, place)
    peer = event["provenance"]["peer"]
    lost = TaskContinued(run=RUN, task=event["task"], lost_peer=peer, error="e")
    insert_event(records, place, lost.model_dump(mode="json"))


@breaks(Rule.CURRENT_ATTEMPT)
def loses_a_peer_that_was_not_asked(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.delta")
    task = event_at(records, place)["task"]
    lost = TaskContinued(run=RUN, task=task, lost_peer="x", error="e")
    insert_event(records, place, lost.model_dump(mode="json"))


@breaks(Rule.CURRENT_ATTEMPT)
def accepts_for_another_attempt(records: list[Record], random: Random) -> None:
    edit(records, find(records, random, "task.accepted"), attempt="other")


@breaks(Rule.CURRENT_ATTEMPT)
def has_text_before_any_dispatch(records: list[Record], random: Random) -> None:
    first = places(records, "task.dispatched")[0]
    text = TaskText(run=RUN, task=event_at(records, first)["task"], text="x")
    insert_event(records, first, text.model_dump(mode="json"))


@breaks(Rule.CURRENT_ATTEMPT)
def shows_another_maker_than_the_result_had(records: list[Record], random: Random) -> None:
    place = find(records, random, "answer.completed")
    first, *rest = event_at(records, place)["parts"]
    edit(records, place, parts=[first | {"peer": "x"}, *rest])


@breaks(Rule.CURRENT_ATTEMPT)
def uses_an_attempt_id_twice(records: list[Record], random: Random) -> None:
    place = find(records, random, "task.dispatched")
    insert_event(records, place + 1, event_at(records, place))


@breaks(Rule.DISPATCH_AFTER_END)
def dispatches_a_finished_task(records: list[Record], random: Random) -> None:
    done = find(records, random, "task.completed")
    task = event_at(records, done)["task"]
    again = TaskDispatched(
        run=RUN, task=task, attempt="again", skill=SKILL, peer="p", peer_name="p", reasons=[]
    )
    end = find(records, random, "answer.completed")
    insert_event(records, random.randint(done + 1, end), again.model_dump(mode="json"))


@breaks(Rule.TEXT_AFTER_END)
def has_text_of_a_finished_task(records: list[Record], random: Random) -> None:
    done, end = find(records, random, "task.completed"), find(records, random, "answer.completed")
    text = TaskText(run=RUN, task=event_at(records, done)["task"], text="x")
    insert_event(records, random.randint(done + 1, end), text.model_dump(mode="json"))


@breaks(Rule.PLAN_FIXED)
def plans_after_a_dispatch(records: list[Record], random: Random) -> None:
    dispatch = find(records, random, "task.dispatched")
    end = find(records, random, "answer.completed")
    late = PlanTask(run=RUN, task="late", text="x", depends_on=[]).model_dump(mode="json")
    insert_event(records, random.randint(dispatch + 1, end), late)


@breaks(Rule.PLAN_FIXED)
def plans_a_task_twice(records: list[Record], random: Random) -> None:
    place = find(records, random, "plan.task")
    insert_event(records, place + 1, event_at(records, place))


@breaks(Rule.UNPLANNED)
def does_what_was_not_planned(records: list[Record], random: Random) -> None:
    remove(records, find(records, random, "plan.task"))


@breaks(Rule.UNPLANNED)
def dispatches_what_was_not_planned(records: list[Record], random: Random) -> None:
    edit(records, find(records, random, "task.dispatched"), task="other")


@breaks(Rule.UNPLANNED)
def speaks_of_what_was_not_planned(records: list[Record], random: Random) -> None:
    kind = random.choice(["task.delta", "task.accepted"])
    edit(records, find(records, random, kind), task="other")


@breaks(Rule.UNPLANNED)
def completes_what_was_not_planned(records: list[Record], random: Random) -> None:
    edit(records, find(records, random, "task.completed"), task="other")


@breaks(Rule.UNPLANNED)
def answers_with_what_was_not_planned(records: list[Record], random: Random) -> None:
    place = find(records, random, "answer.completed")
    parts: list[object] = event_at(records, place)["parts"]
    stranger = provenance("other", "peer-a").model_dump(mode="json")
    edit(records, place, parts=[*parts, stranger])


@breaks(Rule.LOCAL)
def sends_a_local_task_away(records: list[Record], random: Random) -> None:
    change(records, find(records, random, RequestStarted), label="local", own_peer="own")


@breaks(Rule.ASKED_AGAIN)
def asks_again_who_failed(records: list[Record], random: Random) -> None:
    # A fresh candidate is there, so whoever lost the task must not get it again.
    change(records, find(records, random, Candidates), peers={SKILL: [*PEERS, "peer-d"]})
    place = find(records, random, "task.completed")
    event = event_at(records, place)
    task, peer = event["task"], event["provenance"]["peer"]
    again = TaskDispatched(
        run=RUN, task=task, attempt="again", skill=SKILL, peer=peer, peer_name=peer, reasons=[]
    )
    insert_event(records, place, again.model_dump(mode="json"))
    if random.random() < 0.5:
        lost = TaskContinued(run=RUN, task=task, lost_peer=peer, error="e")
        insert_event(records, place, lost.model_dump(mode="json"))


@breaks(Rule.VOCABULARY)
def uses_a_word_of_its_own(records: list[Record], random: Random) -> None:
    edit(records, find(records, random, MeshEvent), type="task.finished")


@breaks(Rule.VOCABULARY)
def adds_a_field(records: list[Record], random: Random) -> None:
    edit(records, find(records, random, "task.delta"), token=1)


@breaks(Rule.SEQUENCE)
def skips_a_number(records: list[Record], random: Random) -> None:
    place = find(records, random, MeshEvent)
    edit(records, place, seq=event_at(records, place)["seq"] + random.choice([-3, -1, 1, 7]))


@breaks(Rule.FIRST)
def does_not_begin(records: list[Record], random: Random) -> None:
    remove(records, find(records, random, "run.created"))


@breaks(Rule.FIRST)
def begins_twice(records: list[Record], random: Random) -> None:
    event = event_at(records, find(records, random, "run.created"))
    insert_event(records, find(records, random, "plan.task"), event)


@breaks(Rule.TERMINAL)
def has_no_last_event(records: list[Record], random: Random) -> None:
    remove(records, find(records, random, "answer.completed"))


@breaks(Rule.TERMINAL)
def fails_after_the_answer(records: list[Record], random: Random) -> None:
    failed = RunFailed(run=RUN, status=502, kind="k", code="c", message="m")
    place = find(records, random, "answer.completed")
    insert_event(records, place + random.randint(0, 1), failed.model_dump(mode="json"))


@breaks(Rule.DEPENDENCIES)
def depends_on_nothing_known(records: list[Record], random: Random) -> None:
    edit(records, find(records, random, "plan.task"), depends_on=["t8"])


@breaks(Rule.DEPENDENCIES)
def starts_before_what_it_depends_on_ended(records: list[Record], random: Random) -> None:
    task = event_at(records, random.choice(places(records, "plan.task")[1:]))["task"]
    early = TaskDispatched(
        run=RUN, task=task, attempt="early", skill=SKILL, peer="p", peer_name="p", reasons=[]
    )
    first = places(records, "task.dispatched")[0]
    insert_event(records, first, early.model_dump(mode="json"))
