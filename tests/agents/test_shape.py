"""Which requests are of one shape, and which only look alike."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.agents.segment import segment
from monai_node.agents.shape import shape, tokens_of

DOCUMENT = "The harbour was quiet, and then it was not. Nobody knew why the boats had left. " * 4

ON_A_TEXT = "Summarise this and shorten the summary:"


def shape_of(text: str) -> str:
    return shape(segment(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Translate 'a' into French and count it", 'Translate "Guten Tag" into French and count it.'),
        ("Translate 'a' into French and count it", "translate 'a' into German and count it"),
        ("What is 37 * 49, and name 3 trees", "What is 5 * 1,024.5, and name 12 trees"),
        ("Tell me about Paris. Then write to anna@a.org", "Tell me about New York. Then write to b@b.com"),
        ("Fetch https://a.b/c and summarise it", "Fetch http://d.e and summarise it"),
        ("Run `ls -l` and explain it", "Run `rm` and explain it"),
        ("Name a tree.  Then draw it", "Name a tree. Then draw it"),
        (f"{ON_A_TEXT}\n\n{DOCUMENT}", f"{ON_A_TEXT}\n\n{DOCUMENT[80:]}"),
    ],
)
def test_other_literals_are_the_same_shape(one: str, other: str) -> None:
    assert shape_of(one) == shape_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # other words
        ("Name a tree and draw it", "Name a bird and draw it"),
        ("Name a tree and draw it", "Name a tree and then draw it"),
        ("Name a tree, draw it", "Name a tree. Draw it"),
        ("Name a tree. Draw it", "Name a tree? Draw it"),
        ("Name a tree.\nDraw it", "Name a tree. Draw it"),
        # a slot is no slot of another kind
        ("Translate 'a' and count it", "Translate 5 and count it"),
        ("Explain `a` and count it", "Explain 'a' and count it"),
        # what is said twice is said twice
        ("Count 'a' and 'b', then print 'a'", "Count 'a' and 'b', then print 'b'"),
        ("Name 3 trees and 3 birds", "Name 3 trees and 4 birds"),
        # numbers that say which, not how many
        ("Name a tree, then use the result of step 1", "Name a tree, then use the result of step 2"),
        ("Draw it, and the 2nd one too", "Draw it, and the 3rd one too"),
        ("1. Name a tree\n2. Draw it", "2. Name a tree\n1. Draw it"),
        ("Draw #1 and print it", "Draw #2 and print it"),
        # capitals that make no name
        ("Write it in French and DO NOT print it", "Write it in French and DO print it"),
        ("Anna is my sister. Write to her", "Peter is my brother. Write to her"),
        ("Describe a tree and Translate It into French", "Describe a tree and Translate Them into French"),
        # words in brackets are the user's own
        ("Name a tree (and draw it), then print it", "Name a tree (and sing it), then print it"),
    ],
)
def test_other_words_are_another_shape(one: str, other: str) -> None:
    assert shape_of(one) != shape_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Write A Poem About Rivers And Draw It", "Write A Poem About Forests And Draw It"),
        ("Tell Me About Rivers. Draw It", "Tell Me About Forests. Draw It"),
    ],
)
def test_in_a_headline_no_word_is_a_name(one: str, other: str) -> None:
    assert shape_of(one) != shape_of(other)


def test_a_shape_can_be_read_and_holds_no_literal() -> None:
    said = shape_of("Translate 'my secret' into French, e.g. for Anna Bell, 3 times.")
    assert said == (
        "[start clause] translate ‹quote 1› into ‹name 1› , [comma clause]"
        " e.g. for ‹name 2› , [comma clause] ‹number 1› times"
    )


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.text("aB 1.'\"\n,:-(/@`>é中", max_size=60)
)
def test_tokens_stand_in_the_request_in_order_and_a_shape_is_one_line(text: str) -> None:
    tokens = tokens_of(segment(text))
    assert [text[token.start : token.end] for token in tokens] == [token.text for token in tokens]
    assert all(left.end <= right.start for left, right in pairwise(tokens))
    assert all(token.text.strip() for token in tokens)
    assert len(shape_of(text).splitlines()) <= 1
