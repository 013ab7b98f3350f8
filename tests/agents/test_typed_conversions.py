from __future__ import annotations

from typed_mesh import SKILLS, index

from monai_node.agents.skill_phrases import word
from monai_node.agents.skill_steps import TypedSkill
from monai_node.agents.typed_conversions import Conversion, conversions

FLAT = [0.5] * len(SKILLS)


def test_a_lacking_conversion_is_found() -> None:
    wording = word("Plot the rainfall in report.pdf")
    assert conversions(wording, FLAT, SKILLS, [index("plot")], []) == [
        Conversion(takers=(0,), row=(index("export-table"),), makers=(), makes="text/csv")
    ]


def test_two_conversions_in_a_row_are_found() -> None:
    wording = word("Annotate the rainfall in report.pdf")
    (found,) = conversions(wording, FLAT, SKILLS, [index("annotate")], [])
    assert found.row == (index("export-table"), index("plot"))


def test_what_is_given_made_or_spoken_of_is_not_lacking() -> None:
    steps = [index("plot")]
    assert conversions(word("Plot rain.csv, not report.pdf"), FLAT, SKILLS, steps, []) == []
    assert conversions(word("Plot the csv behind report.pdf"), FLAT, SKILLS, steps, []) == []
    made = [index("export-table"), index("plot")]
    assert conversions(word("Plot report.pdf"), FLAT, SKILLS, made, [(0, 1)]) == []


def test_nothing_is_inserted_where_nothing_leads_to_what_lacks() -> None:
    assert conversions(word("Plot the rainfall"), FLAT, SKILLS, [index("plot")], []) == []


def test_plain_text_is_never_lacking() -> None:
    skills = (*SKILLS, TypedSkill("read-aloud", ("text/plain",), ("audio/*",)))
    assert conversions(word("Read harbour.png aloud"), [0.5] * 6, skills, [5], []) == []


def test_of_several_conversions_the_likest_is_taken() -> None:
    skills = (*SKILLS, TypedSkill("scan-table", ("application/pdf",), ("text/csv",)))
    fitness = [0.1, 0.1, 0.1, 0.1, 0.1, 0.2]
    (found,) = conversions(word("Plot report.pdf"), fitness, skills, [index("plot")], [])
    assert found.row == (5,)


def test_a_conversion_is_fed_by_a_step_but_not_by_one_that_waits_for_it() -> None:
    skills = (
        TypedSkill("film", ("text/plain",), ("video/*",)),
        TypedSkill("sound-of", ("video/*",), ("audio/*",)),
        TypedSkill("louder", ("audio/*",), ("text/plain",)),
    )
    wording = word("Make it so")
    assert conversions(wording, [0.5] * 3, skills, [0, 2], []) == [
        Conversion(takers=(1,), row=(1,), makers=(0,), makes="audio/*")
    ]
    assert conversions(wording, [0.5] * 3, skills, [0, 2], [(1, 0)]) == []


def test_one_conversion_serves_every_step_that_lacks_the_same() -> None:
    skills = (*SKILLS, TypedSkill("count", ("text/csv",), ("text/plain",)))
    steps = [index("plot"), 5]
    (found,) = conversions(word("Plot and count report.pdf"), [0.5] * 6, skills, steps, [])
    assert (found.takers, found.row) == ((0, 1), (index("export-table"),))


def test_conversions_never_make_two_steps_wait_for_each_other() -> None:
    skills = (
        TypedSkill("mix", ("audio/*",), ("video/*",)),
        TypedSkill("cut", ("application/pdf",), ("image/*",)),
        TypedSkill("picture-to-sound", ("image/*",), ("audio/*",)),
        TypedSkill("film-to-paper", ("video/*",), ("application/pdf",)),
    )
    found = conversions(word("Mix it and cut it"), [0.5] * 4, skills, [0, 1], [])
    assert [(one.makers, one.takers) for one in found] == [((1,), (0,))]
