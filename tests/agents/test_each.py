import pytest

from monai_node.agents.each import each_of
from monai_node.agents.link import Step, link
from monai_node.agents.plan import plan
from monai_node.agents.request import RunRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("name three rivers", "write one line about each"),
        ("name three rivers", "for each of them, give its length"),
        ("name three rivers", "write a haiku about each river"),
        ("list two cities in Peru", "say for every city what its name means"),
        ("suggest four dishes", "write a recipe for each one."),
    ],
)
def test_a_task_about_each_thing_that_another_makes_is_spread_out(first: str, second: str) -> None:
    steps = [Step(first), Step(second)]
    assert each_of(steps, link(steps)) == [None, 0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("summarise the report", "list every mistake in it"),
        ("write a poem about rain", "translate it into every dialect you know"),
        ("name three rivers", "put them in a table"),
        ("name three rivers", "say how each dynasty of China ended"),
        ("name three rivers", "say what three pens cost at 2 euros each"),
        ("translate it into French", "count each word class once, then stop"),
    ],
)
def test_other_tasks_are_done_once(first: str, second: str) -> None:
    steps = [Step(first), Step(second)]
    assert each_of(steps, link(steps)) == [None, None]


def test_a_task_that_needs_several_results_is_done_once() -> None:
    steps = [Step("name a river"), Step("name a lake"), Step("compare the two and praise each of them")]
    assert each_of(steps, link(steps)) == [None, None, None]


def test_a_plan_says_of_which_result_each_item_is_meant() -> None:
    text = "Name three rivers, then write a haiku about each river."
    request = RunRequest(run=RunId("run-1"), messages=(ChatMessage(role="user", content=text),))
    first, second = plan(request).graph.check().tasks
    assert (first.each, second.each) == (None, "t1")
