"""Put the words of each task together from spans of the request.

A part is what a labeller called one task: its own clauses, the sentences that set its scene, the verb
that was said once for several things, and the document it is about. Nothing here writes a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from monai_node.agents.label import Label, is_open_header
from monai_node.agents.lexicon import (
    DOCUMENT_NOUNS,
    TEXT_VERBS,
    VERBS,
    core,
    core_span,
    is_pleasantry,
    vocabulary,
    words,
)
from monai_node.agents.link import Link, Step
from monai_node.agents.manner import says_how
from monai_node.agents.segment import MASK, Segment, mask
from monai_node.agents.turns import refers_back

Span = tuple[int, int]

_ARTICLES = vocabulary("a an another one some the three two")
_POINTERS = vocabulary("each every my our that the these this those")
_POINTING = vocabulary("above attached below following these this")


@dataclass(slots=True)
class Part:
    """One task while it is put together. `verb` and `object` were said elsewhere, once for several."""

    clauses: list[Segment]
    verb: Span | None = None
    object: Span | None = None
    scene: list[Segment] = field(default_factory=list[Segment])
    documents: list[Segment] = field(default_factory=list[Segment])

    @property
    def opening(self) -> Segment:
        return self.clauses[0]

    @property
    def end(self) -> int:
        return self.clauses[-1].end

    def head_span(self, text: str) -> Span:
        """Its words as far as they stand together."""
        end = self.opening.end
        for clause in self.clauses[1:]:
            if clause.start == end:
                end = clause.end
        return core_span(text, self.opening.start, end)

    def own_text(self) -> str:
        return "".join(clause.text for clause in self.clauses)

    def announces(self, document: Segment) -> bool:
        """Whether a document stands right behind words of this part."""
        return any(clause.end == document.start for clause in self.clauses)

    def calls_for(self, document: Segment) -> bool:
        """Whether its words end in a colon there."""
        return any(c.end == document.start and c.text.rstrip().endswith(":") for c in self.clauses)


@dataclass(slots=True)
class Request:
    """A request taken apart: its tasks in order, the sentences around them, the texts it brings."""

    text: str
    parts: list[Part] = field(default_factory=list[Part])
    scenes: list[Segment] = field(default_factory=list[Segment])
    documents: list[Segment] = field(default_factory=list[Segment])


def take_apart(text: str, segments: Sequence[Segment], labels: Sequence[Label]) -> Request:
    """Sort segments into parts, scenes and documents. Pleasantries belong to none of them."""
    found = Request(text)
    header: Segment | None = None
    for piece, label in zip(segments, labels, strict=True):
        if piece.kind == "payload":
            found.documents.append(piece)
        elif label == "task" and words(core(piece.masked)):
            found.parts.append(Part([piece], verb=_shared_verb(found, piece, header)))
        elif found.parts and (label == "continue" or _says_how(found, piece)):
            found.parts[-1].clauses.append(piece)
        elif is_open_header(piece.masked):
            header = piece
        elif not is_pleasantry(piece.masked) and words(piece.masked):
            found.scenes.append(piece)
    found.parts = _with_shared_objects(found)
    return found


def _says_how(request: Request, piece: Segment) -> bool:
    """Whether a sentence says how the result of the task before it, in its paragraph, is to be."""
    between = request.text[request.parts[-1].end : piece.start]
    is_apart = "\n\n" in between.replace("\r", "")
    return not is_apart and piece.is_strong and piece.kind == "clause" and says_how(piece.masked)


def step_of(request: Request, part: Part) -> Step:
    """What the linker sees of a part."""
    text = part.own_text()
    start, end = core_span(text, 0, len(text))
    own = mask(text[start:end])
    if part.object:
        own += request.text[slice(*part.object)]
    announces = any(map(part.calls_for, request.documents))
    return Step(own, text[:start], bool(request.documents), announces)


def share(request: Request, links: Sequence[Link], steps: Sequence[Step]) -> None:
    """Give scenes and documents to the tasks that begin from the request rather than from a result.

    A scene goes to those after it, unless it says how the one before it is to be done; a document to the
    task that announces it and to those that speak of it.
    """
    begun = [
        (part, step)
        for part, step, found in zip(request.parts, steps, links, strict=True)
        if not found.depends_on
    ]
    for scene in request.scenes:
        owners = [part for part, _ in begun if part.opening.start > scene.start]
        if scene.masked.rstrip().endswith(":"):
            owners = owners[:1]
        for part in owners or _next_to(request.parts, scene):
            part.scene.append(scene)
    for document in request.documents:
        announcing = [part.announces(document) for part in request.parts]
        called = {
            noun
            for step, is_it in zip(steps, announcing, strict=True)
            for noun in _definites(words(step.text))
            if is_it
        }
        owners = [
            part
            for part, step, found, is_it in zip(request.parts, steps, links, announcing, strict=True)
            if part.calls_for(document)
            or (not found.depends_on and (is_it or (not step.announces and _is_about(step, called))))
        ]
        for part in owners or _next_to(request.parts, document):
            part.documents.append(document)


def words_of(request: Request, part: Part) -> str:
    """The text of a task: scene, own words, documents. Neighbouring spans stay exactly as they were."""
    spans, documents = _spans(request, part)
    pieces = (_joined(request.text, spans, " "), _joined(request.text, documents, "\n\n"))
    return "\n\n".join(piece for piece in pieces if piece)


def spans_of(request: Request, part: Part) -> tuple[Span, ...]:
    """Where the words of a task stand in the request, in the order of its text."""
    spans, documents = _spans(request, part)
    return tuple(span for span in (*spans, *documents) if request.text[slice(*span)].strip())


def _spans(request: Request, part: Part) -> tuple[list[Span], list[Span]]:
    """Of the words of a task, and of the documents that stand apart from them."""
    spans = [(scene.start, scene.end) for scene in part.scene]
    if part.verb:
        spans.append(part.verb)
    announced = [] if part.object else [each for each in part.documents if part.announces(each)]
    spans += _own_spans(request.text, part, announced)
    if part.object:
        spans.append(part.object)
    return spans, [(each.start, each.end) for each in part.documents if each not in announced]


def _own_spans(text: str, part: Part, announced: Sequence[Segment]) -> list[Span]:
    """The part's clauses and the documents right behind them, neighbours as one span, without the lead
    of the first and the last's tail."""
    runs: list[Span] = []
    for piece in sorted([*part.clauses, *announced], key=lambda piece: piece.start):
        if runs and runs[-1][1] == piece.start:
            runs[-1] = (runs[-1][0], piece.end)
        else:
            runs.append((piece.start, piece.end))
    start, end = runs[0]
    is_text = any(each.end == end for each in announced)
    core_start, core_end = core_span(text, start, end)
    runs[0] = core_start, end if is_text else core_end
    return runs


