"""Say of each segment whether it starts a task, continues one, or is no task at all.

`Labeller` is the seam: rules here, a small model elsewhere. A labeller returns labels and places, and
never text, so whatever it is, the words of a task are the user's own.

The rules prefer one task: a segment starts a task only on evidence. At a strong boundary (sentence,
line, list item, semicolon) a verb in the imperative, a question or "I need…" is enough. After a comma
or a connective the verb must also have an object of its own, and must not stand in a list of nouns
("rock and roll"), under an infinitive ("how to read and write Greek") or in one movement with the verb
before it ("take the key and open the door").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from monai_node.agents.lexicon import (
    AUXILIARIES,
    CARRYING_VERBS,
    DELIVERABLES,
    EDITING_VERBS,
    EMBEDDING_VERBS,
    MAKING_VERBS,
    MODIFIER_VERBS,
    NOUNLIKE_VERBS,
    SURE_VERBS,
    VERBS,
    WH_CONTRACTIONS,
    WH_WORDS,
    core,
    is_pleasantry,
    is_question,
    vocabulary,
    words,
)
from monai_node.agents.segment import MASK, Segment, without_soft

Label = Literal["task", "continue", "context"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a labeller makes of the segments of one request.

    `labels` has one label per segment, in order. `needs` is empty, or has an entry per segment too: for
    one that starts a task, the segments that start the tasks whose results it needs, which may stand
    later; None where the linker is to decide.
    """

    labels: tuple[Label, ...]
    needs: tuple[tuple[int, ...] | None, ...] = ()

    def __post_init__(self) -> None:
        if self.needs and len(self.needs) != len(self.labels):
            raise ValueError(f"{len(self.needs)} needs for {len(self.labels)} labels")


Labeller = Callable[[Sequence[Segment]], Reading]

# What may follow a verb that could be a noun, and makes it a verb.
_OBJECT_OPENERS = vocabulary("""
    a an the this that these those it them me us him her my our your his its their each every all both any
    some several another one two three four five six seven eight nine ten how what which who whether where
    when why if up out down off into
    """)
_ANAPHORA = vocabulary("it its they them their he his she her there this that these those")
# Verbs that are no request to a model, but may stand before "and" in an infinitive.
_LIFE_VERBS = vocabulary("""
    be become come cook do eat feel grow have hold keep learn leave live lose make meet paint play practise
    roll run sleep stay store study teach think travel visit walk win work
    """)
_SETUP_VERBS = vocabulary("check consider examine look open read see study take use view watch")
_MANNER_WORDS = vocabulary("""
    clearer concise formal friendlier funnier less longer more polite shorter simpler sound
    """)
_HOW_MUCH = vocabulary("big can do does did far is long many much old should tall would")
_SUBORDINATE = re.compile(
    r"\W*(?:and |but |or )?(?:if|unless|so that|because|since|although|though|while|whereas|as long as"
    r"|when|where|which|that|who|once|after|before|until|or|using|without|with|including|such as"
    r"|especially|assuming|given|for example|like|as|in order to|to)\b(?! (?:that|this),)",
    re.I,
)
_THEN = re.compile(
    r"\W*(?:and |but )?(?:then|after that|afterwards|finally|lastly|next|also|plus|meanwhile|separately"
    r"|in the meantime|followed by|while you're at it|once (?:that|you)\b[^,]*,|when (?:that|you)\b[^,]*,)",
    re.I,
)
# A verb form that governs the verb after a bare "and": "how to install and…", "an app that can sing and…".
_GOVERNED = re.compile(
    r"\b(?:to|can|could|will|would|should|must|may|might|let|lets|help|helps|that|which|who|you|they|we|i"
    r"|people|don't|not|never|always)(?=\s+(?:\w+ly\s+)?([a-z]+)\b)",
    re.I,
)
# "How can I save time and reduce waste?": the verb after "and" has the same subject.
_MODAL_QUESTION = re.compile(
    r"\b(?:do|does|did|can|could|should|would|will|may|might|must) (?:i|we|you|they|he|she|one|people)\b",
    re.I,
)
_WANTS = re.compile(
    r"\W*(?:and |also |then |finally |lastly |plus )*(?:i|we)(?:'d| would|'ll)?(?: also| really| then)*"
    r" (?:need|want|like|love)\b",
    re.I,
)
_ABOUT = re.compile(r"\b(?:about|for|on|of|to|celebrating|describing|explaining)\b")
_MADE = re.compile(r"(?:an?|one|another|two|three)\s+((?:[\w-]+\s+){1,4})", re.I)
_OPEN_HEADER = re.compile(
    r"(?:(?:please )?(?:give|show|tell|write|send|make|create|generate|provide|draft|produce|prepare)"
    r"(?: me| us)?|i(?: would| ?'d)? (?:need|want|like))(?: me)?(?: the following| these| all of these)?"
    r"(?: \w+)?(?: things| items| pieces)?\W*",
    re.I,
)
_ABOUT_WRITER = re.compile(
    r"\W*(?:(?:so|and|also|by the way|btw)\W+)?"
    r"(?:i|i'm|i've|i'll|my|we|we're|we've|our|it's for|here|attached)\b",
    re.I,
)
_AND = re.compile(r"\W*(?:and|also|plus|but|then)\b", re.I)
# "…and tell me what it is": asks for what the verb before it finds.
_ANSWERED = re.compile(r"(?:tell|show) (?:me|us) (?:what|how|who|when|where) (?:it|they|he|she|that)\b", re.I)
_QUESTION_END = re.compile(r"\?[\s\"'”)]*\Z")


