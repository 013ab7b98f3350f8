from __future__ import annotations

import pytest

from monai_node.agents.skill_phrases import PHRASES_MAX, TEXT_CHARS_MAX, media_type_of, noun_of, word


def test_clauses_are_cut_where_skills_may_change() -> None:
    text = "Plot the sheet, annotate the chart and then compare it using the labels."
    assert [text[slice(*clause)] for clause in word(text).clauses] == [
        "Plot the sheet",
        "annotate the chart",
        "and",
        "then compare it",
        "using the labels.",
    ]


def test_quotes_and_addresses_stand_for_one_noun() -> None:
    wording = word("Summarise 'the harbour was closed all day' and fetch https://example.org/a.csv now")
    assert wording.phrases[-1].text == "Summarise text and fetch url now"
    assert [one.media_type for one in wording.given] == ["text/plain", "text/uri-list"]


def test_a_quoted_file_name_keeps_its_words_and_is_given() -> None:
    wording = word("Plot 'rain.csv' beside harbour.png")
    assert "'rain.csv'" in wording.phrases[-1].text
    assert [one.media_type for one in wording.given] == ["text/csv", "image/png"]


def test_phrases_are_the_words_of_the_request() -> None:
    text = "I have a sheet. Plot it, then annotate the chart with the highest value of each week."
    for phrase in word(text).phrases:
        assert " ".join(text[phrase.start : phrase.end].split()) == phrase.text


def test_windows_stay_inside_a_sentence() -> None:
    text = "Read one two three four. Write five six seven eight."
    for phrase in word(text).phrases[:-1]:
        assert phrase.is_clause or not (phrase.start < 24 < phrase.end) or phrase.text.count(".") == 2


@pytest.mark.parametrize("text", ["", " ", "?", "''", "\n\n", "“", "a" * 10_000, "and then, and. " * 900])
def test_any_text_is_cut_within_bounds(text: str) -> None:
    wording = word(text)
    assert 1 <= len(wording.phrases) <= PHRASES_MAX
    assert len(wording.text) <= TEXT_CHARS_MAX


def test_media_types_and_their_nouns() -> None:
    assert media_type_of("a.b.png") == "image/png"
    assert media_type_of("version.2x") is None
    nouns = ("image/*", "application/pdf", "text/csv", "text/plain", "text/uri-list", "audio/x-wav")
    assert [noun_of(one) for one in nouns] == ["image", "pdf", "csv", "text", "url", "audio"]


@pytest.mark.parametrize(("gap", "count"), [(" ", 1), ("\t", 1), ("\n", 2), (" \n", 2)])
def test_a_page_of_white_space_is_one_gap(gap: str, count: int) -> None:
    """Looked at from each of its places it would take seconds, in which nothing else could run."""
    assert len(word("plot it" + gap * 1_900 + "annotate it").clauses) == count
