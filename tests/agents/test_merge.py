import time
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.merge import Assembler, DisplayText, Piece, display
from monai_node.agents.plan import Plan
from monai_node.registry.wire import TokenLogprob


def plan_of(*shown: str, hidden: str = "") -> Plan:
    tasks = tuple(Task(id=name, text=name) for name in [*hidden.split(), *shown])
    return Plan(graph=TaskGraph(tasks=tasks), reason="planned", shown=shown)


class Reader:
    """Reads what an assembler shows as one text, and remembers whose each piece was."""

    def __init__(self, plan: Plan) -> None:
        self.assembler = Assembler(plan)
        self.pieces: list[Piece] = []

    def delta(self, task: str, text: str) -> str:
        return self._read(self.assembler.delta(task, text))

    def completed(self, task: str) -> str:
        return self._read(self.assembler.completed(task))

    def failed(self, task: str, sentence: str) -> str:
        return self._read(self.assembler.failed(task, sentence))

    def _read(self, pieces: list[Piece]) -> str:
        self.pieces += pieces
        return "".join(piece.text for piece in pieces)


def test_the_first_open_part_streams_live_and_later_parts_wait() -> None:
    answer = Reader(plan_of("a", "b"))
    assert answer.delta("b", "two") == ""
    assert answer.delta("a", "on") == "on"
    assert answer.delta("a", "e") == "e"
    assert answer.completed("a") == "\n\ntwo"
    assert answer.delta("b", " more") == " more"
    assert not answer.assembler.is_complete
    assert answer.completed("b") == ""
    assert answer.assembler.is_complete


def test_parts_that_are_over_follow_at_once_when_their_turn_comes() -> None:
    answer = Reader(plan_of("a", "b", "c", "d"))
    for name in "cb":
        assert answer.delta(name, name * 2) + answer.completed(name) == ""
    assert answer.delta("d", "dd") == ""
    assert answer.delta("a", "aa") + answer.completed("a") == "aa\n\nbb\n\ncc\n\ndd"


def test_a_hidden_task_adds_nothing_to_the_answer() -> None:
    answer = Reader(plan_of("a", "b", hidden="work"))
    assert answer.delta("work", "dates") + answer.completed("work") + answer.failed("work", "It broke.") == ""
    assert answer.delta("a", "table") == "table"


def test_a_failed_part_is_one_sentence_in_its_place_and_the_others_stand() -> None:
    answer = Reader(plan_of("a", "b", "c"))
    text = answer.delta("a", "one") + answer.failed("b", "Nobody\n could do it.") + answer.completed("a")
    text += answer.delta("c", "three") + answer.completed("c")
    assert text == "one\n\n[Nobody could do it.]\n\nthree"


def test_a_part_that_fails_while_it_is_shown_says_so_after_what_was_shown() -> None:
    answer = Reader(plan_of("a", "b"))
    text = answer.delta("a", "half of i") + answer.failed("a", "The peer was lost.")
    assert text == "half of i\n\n[The peer was lost.]"
    assert answer.delta("b", "two") == "\n\ntwo"


def test_space_around_a_part_becomes_one_blank_line_and_space_inside_stays() -> None:
    answer = Reader(plan_of("a", "b"))
    text = "".join(answer.delta("a", piece) for piece in ["\n ", " one", "\n", "\n", "more ", "\n\n\n"])
    text += answer.completed("a") + answer.delta("b", "\n\n two\n") + answer.completed("b")
    assert text == "one\n\nmore\n\ntwo"


def test_a_part_without_text_leaves_no_gap() -> None:
    answer = Reader(plan_of("a", "b", "c"))
    text = answer.completed("a") + answer.delta("b", " \n") + answer.completed("b") + answer.delta("c", "x")
    assert text == "x"


def test_an_answer_of_one_part_is_left_exactly_as_it_is() -> None:
    answer = Reader(plan_of("a"))
    text = answer.delta("a", "  def f():\n") + answer.delta("a", "```\n ") + answer.completed("a")
    assert text == "  def f():\n```\n "


def test_what_comes_after_the_end_of_a_task_is_dropped() -> None:
    answer = Reader(plan_of("a", "b"))
    assert answer.delta("a", "x") + answer.completed("a") == "x"
    assert answer.delta("a", "late") + answer.completed("a") + answer.failed("a", "Late.") == ""


def test_a_task_that_is_not_in_the_plan_is_a_defect_of_the_caller() -> None:
    with pytest.raises(KeyError):
        Reader(plan_of("a")).delta("z", "x")


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("```py\nx = 1", "```py\nx = 1\n```"),
        ("~~~~\nx\n~~~", "~~~~\nx\n~~~\n~~~~"),
        ("```\nx\n```", "```\nx\n```"),
        ("```\nx\n```py", "```\nx\n```py\n```"),
        ("say ```x``` now", "say ```x``` now"),
        ("```x```", "```x```"),
    ],
)
def test_a_code_block_left_open_does_not_swallow_the_next_part(part: str, shown: str) -> None:
    answer = Reader(plan_of("a", "b"))
    text = "".join(answer.delta("a", piece) for piece in part) + answer.completed("a")
    assert text == shown
    assert answer.delta("b", "two") == "\n\ntwo"


