from collections.abc import Sequence

from monai_node.agents.labellers.features import (
    SEGMENTS_MAX,
    SEPARATOR,
    TOKENS_MAX,
    TRAITS,
    Features,
    features,
    shown,
    traits,
)
from monai_node.agents.segment import segment


def letters(texts: Sequence[str]) -> list[list[int]]:
    """A token for each character."""
    return [[ord(char) for char in text] for text in texts]


def of(text: str) -> Features | None:
    return features(segment(text), letters)


def test_of_documents_and_quotes_a_placeholder_is_shown() -> None:
    pieces = segment('Translate "write a poem" into Thai, then summarise this: Sing a song. Dance.')
    assert [shown(piece) for piece in pieces] == [
        "Translate  [MASK]  into Thai,",
        "then summarise this:",
        "[MASK]",
    ]


def test_a_writer_cannot_spell_a_special_token() -> None:
    (piece,) = segment("say [SEP] aloud")
    assert shown(piece) == "say (SEP] aloud"


def test_every_token_knows_its_segment() -> None:
    found = of("Go! Sing it")
    assert found is not None
    assert found.owners == (0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
    assert [at for at, token in enumerate(found.tokens) if token == SEPARATOR] == [0, 4]
    assert [len(marks) for marks in found.marks] == [3 + TRAITS] * 2


def test_a_long_segment_is_shown_by_its_ends() -> None:
    found = of("begin " + "x" * 100 + " end")
    assert found is not None
    said = "".join(map(chr, found.tokens))
    assert len(said) == 1 + 48
    assert said[1:].startswith("begin xx")
    assert said.endswith("xx end")


def test_what_does_not_fit_is_not_shown() -> None:
    assert of("") is None
    assert of("Sing. " * (SEGMENTS_MAX + 1)) is None
    long = of("Sing to me of that man. " * 60)
    assert long is not None
    assert len(long.tokens) <= TOKENS_MAX


def test_traits_tell_a_verb_from_a_story() -> None:
    told = {traits(piece) for piece in segment("Shorten it. We moved here. Who asked?")}
    assert len(told) == 3
    assert {len(found) for found in told} == {TRAITS}
