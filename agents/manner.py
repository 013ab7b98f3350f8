"""Tell a sentence that says how a result is to be, and nothing of what it is about: "In plain English."."""

from __future__ import annotations

import re

_CHARS_MAX = 120
_QUALITY = "brief|concise|short|formal|informal|friendly|polite|simple|funny|kind"
_FORMS = "words?|sentences?|lines?|paragraphs?|characters?|bullets?(?: points?)?|pages?"
_LANGUAGES = "english|french|german|spanish|italian|polish|russian|chinese|japanese"
_HOW = re.compile(
    rf"\W*(?:and |but |please |just )*(?:"
    # Not "make it into the list": a thing, not a manner.
    r"(?:keep|make) (?:it|this|that|them)\b(?! (?:to|in|into|for|from|on) the\b)"
    rf"|in (?:plain|simple|formal|clear|british|american|prose|verse|rhyme|markdown|json|{_LANGUAGES})\b"
    rf"|in (?:\w+ ){{0,2}}(?:{_FORMS})\b"
    r"|(?:(?:at most|no more than|not more than|max|maximum|up to|under|about|exactly|less than|fewer than"
    rf"|only) )?(?:\d{{1,4}}|one|two|three|four|five|six|ten|a few) (?:short )?(?:{_FORMS})\b"
    r"|(?:no|without|avoid) (?:\w+ )?(?:jargon|emojis?|clich[eé]s?|markdown|slang|bullets?|waffle)\b"
    rf"|(?:be|stay|sound|nothing|very|more) (?:{_QUALITY}|too \w+)\b"
    rf"|(?:{_QUALITY})(?: (?:and|but) \w+|,? please)?\W*\Z"
    ")",
    re.I,
)


def says_how(masked: str) -> bool:
    """Whether a sentence speaks of form alone. When in doubt it does not."""
    return len(masked) <= _CHARS_MAX and _HOW.match(masked) is not None
