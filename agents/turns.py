"""Find the earlier messages of a conversation that a text needs: none, the last exchange, or all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai_node.agents.lexicon import PREPOSITIONS, VERBS, core, is_question, points_out, words
from monai_node.registry.wire import ChatMessage

# What a message says of itself it says at its beginning; the rest is its document.
_READ_CHARS = 2_000
_ELLIPSIS_WORDS_MAX = 6

_WHOLE = re.compile(
    r"\b(?:all (?:of )?(?:the above|that|this|these|those)|so far|everything (?:above|we|you|i)|earlier"
    r"|(?:our|this|the|whole) (?:conversation|chat|discussion)|previously|remember|remind me"
    r"|(?:as|like) before|at the (?:start|beginning)|recap|both"
    r"|(?:you|we|i) (?:said|told|mentioned|discussed|wrote|talked|gave))\b",
    re.I,
)
_STANDING = re.compile(
    r"\b(?:always|from now on|for the rest|in (?:all|every) (?:answers?|repl\w+)|call me|my name is|i am|i'm"
    r"|remember|never|whenever|pretend|act as|you are)\b",
    re.I,
)
_FOLLOW_UP = re.compile(
    r"\W*(?:(?:and|but|or|ok|okay|now|so|then|also|instead|no|yes|hmm|thanks|great|please)\b\W*)*+"
    r"(?:(?:what about|how about|more|another|shorter|longer|simpler|better|same|continue|go on|keep going"
    r"|make (?:it|that|this|them)|elaborate|try again|again|really)\b"
    r"|(?:why|expand|explain|in \w+)\W*\Z)",
    re.I,
)
_OPENS_BACK = re.compile(r"\W*(?:and|but|or|now|so|then|instead|no|yes|again|still)\b", re.I)
_PERSONAL = re.compile(r"\b(?:my|mine|our|ours|i|we|us|again)\b", re.I)
_NAMES_BACK = re.compile(
    r"\b(?:the (?:above|previous|last|second|third|other|former|latter|same|poem|story|text|translation"
    r"|summary|result|answer|list|code|function|example|email|letter|ones?)(?! (?:of|from|for|in|to|about)\b)"
    r"|(?:do|does|did|is|was|are|were|would) (?:it|that|this|they|those|these)"
    r"|that (?:one|poem|story|text|translation|summary|result|answer|list|code|function)|he|she|him)\b",
    re.I,
)


def needed_turns(text: str, earlier: Sequence[ChatMessage]) -> list[int]:
    """Indices of the earlier messages that this text needs; system messages are never among them.

    None for a text that stands by itself. The last exchange for "and in kilometres?" or "translate
    it", and further back while that exchange is a follow-up itself. Everything when the text speaks
    of the conversation, when a standing instruction or a fact about the user was given, or when in
    doubt: a turn too many costs a moment, a turn too few the answer.
    """
    spoken = [at for at, message in enumerate(earlier) if message.role in {"user", "assistant"}]
    asked = [earlier[at].content[:_READ_CHARS] for at in spoken if earlier[at].role == "user"]
    if _WHOLE.search(text[:_READ_CHARS]) or any(_STANDING.search(said) for said in asked):
        return spoken
    if refers_back(text):
        return _last_exchange(spoken, earlier)
    return [] if _stands_alone(text) else spoken


def refers_back(text: str) -> bool:
    """Whether the text points at something that was said just before it."""
    text = text[:_READ_CHARS]
    if _FOLLOW_UP.match(text) or _OPENS_BACK.match(text):
        return True
    body = core(text)
    said = words(body)
    if not said or points_out(body) or _NAMES_BACK.search(body):
        return True
    is_told = said[0] in VERBS or is_question(body)
    is_elided = said[0] in VERBS and (len(said) == 1 or said[1] in PREPOSITIONS)
    return is_elided or (not is_told and len(said) <= _ELLIPSIS_WORDS_MAX)


def _stands_alone(text: str) -> bool:
    body = core(text[:_READ_CHARS])
    said = words(body)
    return len(said) > 1 and (said[0] in VERBS or is_question(body)) and not _PERSONAL.search(body)


def _last_exchange(spoken: Sequence[int], earlier: Sequence[ChatMessage]) -> list[int]:
    start = len(spoken)
    while start:
        start -= 1
        message = earlier[spoken[start]]
        if message.role == "user" and not refers_back(message.content):
            break
    return list(spoken[start:])
