from __future__ import annotations

import numpy as np
from typed_mesh import SKILLS, index, scored

from monai_node.agents.skill_phrases import word
from monai_node.agents.skill_steps import choose, evidence, feeds, place, shares, suits


def chosen(text: str) -> list[str]:
    wording = word(text)
    return [SKILLS[one.skill].id for one in choose(wording, scored(wording), SKILLS)]


def test_skills_are_chosen_in_the_order_of_the_text() -> None:
    assert chosen("Plot rain.csv and then annotate the result.") == ["plot", "annotate"]
    assert chosen("Annotate harbour.png, then compare it with pier.png.") == ["annotate", "compare"]


def test_a_request_that_matches_nothing_names_no_skill() -> None:
    assert chosen("Tell me a story about a lighthouse.") == []


def test_a_phrase_that_fits_all_alike_speaks_for_none() -> None:
    alike, one_fits = shares(np.array([[0.7, 0.7, 0.7, 0.7], [0.7, 0.3, 0.3, 0.3]]))
    assert alike.max() < 0.3
    assert one_fits[0] > 0.9


def test_a_phrase_that_fits_nothing_is_shared_out_to_none() -> None:
    assert shares(np.array([[0.1, 0.05]])).sum() < 0.05


def test_what_other_skills_make_counts_as_brought() -> None:
    wording = word("Do something with report.pdf")
    scores = np.full((len(wording.phrases), len(SKILLS)), 0.45)
    likely = np.zeros(len(SKILLS))
    without = evidence(wording, scores, SKILLS, likely)
    likely[index("export-table")] = 0.9
    share = evidence(wording, scores, SKILLS, likely)[:, 0]
    assert share[index("plot")] > without[index("plot"), 0]
    assert evidence(wording, scores, SKILLS, likely)[index("export-table"), -1] == 0.0
    likely[index("plot")] = 0.8
    assert evidence(wording, scores, SKILLS, likely)[index("export-table"), -1] == 0.8


def test_two_skills_are_named_by_different_words() -> None:
    wording = word("Plot the sheet, annotate the chart.")
    places = place(wording, scored(wording), [index("plot"), index("annotate")])
    (left, right) = sorted(places.values())
    assert left[1] <= right[0]


def test_types_suit_with_wildcards() -> None:
    assert suits("image/png", "image/*")
    assert suits("image/*", "image/png")
    assert suits("application/pdf", "*/*")
    assert not suits("image/png", "image/jpeg")
    assert not suits("text/csv", "text/plain")
    assert feeds(SKILLS[index("export-table")], SKILLS[index("plot")])
    assert not feeds(SKILLS[index("plot")], SKILLS[index("export-table")])
