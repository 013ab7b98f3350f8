"""Draw the dependencies between the tasks of one request.

A task depends on an earlier one when it refers to it ("it", "both", "the translation", "step 2"), or
when it names no object of its own: then it works on the previous result, because a link too many costs
time and a link too few loses data. A task with its own fresh object is independent, whatever
connective stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from monai_node.agents.lexicon import (
    ASKING_VERBS,
    PREPOSITIONS,
    RELATIONAL_NOUNS,
    SEQUENCE,
    TEXT_VERBS,
    VERBS,
    is_question,
    points_out,
    vocabulary,
    words,
)
from monai_node.agents.segment import MASK


@dataclass(frozen=True, slots=True)
class Step:
    """A task before it has a name: its words with quotes masked, and the connective before them.

    `has_document` says that the request brings a text along which this step may be about, and `announces`
    that one stands right behind its words.
    """

    text: str
    lead: str = ""
    has_document: bool = False
    announces: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """`depends_on` are indices of steps, and `why` one phrase for all of them. `is_explicit` when the
    words name the earlier result rather than leave it out."""

    depends_on: tuple[int, ...] = ()
    is_explicit: bool = False
    why: str = ""


_NONE = Link()
_NUMBERED = re.compile(r"\b(?:step|point|number|question|item) #?(\d{1,2})\b|(?<!\w)#(\d{1,2})\b", re.I)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_ORDINAL = re.compile(rf"\bthe ({'|'.join(_ORDINALS)}) (?:one|step|part|task|answer|result|text)\b", re.I)
_ALL = re.compile(
    r"\b(?:all (?:of (?:it|them|these|those|this|that)|three|four|five|the (?:above|results|answers|parts))"
    r"|everything|the lot|all together|them all|it all)\b",
    re.I,
)
_BOTH = re.compile(
    r"\bboth\b"
    r"|\bthe two\b(?! \w+ (?:of|in|from)\b)|\bwhich (?:one|of (?:them|the two|these|those))\b"
    r"|\b(?:compare|combine|merge|join|between|add|multiply|subtract) them\b",
    re.I,
)
_BOTH_INSIDE = re.compile(r"\bboth\b[^.?!]{1,80}\band\b", re.I)
_ORIGINAL = re.compile(
    r"\bthe (?:original|same (?:text|article|sentence|document|passage|paragraph|input))\b", re.I
)
_APART = re.compile(
    r"\b(?:meanwhile|in the meantime|separately|at the same time|in addition|while you're at it)\b", re.I
)
# What can only be said of something that was just made or found.
_RESULT = re.compile(
    r"\b(?:the|that|this|your) (?:\w+ )?(?:results?|outputs?|outcome|findings|answers?|resulting \w+"
    r"|(?:translated|summari[sz]ed|shortened|corrected|rewritten|generated|combined|merged|cleaned|extracted"
    r"|sorted|filtered|converted|paraphrased|simplified|expanded|modified|adjusted|edited|transcribed) \w+)\b"
    r"|\byour (?:pick|choice|favou?rite|suggestions?|recommendations?|decision|winner|version)\b"
    r"|\bthe (?:other|others|rest|remaining ones?|winner|loser|former|latter)\b(?! \w+ (?:of|in|for|from)\b)"
    r"|\bthe \w+est(?: ones?| two| three| of (?:them|these|those))?\W*\Z"
    r"|\b(?:each|every) (?:one|of (?:them|these|those))\b"
    r"|\b(?:about|for|from|into|of|on|to|under|with) each(?=\s*(?:[.,;:!?)]|\Z))"
    r"|\bthe (?:top|best|first|last) (?:ones?|two|three|four|five)\W*\Z"
    r"|\b(?:how many|which|what) (?:is|are|was|were|went|there)\b(?! (?:the|a|an|your|my|in|\d)\b)",
    re.I,
)
# Of a step that announces a text: the text, and nothing that was said before.
_AHEAD = re.compile(r"\b(?:this|these|the following|below)\W*\Z", re.I)
_BACK = re.compile(r"\b(?:using|based on|from|with|on) that\b", re.I)
_CALLED = re.compile(r"\b(?:the|that|this|those|these|your|each|every) ([a-z]{3,})(?: ([a-z]{3,}))?\b", re.I)
_DEFINITE = re.compile(r"\b(?:the|this|that|these|those|my|our|each|every|attached) (\w+)", re.I)
_INDEFINITE = re.compile(
    r"\b(?:an?|some|any|one|two|three|four|five|six|seven|eight|nine|ten|another|\d+)((?: [\w-]+){1,4})", re.I
)
_COMPLEMENT = re.compile(
    r"\b(?:about|for|to|of|with|on|in|from|between|that|which|who|at|by|called|using|like)\b", re.I
)
_OF = re.compile(r"\b(?:of|for|about|to|on|from|describing)\b(?! (?:it|them|that|this)\b)", re.I)
_ASKS_INSIDE = re.compile(
    r"(?:tell|show|explain|say|find out|work out|figure out|describe|check|decide)(?: (?:me|us|to me))?"
    r" (who|what|when|where|why|how|which|whether|if)\b",
    re.I,
)
_THE_ALONE = re.compile(r"\bthe \w+\b(?! (?:of|in|for|between|from)\b)", re.I)
_FAULT = re.compile(
    r"(?:find|spot|highlight) (?:the|any|all|every) (?:mistake|error|bug|typo|problem|flaw|issue)", re.I
)
# Singular things that are complete in themselves, unlike "a reply" or "a table".
_WHOLE_THINGS = vocabulary("""
    anecdote fable fact haiku
    joke limerick lullaby poem proverb pun riddle rhyme song sonnet story tongue-twister
    """)
_BARE_OBJECT_VERBS = vocabulary("compare define describe discuss explain")
_STEM_CHARS_MIN = 4


def link(steps: Sequence[Step], needs: Sequence[tuple[int, ...] | None] = ()) -> list[Link]:
    """What each step depends on. Where `needs` has an entry for a step, that decides; the rules draw
    the rest, backwards only. Only the given ones may close a circle."""
    links: list[Link] = []
    for index in range(len(steps)):
        found = _link_one(index, steps, links) if index else _NONE
        kept = tuple(sorted({other for other in found.depends_on if 0 <= other < index}))
        drawn = Link(kept, found.is_explicit and bool(kept), found.why if kept else "")
        wanted = needs[index] if index < len(needs) else None
        links.append(drawn if wanted is None else _given(drawn, wanted))
    return links


def _given(drawn: Link, wanted: tuple[int, ...]) -> Link:
    """The link that a labeller gave; where the rules agree, they also say why."""
    if wanted == drawn.depends_on:
        return drawn
    return Link(wanted, drawn.is_explicit and bool(wanted), "the planner reads it so" if wanted else "")


def _link_one(index: int, steps: Sequence[Step], links: Sequence[Link]) -> Link:
    explicit = _explicit(index, steps)
    if explicit is not None:
        return explicit
    step = steps[index]
    if step.announces and _AHEAD.search(step.text) and not _BACK.search(step.lead):
        return _NONE
    if points_out(step.text):
        return _pronoun_link(index, steps)
    if _BACK.search(step.lead):
        return Link((index - 1,), True, f"says {_quote(step.lead)}")
    if _APART.search(step.lead):
        return _NONE
    if _is_sibling(step, steps[index - 1]):
        return Link(links[index - 1].depends_on, why="has the source of the task before it")
    if _is_fresh(step, steps[:index]):
        return _NONE
    return Link((index - 1,), why="names no object of its own, so it works on the previous result")


def _explicit(index: int, steps: Sequence[Step]) -> Link | None:
    """The link that the words of the step name, if they name one."""
    text = steps[index].text
    numbered = _numbered(text)
    if numbered:
        return Link(numbered, True, "names it by its number")
    if _ORIGINAL.search(text):
        return _NONE
    everything = _ALL.search(text)
    if everything:
        return Link(tuple(range(index)), True, f"says {_quote(everything[0])}")
    both = _BOTH.search(text)
    if both and not _BOTH_INSIDE.search(text):
        return Link(tuple(range(max(0, index - 2), index)), True, f"says {_quote(both[0])}")
    maker = _maker(index, steps)
    if maker is not None:
        return Link((maker,), True, "names what that task makes")
    result = _RESULT.search(text)
    return Link((index - 1,), True, f"says {_quote(result[0])}") if result else None


def _quote(said: str) -> str:
    return f"“{' '.join(said.split())[:40]}”"


def _numbered(text: str) -> tuple[int, ...]:
    places = [int(found[1] or found[2]) - 1 for found in _NUMBERED.finditer(text)]
    places += [_ORDINALS.index(found[1].lower()) for found in _ORDINAL.finditer(text)]
    return tuple(places)


def _stem(word: str) -> str:
    """Enough of a word to see "translate" in "translation" and "summarise" in "summary"."""
    return word.lower()[: max(_STEM_CHARS_MIN, min(6, len(word) - 3))]


def _maker(index: int, steps: Sequence[Step]) -> int | None:
    """The latest earlier step that makes what this one calls "the …"."""
    called = [noun for found in _CALLED.finditer(steps[index].text) for noun in found.groups() if noun]
    for stem in (_stem(noun) for noun in called if noun.lower() not in PREPOSITIONS):
        given = rf"\b(?:the|this|that|these|those|my|our|your|attached|each|every) (?:\w+ )?{re.escape(stem)}"
        for other in range(index - 1, -1, -1):
            before = steps[other].text.lower()
            # "the report" in both is the same given thing, which neither step makes.
            if re.search(rf"\b{re.escape(stem)}", before) and not re.search(given, before):
                return other
    return None


def _pronoun_link(index: int, steps: Sequence[Step]) -> Link:
    """What "it" means: the thing made last; but for a text that is at hand, the text itself."""
    step = steps[index]
    makers = [other for other in range(index) if not _only_asks(steps[other])]
    is_sequence = SEQUENCE.search(step.lead) is not None
    is_pointed = re.search(r"\b(?:this|these)\b", step.text, re.I) is not None
    if step.has_document and not is_sequence and (is_pointed or not makers):
        return _NONE
    is_plural = re.search(r"\b(?:them|these|those|they|their)\b", step.text, re.I) is not None
    if is_sequence or is_plural or not makers:
        return Link((index - 1,), True, "points back to the previous result")
    return Link((makers[-1],), True, "points back to the thing made last")


def _only_asks(step: Step) -> bool:
    """Whether a step says something about a thing, rather than making one that "it" could mean."""
    said = words(step.text)
    return not said or said[0] in ASKING_VERBS or is_question(step.text) or bool(_FAULT.match(step.text))


def _is_sibling(step: Step, before: Step) -> bool:
    """ "Extract the date. Extract the total.": the same verb, so the same source."""
    mine, theirs = words(step.text), words(before.text)
    return len(mine) > 1 and mine[:1] == theirs[:1] and mine[0] in VERBS


# --- has it an object of its own? ----------------------------------------------------------------------
def _is_fresh(step: Step, earlier: Sequence[Step]) -> bool:
    text, said = step.text, words(step.text)
    if not said or MASK in text or (is_question(text) and len(said) > 2):
        return True
    if step.has_document and not SEQUENCE.search(step.lead) and _is_about_text(said):
        return True
    if len(said) < 2 or said[1] in PREPOSITIONS:
        return False
    if re.search(r"\d", text) or _names_somebody(text):
        return True
    asked = _ASKS_INSIDE.match(text)
    if asked:
        # "tell me who fits the job", "say if sales are rising" judge what came before.
        return asked[1].lower() not in {"if", "whether"} and _THE_ALONE.search(text) is None
    given = {found[1].lower() for found in _DEFINITE.finditer(text)}
    if given & {found[1].lower() for other in earlier for found in _DEFINITE.finditer(other.text)}:
        return True  # both work on "the report"
    made = _INDEFINITE.search(text)
    if made:
        return _is_own(made, text)
    if given:
        return _COMPLEMENT.search(text) is not None or "my" in said
    return said[0] in _BARE_OBJECT_VERBS or _COMPLEMENT.search(text) is not None


def _is_about_text(said: Sequence[str]) -> bool:
    return said[0] in TEXT_VERBS or bool({"this", "these", "following", "below", "above"} & set(said))


def _is_own(made: re.Match[str], text: str) -> bool:
    """Whether "a …" is a thing of its own rather than something made of the previous result."""
    phrase = [word for word in _COMPLEMENT.split(made[1])[0].lower().split() if word]
    rest = text[made.start() + len(made[0]) - len(made[1]) :]
    if set(phrase) & RELATIONAL_NOUNS:
        return _OF.search(rest) is not None
    return bool(set(phrase) & _WHOLE_THINGS) or _COMPLEMENT.search(rest) is not None


def _names_somebody(text: str) -> bool:
    """A capitalised word after the first: "explain Kubernetes", but not "into French"."""
    return re.search(r"(?<!\binto )(?<!\bin )(?<!\bto )(?<=\w )[A-Z]\w+", text) is not None
