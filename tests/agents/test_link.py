import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.link import Step, link
from monai_node.agents.segment import mask


def links(*texts: str, has_document: bool = False) -> list[tuple[int, ...]]:
    """Dependencies of steps, each given as "connective | task" or as the task alone."""
    steps: list[Step] = []
    for text in texts:
        lead, _, own = text.rpartition("|")
        steps.append(Step(mask(own.strip()), lead, has_document))
    return [found.depends_on for found in link(steps)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Write a poem about rivers", "then|translate it into French"),
        ("Write a poem about rivers", "translate the poem"),
        ("Translate 'good day' into Czech", "shorten the translation"),
        ("Summarise my notes", "turn the summary into a tweet"),
        ("Find three hotels in Lisbon", "compare them"),
        ("Find three hotels in Lisbon", "email Marta your pick"),
        ("Name three spring vegetables", "give me a soup recipe that uses them"),
        ("Describe the bird", "what does it eat"),
        ("Suggest a name for a barge", "write a toast for it"),
        ("Compute 3 * 7", "then|add 4 to the result"),
        ("Compute 3 * 7", "add 4 to that"),
        ("Transcribe the call", "then|summarise"),
        ("Transcribe the call", "translate into Dutch"),
        ("List the objects in the photo", "count how many are made of metal"),
        ("List the objects in the photo", "say which is the biggest"),
        ("Figure out if the caller is angry", "draft a polite reply"),
        ("Explain recursion", "give an example"),
        ("Convert the PDF to text", "make an audiobook"),
        ("Compare the two CVs", "write a rejection letter for the other"),
        ("Solve 3x + 5 = 20", "show the working"),
        ("pull out every action item", "assign each one to somebody"),
        ("Find out who runs Nokia", "then, using that|write a short bio"),
        ("Extract the dates", "sort them"),
        ("Tell me the phase of the moon", "write a forecast based on that"),
    ],
)
def test_a_task_that_works_on_the_previous_result_depends_on_it(first: str, second: str) -> None:
    assert links(first, second) == [(), (0,)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 37 * 49", "write a two-line poem about rivers"),
        ("Write a poem about rivers", "then|write a haiku about snow"),
        ("Translate 'good day' into Czech", "tell me a joke"),
        ("Translate 'good day' into Czech", "then|translate 'good night' into Czech"),
        ("Write a limerick", "tell me what wine goes with trout"),
        ("Draft a label for my honey", "explain how to stop swarming in May"),
        ("Convert 350 F to C", "suggest a quick pudding for six"),
        ("Who painted Guernica", "what is the boiling point of tin"),
        ("Translate this text", "count the words of the original"),
        ("Check the totals of the report", "email the report to Dan"),
        ("Name a river", "explain Kubernetes"),
        ("Suggest a name for a shop", "Separately,|work out the takings"),
        ("Write a story about a dog and its owner", "write a poem about a cat who lost its tail"),
        ("Compose a song", "list the planets of the solar system"),
        ("Compose a song", "define entropy"),
    ],
)
def test_a_task_with_an_object_of_its_own_is_independent(first: str, second: str) -> None:
    assert links(first, second) == [(), ()]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["Name a tree", "Name a bird", "use both in one sentence"], [(), (), (0, 1)]),
        (["Name a tree", "Name a bird", "Name a fish", "compare all three"], [(), (), (), (0, 1, 2)]),
        (["Tell me a joke", "Write a haiku", "say which one is funnier"], [(), (), (0, 1)]),
        (["Extract the date", "Extract the total", "put both into JSON"], [(), (), (0, 1)]),
        (["Pick a prime", "square it", "explain step 1"], [(), (0,), (0,)]),
        (["Pick a prime", "Tell me a joke", "double the first one"], [(), (), (0,)]),
        (["Write a poem about ice", "Write a joke", "translate the poem"], [(), (), (0,)]),
        (["Transcribe the call", "find the names", "find the dates"], [(), (0,), (0,)]),
    ],
)
def test_a_reference_finds_the_tasks_it_means(steps: list[str], expected: list[tuple[int, ...]]) -> None:
    assert links(*steps) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Tell me what this regex does", "write five test strings for it", ()),
        ("Find the mistake in this function", "write a test for it", ()),
        ("Summarise this text", "translate this text", ()),
        ("Summarise", "translate the following", ()),
        ("Summarise this text", "then|translate it", (0,)),
        ("Translate this letter", "shorten it", (0,)),
    ],
)
def test_with_a_document_at_hand_a_pronoun_may_mean_the_document(
    first: str, second: str, expected: tuple[int, ...]
) -> None:
    assert links(first, second, has_document=True) == [(), expected]


def test_a_link_is_explicit_when_the_words_name_the_result() -> None:
    named, elided = link([Step("Write a poem"), Step("translate it"), Step("show the working")])[1:]
    assert (named.is_explicit, elided.is_explicit) == (True, False)


def test_the_first_task_depends_on_nothing() -> None:
    assert links("now|translate it into French") == [()]


def test_a_numbered_step_that_is_not_there_is_ignored() -> None:
    assert links("Name a tree", "redo step 9") == [(), ()]


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Step,
            text=st.one_of(
                st.text(), st.sampled_from(["use both", "sort it", "step 3", "the result", "a", ""])
            ),
            lead=st.sampled_from(["", "then", "Meanwhile, "]),
            has_document=st.booleans(),
        ),
        max_size=6,
    )
)
def test_dependencies_always_point_backwards(steps: list[Step]) -> None:
    found = link(steps)
    assert len(found) == len(steps)
    assert all(other < index for index, one in enumerate(found) for other in one.depends_on)