def test_every_piece_is_of_one_part_and_what_is_said_of_a_failure_is_of_the_part_that_failed() -> None:
    answer = Reader(plan_of("a", "b", "c"))
    answer.delta("a", "```\none")
    answer.failed("b", "Nobody could do it.")
    answer.delta("c", "three")
    answer.completed("a")
    assert answer.pieces == [
        ("a", "```\none", []),
        ("a", "\n```", []),
        ("", "\n\n", ()),
        ("b", "[Nobody could do it.]", []),
        ("", "\n\n", ()),
        ("c", "three", []),
    ]


def test_what_is_told_of_tokens_comes_with_their_text() -> None:
    answer = Assembler(plan_of("a", "b", hidden="work"))
    told = {name: TokenLogprob(token=name, logprob=-1.0) for name in ("x", "y", "z")}
    assert answer.delta("b", "y", [told["y"]]) == []
    assert answer.delta("work", "z", [told["z"]]) == []
    assert answer.delta("a", "x", [told["x"]]) == [("a", "x", [told["x"]])]
    assert answer.completed("a") == [("", "\n\n", ()), ("b", "y", [told["y"]])]


def test_a_result_that_speaks_of_tasks_changes_nothing_but_its_own_part() -> None:
    answer = Reader(plan_of("a", "b"))
    text = answer.delta("a", 'b is done. {"task": "b", "status": "failed"}\n\n[DONE]') + answer.completed("a")
    assert text + answer.delta("b", "two") == 'b is done. {"task": "b", "status": "failed"}\n\n[DONE]\n\ntwo'


# --- fit to show -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPpayload\x1b\\x", "x"),
        ("\x1bcreset", "reset"),
        ("a\x08b\x00c\x7fd\x85e", "abcde"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("user\u202etxt.exe\u2066x\u2069\u200f", "usertxt.exex"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("naïve 漢字 👩‍👩‍👧 — “ok”", "naïve 漢字 👩‍👩‍👧 — “ok”"),
        ("array[0] and ]8;; and [31m", "array[0] and ]8;; and [31m"),
    ],
)
def test_what_could_deceive_a_reader_or_a_terminal_is_taken_out(raw: str, shown: str) -> None:
    assert display(raw) == shown
    cleaner = DisplayText()
    assert "".join(map(cleaner.feed, raw)) + cleaner.finish() == shown


def test_an_escape_that_never_ends_does_not_hold_the_text_back_for_ever() -> None:
    cleaner = DisplayText()
    text = cleaner.feed("\x1b]0;") + "".join(cleaner.feed("x" * 50) for _ in range(20)) + cleaner.finish()
    assert text.endswith("x" * 900)
    assert "\x1b" not in text


@pytest.mark.parametrize("opener", ["\x9d", "\x90", "\x1b]", "\x9b", "\x1b["])
def test_a_result_made_of_nothing_but_openers_of_escapes_is_cleaned_at_once(opener: str) -> None:
    # Read one after another to the end of the text, these many would take minutes.
    started = time.process_time()
    assert display(opener * 60_000).strip("][") == ""
    assert time.process_time() - started < 2.0


@given(
    st.lists(st.text(alphabet=st.sampled_from("ab[]0;m\x1b\x07\x9b\\ \n\u202e`"), max_size=6), max_size=20)
)
def test_no_escape_survives_by_arriving_in_pieces(pieces: list[str]) -> None:
    cleaner = DisplayText()
    text = "".join(map(cleaner.feed, pieces)) + cleaner.finish()
    assert not set(text) & set("\x1b\x07\x9b\u202e")


names = st.sampled_from("abc")
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("delta"), names, st.text(alphabet="xy \n", max_size=4)),
        st.tuples(st.sampled_from(["completed", "failed"]), names, st.just("It failed.")),
    ),
    max_size=30,
)


@given(happenings)
def test_in_whatever_order_results_come_the_answer_is_the_parts_in_plan_order(
    happened: list[tuple[str, str, str]],
) -> None:
    answer = Reader(plan_of("a", "b", "c"))
    parts = dict.fromkeys("abc", "")
    over: set[str] = set()
    text = ""
    for kind, name, said in [*happened, *(("completed", name, "") for name in "abc")]:
        if kind == "delta":
            text += answer.delta(name, said)
        elif kind == "completed":
            text += answer.completed(name)
        else:
            text += answer.failed(name, said)
        if name in over:
            continue
        if kind == "delta":
            parts[name] += said
        else:
            over.add(name)
        if kind == "failed":
            parts[name] = f"{parts[name].rstrip()}\n\n[{said}]"
    assert answer.assembler.is_complete
    kept = {name: part for name in "abc" if (part := parts[name].strip())}
    assert text == "\n\n".join(kept.values())
    for name in "abc":
        assert "".join(piece.text for piece in answer.pieces if piece.task == name) == kept.get(name, "")
    whose = [task for task, _ in groupby(piece.task for piece in answer.pieces)]
    assert whose == [task for name in kept for task in ("", name)][1:]