def label_by_rules(segments: Sequence[Segment]) -> Reading:
    """Payloads are context: which task needs them is decided from the links, and those by the linker."""
    found = iter(_labels(without_soft(segments)))
    labels: list[Label] = []
    for piece in segments:
        if piece.boundary == "soft" and labels:
            labels.append("context" if labels[-1] == "context" else "continue")
        else:
            labels.append(next(found))
    return Reading(tuple(labels))


def _labels(segments: Sequence[Segment]) -> list[Label]:
    listed = _enumerated(segments)
    labels: list[Label] = []
    current = ""  # the task being said, as far as it was said, in lower case
    header = ""  # what announced the list whose items come now
    for index, piece in enumerate(segments):
        later = segments[index + 1 :]
        if piece.kind == "payload":
            labels.append("context")
            continue
        if not words(piece.masked) or is_pleasantry(piece.masked):
            labels.append("continue" if current and not words(piece.masked) else "context")
            continue
        if _is_list_header(piece, later):
            labels.append("context")
            current, header = "", piece.masked
            continue
        if piece.kind != "item" and piece.boundary == "line":
            header = ""
        if index in listed or _starts_task(piece, current, header, later):
            labels.append("task")
            current = piece.masked.lower()
        elif current and not _opens_context(piece, later):
            labels.append("continue")
            current += piece.masked.lower()
        else:
            labels.append("context")
            current = ""
    return _without_lonely_headers(segments, labels)


def is_open_header(text: str) -> bool:
    """Whether a line says what to do with each item below it, and names no object of its own."""
    return _OPEN_HEADER.fullmatch(text.strip()) is not None


# --- lists -------------------------------------------------------------------------------------------
def _enumerated(segments: Sequence[Segment]) -> frozenset[int]:
    """Items of a list of tasks: when most of its items open with a verb, all of them are tasks."""
    items = [at for at, piece in enumerate(segments) if piece.kind == "item"]
    headed = [at for at in items if _has_head(segments[at]) and not _is_modifier(_said(segments[at]))]
    if len(headed) < 2 or len(headed) * 3 < len(items) * 2:
        return frozenset()
    return frozenset(at for at in items if at in headed or len(_said(segments[at])) > 1)


def _is_list_header(piece: Segment, later: Sequence[Segment]) -> bool:
    return bool(later) and later[0].kind == "item" and piece.kind != "item"


def _without_lonely_headers(segments: Sequence[Segment], labels: list[Label]) -> list[Label]:
    """A list header is a task itself when no item under it is one ("Rank these fruits:")."""
    for index, piece in enumerate(segments):
        if not _is_list_header(piece, segments[index + 1 :]):
            continue
        items = [at for at in range(index + 1, len(labels)) if segments[at].kind == "item"]
        if _has_head(piece) and not any(labels[at] == "task" for at in items):
            labels[index] = "task"
            for at in range(index + 1, len(labels)):
                if labels[at] == "context" and segments[at].kind != "payload":
                    labels[at] = "continue"
    return labels


