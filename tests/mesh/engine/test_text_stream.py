from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from monai_node.mesh.engine.text_stream import TextStream


def run(pieces: list[bytes], stops: list[str]) -> tuple[list[str], bool]:
    stream = TextStream(stops)
    shown = [stream.feed(piece) for piece in pieces]
    return [*shown, stream.finish()], stream.is_stopped


def test_half_a_character_is_held_back() -> None:
    assert run([b"a\xe2", b"\x82", b"\xac!"], []) == (["a", "", "€!", ""], False)


def test_bytes_that_are_no_text_do_not_break_the_stream() -> None:
    shown, _ = run([b"\xff", b"a", b"\xe2"], [])
    assert "".join(shown) == "\ufffda"


def test_a_stop_string_across_pieces_is_never_shown() -> None:
    assert run([b"one E", b"N", b"D two"], ["END"]) == (["one ", "", "", ""], True)


def test_what_only_began_like_a_stop_string_is_shown_later() -> None:
    assert run([b"one E", b"NE", b"D"], ["END"]) == (["one ", "EN", "ED", ""], False)
    assert run([b"one EN"], ["END"]) == (["one ", "EN"], False)


def test_the_earliest_stop_string_wins() -> None:
    assert run([b"a STOP b END"], ["END", "STOP"]) == (["a ", ""], True)


def test_nothing_is_shown_after_a_stop() -> None:
    assert run([b"xSTOP", b"more"], ["STOP"]) == (["x", "", ""], True)


@given(
    text=st.text(alphabet="abé€\n", max_size=40),
    stops=st.lists(st.text(alphabet="abé€", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_any_way_of_cutting_shows_the_text_up_to_the_first_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    data = text.encode()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[a:b] for a, b in pairwise(edges)]
    shown, is_stopped = run(pieces, stops)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert is_stopped == bool(found)
    whole = "".join(shown)
    if not found:
        assert whole == text
    else:
        # A longer stop string that begins earlier may be completed later than a short one.
        assert text.startswith(whole)
        assert not any(stop in whole for stop in stops)