def _joined(text: str, spans: Sequence[Span], glue: str) -> str:
    pieces = [text[start:end].strip() for start, end in spans]
    return glue.join(piece for piece in pieces if piece)


# --- said once for several ---------------------------------------------------------------------------
def _shared_verb(request: Request, piece: Segment, header: Segment | None) -> Span | None:
    """The verb of "…and a limerick about cats": that of the task before it, or of the list's header."""
    text = request.text
    if words(core(piece.masked))[0] not in _ARTICLES:
        return None
    if piece.kind == "item":
        if header is None:
            return None
        start, end = core_span(text, header.start, header.end)
        return (start, end) if start < end else None
    if not request.parts:
        return None
    before = request.parts[-1]
    if before.verb is not None:
        return before.verb
    start, end = before.head_span(text)
    said = text[start:end].split(maxsplit=2)[:2]
    if not said or said[0].lower() not in VERBS:
        return None
    has_receiver = len(said) > 1 and said[1].lower() in {"me", "us"}
    return start, text.index(said[1], start + len(said[0])) + 2 if has_receiver else start + len(said[0])


def _with_shared_objects(request: Request) -> list[Part]:
    """ "Summarise and translate the following: …" are two tasks whose object is said once. Without a
    document to share, two verbs with one object are one task."""
    kept: list[Part] = []
    for part in request.parts:
        before = kept[-1] if kept else None
        said = words(core(part.opening.masked))
        if before is None or part.opening.boundary != "word" or not _is_bare_verb(before.clauses[-1]):
            kept.append(part)
        elif request.documents and said[0] in TEXT_VERBS and len(before.clauses) == 1:
            start, end = part.head_span(request.text)
            before.object = (start + len(said[0]), end)
            kept.append(part)
        else:
            before.clauses += part.clauses
    return kept


def _is_bare_verb(piece: Segment) -> bool:
    said = words(core(piece.masked))
    return bool(said) and said[0] in VERBS and all(word in {"for", "out", "up"} for word in said[1:])


# --- whose scene, whose document -----------------------------------------------------------------------
def _definites(said: Sequence[str]) -> set[str]:
    return {noun for pointer, noun in pairwise(said) if pointer in _POINTERS}


def _is_about(step: Step, called: set[str]) -> bool:
    """Whether a task speaks of the document, which another task announces and calls `called`."""
    said = words(step.text)
    if MASK in step.text:
        return False
    if said[0] in TEXT_VERBS or _POINTING & set(said) or refers_back(step.text):
        return True
    return bool(_definites(said) & (DOCUMENT_NOUNS | called))


def _next_to(parts: Sequence[Part], piece: Segment) -> list[Part]:
    """The part that a piece nobody claims belongs to: the next for a scene, the one before a document."""
    after = [part for part in parts if part.opening.start > piece.start]
    before = [part for part in parts if part.end <= piece.start]
    if piece.kind == "payload":
        return before[-1:] or after[:1]
    return after[:1] or before[-1:]