# --- one segment -------------------------------------------------------------------------------------
def _said(piece: Segment) -> list[str]:
    return words(core(piece.masked))


def _has_head(piece: Segment) -> bool:
    said = _said(piece)
    return bool(said) and (said[0] in VERBS or is_question(core(piece.masked)) or _wants(piece))


def _wants(piece: Segment) -> bool:
    """ "I need a haiku…", "I'd like you to…": what the lead leaves over is the thing wanted."""
    return _WANTS.match(piece.masked) is not None and _said(piece)[:1] not in ([], ["i"], ["we"])


def _starts_task(piece: Segment, current: str, header: str, later: Sequence[Segment]) -> bool:
    if piece.kind == "item":
        is_headed = _is_imperative(_said(piece)) or _asks(piece, "")
        return is_headed or (is_open_header(header) and _thing_made(core(piece.masked)) is not None)
    if _is_setup(piece, later):
        return False
    if _wants(piece) and _said(piece)[0] in CARRYING_VERBS | _LIFE_VERBS and any(map(_has_head, later)):
        return False  # "I want to start a bakery. Suggest a name.": what the writer does, not we
    if piece.is_strong or not current:
        return _starts_strongly(piece, current)
    return _starts_weakly(piece, current)


def _is_setup(piece: Segment, later: Sequence[Segment]) -> bool:
    """ "Take this letter, …", "Read the lease and…": hands something over for the verb that follows."""
    said = _said(piece)
    if not said or said[0] not in _SETUP_VERBS or said[1:2] in (["up"], ["for"], ["out"]):
        return False
    if not later or later[0].is_strong:
        return False
    if later[0].boundary != "comma" and said[0] not in {"look", "read", "see", "study"}:
        return False
    return _said(later[0])[:1] != [] and _said(later[0])[0] in VERBS


def _starts_strongly(piece: Segment, current: str) -> bool:
    said = _said(piece)
    if _wants(piece):
        return not (current and _is_modifier(said))
    if current and (_is_modifier(said) or _is_subordinate(piece)):
        return False
    return _asks(piece, current) or _is_imperative(said)


def _starts_weakly(piece: Segment, current: str) -> bool:
    said = _said(piece)
    if not said or _is_subordinate(piece) or core(piece.masked).lower() in current:
        return False
    if is_question(core(piece.masked)):
        return _asks_weakly(piece, current)
    if _is_modifier(said):
        return False
    if said[0] in VERBS:
        return _verb_starts_weakly(piece, said, current)
    return _is_second_thing(piece, current)


def _is_subordinate(piece: Segment) -> bool:
    return _SUBORDINATE.match(piece.masked) is not None and _THEN.match(piece.masked) is None


def _is_modifier(said: Sequence[str]) -> bool:
    """ "Keep it short", "make it rhyme", "write in French", "add a title": how, not what."""
    if len(said) < 2:
        return not said or said[0] in MODIFIER_VERBS
    if said[0] in {"make", "do"}:
        return said[1] in {"it", "sure", "them", "so", "this", "that"}
    if said[0] in {"write", "answer", "respond", "reply"}:
        return said[1] in {"in", "it", "as", "with", "using"}
    if said[0] in {"add", "append", "attach"}:
        return not said[1].isdigit() and said[1] not in {"it", "them", "up"} and "to" not in said
    return said[0] in MODIFIER_VERBS and said[0] not in {"format", "number", "mention", "note", "wrap"}


def _is_imperative(said: Sequence[str]) -> bool:
    if not said or said[0] not in VERBS:
        return False
    if len(said) == 1:
        return said[0] in SURE_VERBS
    # "Work is hard.", "Plan B failed": the word is a noun here.
    return said[1] not in AUXILIARIES and not (said[0] in NOUNLIKE_VERBS and said[1] in {"of", "and", "b"})


