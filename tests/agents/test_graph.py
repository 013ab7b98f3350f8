import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.agents.graph import DEPTH_MAX, TASKS_MAX, Task, TaskGraph
from monai_node.registry.errors import InvalidRequest


def graph(**depends_on: str) -> TaskGraph:
    """`graph(a="", b="a")`: names in plan order, each with the names it depends on."""
    return TaskGraph(
        tasks=tuple(
            Task(id=name, text=name, depends_on=others.split()) for name, others in depends_on.items()
        )
    )


def chain(length: int) -> TaskGraph:
    return TaskGraph(
        tasks=tuple(
            Task(id=f"t{place}", text="x", depends_on=[f"t{place - 1}"] if place else [])
            for place in range(length)
        )
    )


DIAMOND = graph(a="", b="a", c="a", d="b c")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (TaskGraph(tasks=()), "at least one"),
        (graph(a="z"), "'z', which is not in the plan"),
        (graph(a="a"), "depends on itself"),
        (graph(a="b", b="a"), "circle"),
        (graph(a="c", b="a", c="b", d=""), "'a', 'b', 'c'"),
        (chain(TASKS_MAX + 1), f"{TASKS_MAX} is the most"),
        (chain(DEPTH_MAX + 1), f"{DEPTH_MAX} is the most"),
        (TaskGraph(tasks=(Task(id="a", text="x"), Task(id="a", text="y"))), "two tasks"),
    ],
)
def test_a_graph_that_cannot_be_run_is_refused_with_one_sentence(broken: TaskGraph, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        broken.check()
    assert said in caught.value.message
    assert caught.value.param == "mesh.plan"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("sound", [graph(a=""), DIAMOND, chain(DEPTH_MAX), graph(a="b", b="")])
def test_a_sound_graph_is_returned_by_its_check(sound: TaskGraph) -> None:
    assert sound.check() is sound


def test_ready_tasks_are_those_whose_dependencies_are_all_done_in_plan_order() -> None:
    assert DIAMOND.ready(done=()) == ("a",)
    assert DIAMOND.ready(done={"a"}) == ("b", "c")
    assert DIAMOND.ready(done={"a"}, started={"b"}) == ("c",)
    assert DIAMOND.ready(done={"a", "b"}, started={"c"}) == ()
    assert DIAMOND.ready(done={"a", "b", "c"}) == ("d",)
    assert DIAMOND.ready(done={"a", "b", "c", "d"}) == ()


def test_a_failed_task_is_not_ready_again_and_holds_back_what_depends_on_it() -> None:
    assert DIAMOND.ready(done={"a", "c"}, failed={"b"}) == ()


def test_dependants_are_direct_and_downstream_is_everything_behind() -> None:
    assert DIAMOND.dependants("a") == ("b", "c")
    assert DIAMOND.downstream("a") == ("b", "c", "d")
    assert DIAMOND.downstream("d") == ()
    assert graph(late="early", early="", other="").downstream("early") == ("late",)


def test_depth_is_the_longest_chain_and_sinks_are_its_ends() -> None:
    assert DIAMOND.depth == 3
    assert DIAMOND.sinks == ("d",)
    assert graph(a="", b="", c="a").sinks == ("b", "c")
    assert graph(a="").depth == 1


def test_a_task_is_found_by_its_name() -> None:
    assert DIAMOND.task("c").depends_on == ["a"]
    with pytest.raises(KeyError):
        DIAMOND.task("z")


def test_repair_drops_what_points_nowhere_at_itself_or_twice() -> None:
    repaired = TaskGraph.repair(graph(a="a z", b="a a").tasks)
    assert [task.depends_on for task in repaired.tasks] == [[], ["a"]]


def test_repair_breaks_a_circle_at_the_reference_to_a_later_task() -> None:
    repaired = TaskGraph.repair(graph(a="c", b="a", c="b").tasks)
    assert [task.depends_on for task in repaired.tasks] == [[], ["a"], ["b"]]


def test_repair_keeps_a_reference_to_a_later_task_that_closes_no_circle() -> None:
    repaired = TaskGraph.repair(graph(email="check", check="").tasks)
    assert repaired.task("email").depends_on == ["check"]


def test_repair_keeps_the_first_of_two_tasks_with_one_name() -> None:
    tasks = [Task(id="a", text="first"), Task(id="b", text="x"), Task(id="a", text="second")]
    assert [task.text for task in TaskGraph.repair(tasks).tasks] == ["first", "x"]


names = st.sampled_from([f"t{n}" for n in range(8)])
tasks_of_any_kind = st.lists(
    st.builds(Task, id=names, text=st.just("x"), depends_on=st.lists(names, max_size=5)),
    min_size=1,
    max_size=12,
)


@given(tasks_of_any_kind)
def test_whatever_is_repaired_passes_the_check_and_is_repaired_already(tasks: list[Task]) -> None:
    repaired = TaskGraph.repair(tasks).check()
    assert TaskGraph.repair(repaired.tasks) == repaired


@given(tasks_of_any_kind)
def test_repair_adds_no_reference_and_leaves_a_sound_graph_as_it_is(tasks: list[Task]) -> None:
    given_edges = {(task.id, other) for task in tasks for other in task.depends_on}
    repaired = TaskGraph.repair(tasks)
    assert {(task.id, other) for task in repaired.tasks for other in task.depends_on} <= given_edges
    try:
        sound = TaskGraph(tasks=tuple(tasks)).check()
    except InvalidRequest:
        return
    assert [set(task.depends_on) for task in repaired.tasks] == [set(task.depends_on) for task in sound.tasks]


@given(tasks_of_any_kind)
def test_running_whatever_is_ready_ends_with_every_task_done_once(tasks: list[Task]) -> None:
    plan = TaskGraph.repair(tasks)
    done: list[str] = []
    while ready := plan.ready(done):
        assert not set(ready) & set(done)
        done += ready
    assert sorted(done) == sorted(task.id for task in plan.tasks)


def test_repair_makes_a_task_depend_on_the_list_it_is_done_for_each_item_of() -> None:
    tasks = [Task(id="a", text="list"), Task(id="b", text="x", each="a")]
    repaired = TaskGraph.repair(tasks).check()
    assert (repaired.task("b").depends_on, repaired.task("b").each) == (["a"], "a")


@pytest.mark.parametrize("each", ["z", "b", "c"])
def test_repair_lets_a_task_be_done_once_where_it_cannot_be_done_for_each(each: str) -> None:
    tasks = [Task(id="a", text="x"), Task(id="b", text="y", each=each)]
    tasks.append(Task(id="c", text="z", depends_on=["b"]))
    repaired = TaskGraph.repair(tasks).check()
    assert (repaired.task("b").depends_on, repaired.task("b").each) == ([], None)
