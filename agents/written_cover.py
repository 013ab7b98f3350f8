"""Hold a written plan against the request: which task says which part, and what no task says.

Leaving out a task is the commonest error of models that plan, so what they left out is looked for by
rules. A left-out sentence that only sets the scene is given to the tasks that it was said for; a left-out
task, number, name, quote or address ends the matter: the plan is not to be relied on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from monai_node.agents.grounding import Vocabulary, content_words, names, numbers
from monai_node.agents.label import is_open_header, label_by_rules
from monai_node.agents.lexicon import core_span, is_pleasantry
from monai_node.agents.parts import Span
from monai_node.agents.plan import Draft
from monai_node.agents.segment import Segment
from monai_node.agents.stand_ins import Shown, StandIn
from monai_node.agents.turns import refers_back

# A part of the request is said by a task that has at least this part of its content words.
_COVERED_SHARE_MIN = 0.5


@dataclass(frozen=True, slots=True)
class Cover:
    """Per task: its text, with marks, completed; the spans of the request that it says, in the order of
    the request; whether it works on a payload. `is_list`: each task is an item of a list."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    has_payload: tuple[bool, ...]
    is_list: bool


def cover(draft: Draft, shown: Shown, written: Sequence[tuple[str, bool]]) -> Cover | None:
    """How the written tasks, each with whether it begins from the request rather than from a result,
    cover the request; None when they leave out what a person would miss."""
    found = _Covering(draft, shown, written)
    if not found.complete():
        return None
    found.restore_quotes()
    if not found.has_all_facts():
        return None
    found.hand_out_payloads()
    return Cover(
        texts=tuple(found.texts()),
        spans=tuple(found.spans_of(at) for at in range(len(written))),
        has_payload=tuple(any(each.is_payload for each in found.named(at)) for at in range(len(written))),
        is_list=all(found.opens_with_item(at) for at in range(len(written))),
    )


@dataclass(slots=True)
class _Extended:
    """A written task and what it is given beside its own words."""

    text: str
    is_root: bool
    words: Vocabulary
    names: frozenset[str]  # of stand-ins
    before: list[str] = field(default_factory=list[str])
    after: list[str] = field(default_factory=list[str])