def _verb_starts_weakly(piece: Segment, said: Sequence[str], current: str) -> bool:
    before = words(core(current))
    is_then = _THEN.match(piece.masked) is not None
    has_quote = MASK in piece.masked
    if len(said) < 2 and not has_quote and not (is_then and said[0] in SURE_VERBS):
        return False
    if not is_then and before and _is_one_movement(before, said):
        return False
    if not is_then and piece.boundary == "word" and _is_governed(current):
        return False
    if is_then:
        return True
    if _ANSWERED.match(core(piece.masked)) is not None:
        return False
    if before and before[0] not in VERBS and _AND.match(piece.masked) is None:
        return False  # "I need a visa, tell me how": after something else than a verb it takes an "and"
    if said[0] in SURE_VERBS:
        return not (len(said) > 1 and said[1] in AUXILIARIES | {"and", "or", "of"})
    return has_quote or said[1] in _OBJECT_OPENERS or said[1].isdigit()


def _is_one_movement(before: Sequence[str], said: Sequence[str]) -> bool:
    """Two edits of one text, or two grips on one thing: "tidy it and fix the spelling"."""
    if before[0] in CARRYING_VERBS and said[0] in CARRYING_VERBS:
        return True
    return _is_edit(before) and _is_edit(said)


def _is_edit(said: Sequence[str]) -> bool:
    return said[0] in EDITING_VERBS or (said[0] == "make" and bool(_MANNER_WORDS & set(said)))


def _is_governed(current: str) -> bool:
    last = re.split(r"[,;.?!]\s", core(current))[-1]
    if _MODAL_QUESTION.search(last):
        return True
    governed = {verb.lower() for verb in _GOVERNED.findall(last)}
    return not governed.isdisjoint(SURE_VERBS | CARRYING_VERBS | _LIFE_VERBS)


def _is_second_thing(piece: Segment, current: str) -> bool:
    """ "…and a limerick about cats" after "write a haiku about dogs": each with its own subject."""
    if _thing_made(core(piece.masked)) is None or not _ABOUT.search(piece.masked):
        return False
    head, _, rest = current.partition(" a")
    before = words(core(head))
    makes = not before or before[0] in MAKING_VERBS
    return makes and bool(set(words(rest)) & DELIVERABLES) and _ABOUT.search(rest) is not None


def _thing_made(text: str) -> str | None:
    """What kind of thing a noun phrase orders: "a limerick about cats" → "limerick"."""
    found = _MADE.match(text + " ")
    named = [word for word in words(found[1]) if word in DELIVERABLES] if found else []
    return named[0] if named else None


# --- questions ---------------------------------------------------------------------------------------
def _asks(piece: Segment, current: str) -> bool:
    """A question of its own. "Why?" and "When was it built?" right after a question belong to that."""
    text, said = core(piece.masked), _said(piece)
    if not is_question(text):
        return False
    if not current:
        return True
    if said[0] in AUXILIARIES and _QUESTION_END.search(piece.masked) is None:
        return False
    return len(said) > 2 and not (is_question(core(current)) and _ANAPHORA & set(said))


def _asks_weakly(piece: Segment, current: str) -> bool:
    """A question after "and": a main clause (its verb before its subject) that borrows nothing."""
    said, before = _said(piece), words(core(current))
    if not before or len(said) < 3 or _ANAPHORA & set(said):
        return False
    if _AND.match(piece.masked) is None:
        return False
    if said[0] in AUXILIARIES or before[0] in EMBEDDING_VERBS:
        return False
    is_half_asked = before[0] in WH_WORDS - {"who"} and not AUXILIARIES & set(before)
    return not is_half_asked and _is_main_question(said)


def _is_main_question(said: Sequence[str]) -> bool:
    if said[0] in WH_CONTRACTIONS | {"who"}:
        return True
    if said[0] == "how":
        return said[1] in _HOW_MUCH
    return said[0] in WH_WORDS and said[1] in AUXILIARIES


def _opens_context(piece: Segment, later: Sequence[Segment]) -> bool:
    """A sentence about the writer, with a task still to come, is background for what follows."""
    if not piece.is_strong or _ABOUT_WRITER.match(piece.masked) is None:
        return False
    return any(_has_head(other) for other in later if other.kind != "payload")
