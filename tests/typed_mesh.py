"""A small mesh of typed skills for tests: sheets, charts, plans and notes."""

from __future__ import annotations

import numpy as np

from monai_node.agents.skill_phrases import Wording
from monai_node.agents.skill_steps import Matrix, TypedSkill

SKILLS = (
    TypedSkill("export-table", ("application/pdf",), ("text/csv",)),
    TypedSkill("plot", ("text/csv",), ("image/*",)),
    TypedSkill("annotate", ("image/*",), ("image/*",)),
    TypedSkill("compare", ("image/*", "image/*"), ("text/plain",)),
    TypedSkill("summarise", ("text/plain",), ("text/plain",)),
)
# What stands for an encoder: a phrase matches a skill by the share of these words that it has.
KEYWORDS = (
    {"export", "table"},
    {"plot", "chart", "plotted"},
    {"annotate", "annotated", "labels"},
    {"compare", "differences"},
    {"summarise", "summary"},
)


def index(name: str) -> int:
    return [skill.id for skill in SKILLS].index(name)


def scored(wording: Wording) -> Matrix:
    """1 for a phrase with one of a skill's words, a little less for a longer phrase, 0 for another."""
    rows: list[list[float]] = []
    for phrase in wording.phrases:
        said = [word.strip(".,;:!?'\"") for word in phrase.text.lower().split()]
        rows.append([(1.1 if mine & set(said) else 0.0) - 0.005 * len(said) for mine in KEYWORDS])
    return np.array(rows)
