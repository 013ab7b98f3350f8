"""Which texts speak for a skill, cleaned of what no reader sees."""

from __future__ import annotations

from typing import NamedTuple

from monai_node.registry.advert import Skill
from monai_node.registry.wire import one_line
from monai_node.router.sparse import Counted, counted

# The embedder reads 256 tokens; what stands behind these characters cannot change a vector.
TEXT_CHARS_MAX = 2000
# Of one skill's or one text's words; what they mean is compared in full.
SPELLING_CHARS_MAX = 1000


class SkillTexts(NamedTuple):
    """The words of a skill: two skills with the same ones are the same to whoever compares texts.

    `texts` has the name with the description first, then each example; none is empty or twice there.
    """

    texts: tuple[str, ...]
    is_general: bool


def texts_of(skill: Skill) -> SkillTexts:
    described = cleaned(f"{cleaned(skill.name) or skill.id}: {skill.description}")
    examples = (cleaned(example) for example in skill.examples)
    return SkillTexts(tuple(dict.fromkeys([described, *filter(None, examples)])), skill.is_general)


def cleaned(text: str) -> str:
    """On one line, without controls and characters that are not shown, single spaces, cut to
    TEXT_CHARS_MAX."""
    return " ".join(one_line(text[:TEXT_CHARS_MAX]).split())


def words_of(skill: SkillTexts) -> Counted:
    """The first SPELLING_CHARS_MAX characters of all its texts, counted."""
    return counted(" ".join(skill.texts)[:SPELLING_CHARS_MAX])
