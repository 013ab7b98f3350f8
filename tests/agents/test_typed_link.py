from __future__ import annotations

from itertools import permutations

from typed_mesh import SKILLS, index, scored

from monai_node.agents.skill_phrases import word
from monai_node.agents.skill_steps import Chosen, TypedSkill, choose
from monai_node.agents.typed_link import link, possible_links, reaches


def edges(text: str) -> set[tuple[str, str]]:
    wording = word(text)
    scores = scored(wording)
    chosen = choose(wording, scores, SKILLS)
    found = link(wording, scores, SKILLS, chosen)
    return {(SKILLS[chosen[maker].skill].id, SKILLS[chosen[taker].skill].id) for maker, taker in found}


def test_a_result_goes_to_the_next_skill_that_takes_it() -> None:
    assert edges("Export the table of report.pdf, then plot it.") == {("export-table", "plot")}


def test_a_skill_that_takes_two_is_given_two() -> None:
    found = edges("Plot rain.csv, annotate harbour.png and compare both images.")
    assert {("plot", "compare"), ("annotate", "compare")} <= found


def test_the_goal_may_be_told_first() -> None:
    assert ("plot", "compare") in edges("Compare two charts of rain.csv: plot one and annotate it.")


def test_types_that_do_not_meet_are_never_linked() -> None:
    chosen = [Chosen(index("compare"), (0, 4), 0.9), Chosen(index("plot"), (5, 9), 0.9)]
    assert possible_links(SKILLS, chosen) == [(1, 0)]


def test_links_never_close_a_circle() -> None:
    both_ways = tuple(TypedSkill(f"s{at}", ("image/*", "image/*"), ("image/*",)) for at in range(4))
    wording = word("Plot, annotate, compare, summarise.")
    chosen = [Chosen(at, (at, at + 1), 0.9) for at in range(4)]
    found = link(wording, scored(wording)[:, :4], both_ways, chosen)
    assert found
    assert not any(reaches(found, taker, maker) for maker, taker in found)
    assert all(sum(to == taker for _, to in found) <= 2 for taker in range(4))


def test_reaches_follows_links_forwards() -> None:
    assert reaches([(0, 1), (1, 2)], 0, 2)
    assert [pair for pair in permutations(range(3), 2) if reaches([(0, 1)], *pair)] == [(0, 1)]