class _Covering:
    """The work of one `cover`."""

    def __init__(self, draft: Draft, shown: Shown, written: Sequence[tuple[str, bool]]) -> None:
        self._draft = draft
        self._shown = shown
        self._tasks = [
            _Extended(text, is_root, Vocabulary([shown.without_marks(text)]), shown.named_in(text))
            for text, is_root in written
        ]
        self._spoken = [piece for piece in draft.segments if piece.kind != "payload"]
        self._owners = {piece.start: self._owners_of(piece) for piece in self._spoken}

    # --- who says what --------------------------------------------------------------------------------
    def _owners_of(self, piece: Segment) -> list[int]:
        """The tasks that say this part: those that share most of its words, if they share enough."""
        said = content_words(piece.masked)
        inside = {each.name for each in self._stand_ins_in(piece)}
        total = len(said) + len(inside)
        if not total:
            return []
        shares = [
            (task.words.share(said) * len(said) + len(inside & task.names)) / total for task in self._tasks
        ]
        best = max(shares)
        return [at for at, share in enumerate(shares) if share >= max(best, _COVERED_SHARE_MIN)]

    def _stand_ins_in(self, piece: Segment) -> list[StandIn]:
        return [each for each in self._shown.stand_ins if piece.start <= each.start < piece.end]

    def complete(self) -> bool:
        """Give what no task says to those it belongs to; False when a whole task was left out."""
        left_out = [piece for piece in self._spoken if not self._owners[piece.start] and _says(piece)]
        if not left_out:
            return True
        labels = label_by_rules(self._draft.segments).labels
        label_of = dict(zip((each.start for each in self._draft.segments), labels, strict=True))
        for piece in left_out:
            label = label_of[piece.start]
            if label == "task":
                return False
            before = self._owners_before(piece.start)
            if label == "continue" and before:
                self._append(before, piece)
            elif not is_open_header(piece.masked):
                after = self._owners_after(piece.start)
                self._prepend([at for at in after if self._tasks[at].is_root] or after or before, piece)
        return True

    def _owners_before(self, start: int) -> list[int]:
        """Of the nearest part before `start` that some task says."""
        earlier = [each.start for each in self._spoken if each.start < start and self._owners[each.start]]
        return self._owners[earlier[-1]] if earlier else []

    def _owners_after(self, start: int) -> list[int]:
        """Of all parts after `start`, in their order."""
        later = [at for each in self._spoken if each.start > start for at in self._owners[each.start]]
        return list(dict.fromkeys(later))

    def _append(self, owners: Sequence[int], piece: Segment) -> None:
        for at in owners:
            self._tasks[at].after.append(self._with_marks(piece))
        self._owners[piece.start] = list(owners)

    def _prepend(self, owners: Sequence[int], piece: Segment) -> None:
        for at in owners:
            self._tasks[at].before.append(self._with_marks(piece))
        self._owners[piece.start] = list(owners)

    def _with_marks(self, piece: Segment) -> str:
        """The words of a part, as the model was shown them."""
        text, at = "", piece.start
        for each in self._stand_ins_in(piece):
            text += self._draft.text[at : each.start] + f"⟦{each.name}⟧"
            at = each.end
        return (text + self._draft.text[at : piece.end]).strip()

    # --- facts ------------------------------------------------------------------------------------------
    def restore_quotes(self) -> None:
        """A quote or address that no task names belongs to the tasks that say the part it stands in."""
        named = {name for text in self.texts() for name in self._shown.named_in(text)}
        for piece in self._spoken:
            for each in self._stand_ins_in(piece):
                if each.name not in named:
                    for at in self._owners[piece.start]:
                        self._tasks[at].after.append(f"⟦{each.name}⟧")

    def has_all_facts(self) -> bool:
        """Whether every number, name, quote and address of the request stands in some task."""
        texts = self.texts()
        named = {name for text in texts for name in self._shown.named_in(text)}
        if any(each.name not in named for each in self._shown.stand_ins if not each.is_payload):
            return False
        carried = Vocabulary(map(self._shown.without_marks, texts))
        said = [piece.masked for piece in self._spoken if _says(piece)]
        return all(
            all(map(carried.has_number, numbers(text))) and all(map(carried.has, names(text)))
            for text in said
        )

    # --- documents --------------------------------------------------------------------------------------
    def hand_out_payloads(self) -> None:
        """A payload that no task names goes to the task said last before it, or first after it, and to
        those that point at something and name nothing."""
        named = {name for at in range(len(self._tasks)) for name in (each.name for each in self.named(at))}
        for each in self._shown.stand_ins:
            if not each.is_payload or each.name in named:
                continue
            nearest = self._owners_before(each.start) or self._owners_after(each.start)[:1] or [0]
            for at, task in enumerate(self._tasks):
                if at in nearest or (not self.named(at) and refers_back(task.text)):
                    task.after.append(f"⟦{each.name}⟧")

    def named(self, at: int) -> list[StandIn]:
        """What a task refers to by mark, in the order of the request."""
        names_in = self._shown.named_in(self._text(at))
        return [each for each in self._shown.stand_ins if each.name in names_in]

    # --- what comes of it -------------------------------------------------------------------------------
    def texts(self) -> list[str]:
        return [self._text(at) for at in range(len(self._tasks))]

    def _text(self, at: int) -> str:
        task = self._tasks[at]
        return " ".join([*task.before, task.text, *task.after])

    def spans_of(self, at: int) -> tuple[Span, ...]:
        """Where what a task says stands in the request: neighbouring parts are one span."""
        runs: list[Span] = []
        for piece in self._draft.segments:
            if piece.kind == "payload" or at not in self._owners[piece.start]:
                continue
            if runs and runs[-1][1] == piece.start:
                runs[-1] = (runs[-1][0], piece.end)
            else:
                runs.append((piece.start, piece.end))
        spans = [core_span(self._draft.text, *run) for run in runs]
        spans += [(each.start, each.end) for each in self.named(at) if each.is_payload]
        return tuple(sorted(span for span in spans if span[0] < span[1]))

    def opens_with_item(self, at: int) -> bool:
        own = [piece for piece in self._spoken if at in self._owners[piece.start]]
        return bool(own) and own[0].kind == "item"


def _says(piece: Segment) -> bool:
    """Whether anything would be missed without this part."""
    return bool(content_words(piece.masked)) and not is_pleasantry(piece.masked)
