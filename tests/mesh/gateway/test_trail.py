from __future__ import annotations

from monai_node.mesh.gateway.testing import provenance
from monai_node.mesh.gateway.trail import Trail, maker_headers
from monai_node.registry.events import PlanTask, TaskDispatched, TaskText

PEER = "12D3KooWabcdefgh"


def planned(task: str) -> PlanTask:
    return PlanTask(run="run-1", task=task, text="secret words of the user", depends_on=[])


def sent(task: str, skill: str, peer: str = PEER) -> TaskDispatched:
    return TaskDispatched(
        run="run-1", task=task, attempt="a", skill=skill, peer=peer, peer_name="ada", reasons=[]
    )


def test_it_names_the_peer_that_had_each_task_last() -> None:
    trail = Trail(10.0)
    trail.note(planned("t1"), 10.1)
    trail.note(sent("t1", "arithmetic"), 10.2)
    trail.note(sent("t2", "chat"), 10.2)
    trail.note(sent("t1", "arithmetic", "12D3KooWijklmnop"), 10.9)
    assert trail.headers()["x-mesh-route"] == "t1=arithmetic@ijklmnop, t2=chat@abcdefgh"


def test_it_says_what_took_how_long() -> None:
    trail = Trail(10.0)
    for event, now in [(planned("t1"), 10.1), (planned("t2"), 10.2), (sent("t1", "chat"), 10.25)]:
        trail.note(event, now)
    assert trail.headers()["server-timing"] == "plan;dur=200.0, route;dur=50.0"
    trail.note(TaskText(run="run-1", task="t1", text=""), 10.4)
    trail.note(TaskText(run="run-1", task="t1", text="so"), 10.5)
    trail.note(TaskText(run="run-1", task="t1", text="more"), 10.6)
    told = trail.headers(12.0)["server-timing"]
    assert told == "plan;dur=200.0, route;dur=50.0, first;dur=500.0, run;dur=2000.0"


def test_nothing_has_happened_yet() -> None:
    assert Trail(0.0).headers() == {}
    assert Trail(0.0).headers(0.5) == {"server-timing": "run;dur=500.0"}


def test_a_skill_id_cannot_break_out_of_the_header() -> None:
    trail = Trail(0.0)
    trail.note(sent("t1", "béla\r\nset-cookie: a=b, t9=x"), 0.1)
    assert trail.headers()["x-mesh-route"] == "t1=b%C3%A9la%0D%0Aset-cookie:%20a%3Db%2C%20t9%3Dx@abcdefgh"


def test_a_long_plan_is_cut_at_a_whole_entry() -> None:
    trail = Trail(0.0)
    for n in range(32):
        trail.note(sent(f"t{n}", "s" * 400), 0.1)
    route = trail.headers()["x-mesh-route"]
    assert len(route) <= 1024
    assert route.endswith("@abcdefgh")


def test_makers_are_plain_ascii_whatever_a_peer_calls_itself() -> None:
    headers = maker_headers([provenance(peer_name="béla\r\nset-cookie: a=b,c")])
    assert headers["x-mesh-parts"] == "1"
    assert headers["x-mesh-models"] == "smollm2@b%C3%A9la%0D%0Aset-cookie:%20a%3Db%2Cc"
    two = [provenance("t1"), provenance("t2", peer_name="béla"), provenance("t3")]
    assert maker_headers(two)["x-mesh-models"] == "smollm2@anna,smollm2@b%C3%A9la"
