"""Who plans at this gateway: joins recipes, labellers and models of the mesh to one planner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_node.agents.label import Reading
from monai_node.agents.means import Sender
from monai_node.agents.plan import Draft, Plan, PlannerName
from monai_node.agents.planner import Planner, Refine, Source, labelling
from monai_node.agents.segment import Segment
from monai_node.agents.skill_phrases import word
from monai_node.agents.typed_plan import comparable, over_skills
from monai_node.agents.typed_steps import is_typed, typed, typed_steps
from monai_node.agents.writer import WRITING_SECONDS_MAX, Planners, Writers, writing
from monai_node.mesh.config import PlannerChoice
from monai_node.mesh.examiner import Examiner
from monai_node.mesh.marks import EXAMS_FILE, MarkBook
from monai_node.registry.errors import NoProvider, SetupError
from monai_node.registry.wire import Label
from monai_node.router.health import Health
from monai_node.router.likeness import PhraseScorer
from monai_node.router.offer import Offer
from monai_node.router.planners import Mark, Writer, one_each, planners, writer_of
from monai_node.router.policy import NO_POLICY, Policy
from monai_node.router.rank import Candidate

Read = Callable[[Sequence[Segment]], Awaitable[Reading]]

# Many times what either takes on two idle cores (26 ms and 390 ms): a busy machine must not make us plan
# worse.
SMALL_SECONDS_MAX = 3.0
LORA_SECONDS_MAX = 3.0


@dataclass(frozen=True, slots=True)
class Reach:
    """The mesh as planning sees it: what is offered at this moment, who sends tasks there, what is known
    of peers. `clock` is the dispatcher's; within `policy`, the owner's, every request has its own."""

    offers: Callable[[], Sequence[Offer]]
    dispatcher: Sender
    health: Health
    clock: Callable[[], float]
    policy: Policy = NO_POLICY


@dataclass(frozen=True, slots=True)
class Labellers:
    """The labellers that are there; each reads segments in a process of its own, or raises a MonaiError."""

    small: Read | None = None
    lora: Read | None = None


def _nobody(_: Policy) -> list[Candidate]:
    return []


@dataclass(frozen=True, slots=True)
class Planning:
    """The planner, and what keeps it knowing who plans best. `models` names, for a policy, the models that
    may plan, best first, with what is known of them, asked or not; nobody where none is ever asked."""

    planner: Planner
    models: Planners = _nobody
    examiner: Examiner | None = None

    async def keep_examined(self) -> None:
        """Examine models of the mesh, one at a time, until cancelled; returns where none is needed."""
        if self.examiner is not None:
            await self.examiner.keep_examined()


def open_planning(
    choice: PlannerChoice,
    reach: Reach,
    folder: Path,
    label: Label,
    *,
    recipes: Source | None = None,
    labellers: Labellers | None = None,
    scorer: PhraseScorer | None = None,
) -> Planning:
    """The planning that the owner chose; rules stand behind every choice, and where skills of the mesh
    take or make other things than text, `scorer` compares them with what was read.

    `auto` has a model of the mesh plan only after it was measured to plan better than the best labeller
    here; its marks are kept in `folder`, and exams are taken under `label`. SetupError when a labeller was
    chosen that is not there.
    """
    local = _local_sources(choice, labellers or Labellers())
    refine = _by_types(reach, scorer) if scorer is not None else None
    if choice not in ("auto", "model"):
        return Planning(Planner([*_given(recipes), *local], refine))
    writers = Writers(reach.dispatcher, reach.clock)
    if choice == "model":

        def anybody(of: Policy) -> list[Candidate]:
            return _candidates(reach, {}, of)

        sources = [*_given(recipes), writing(writers, anybody), *local]
        return Planning(Planner(sources, refine), anybody)
    examiner = _examiner(reach, writers, local, MarkBook(folder / EXAMS_FILE, time.time), label)

    def examined(of: Policy) -> list[Candidate]:
        return _candidates(reach, examiner.marks(), of)

    def better(of: Policy) -> list[Candidate]:
        marks = examiner.better()
        return [each for each in _candidates(reach, marks, of) if (each.peer, each.model) in marks]

    sources = [*_given(recipes), writing(writers, better), *local]
    return Planning(Planner(sources, refine), examined, examiner)


def _by_types(reach: Reach, scorer: PhraseScorer) -> Refine:
    async def refine(draft: Draft, plan: Plan, policy: Policy) -> Plan:
        """Over the narrow skills that are offered at this moment, if any is more than text to text."""
        skills = comparable(reach.offers(), policy.within(reach.policy))
        kinds = [typed(skill) for skill in skills.values()]
        if draft.whole == "too_long" or not is_typed(kinds):
            return plan
        wording = await asyncio.to_thread(word, draft.text)
        scores = await scorer.compare([phrase.text for phrase in wording.phrases], list(skills.values()))
        steps = await asyncio.to_thread(typed_steps, wording, scores.astype(float), kinds) or ()
        is_more_than_text = is_typed([typed(skills[step.skill]) for step in steps])
        return over_skills(draft, plan, steps) if is_more_than_text else plan

    return refine


def _given(source: Source | None) -> list[Source]:
    return [source] if source is not None else []


def _local_sources(choice: PlannerChoice, present: Labellers) -> list[Source]:
    """The labellers that are asked, in order; the one that was chosen must be there."""
    small = _labelling("small", SMALL_SECONDS_MAX, present.small)
    lora = _labelling("lora", LORA_SECONDS_MAX, present.lora)
    match choice:
        case "rules":
            return []
        case "lora":
            return [*_chosen("lora", lora), *small]
        case "small":
            return _chosen("small", small)
        case _:  # where both are there, the small one is as good and thirty times as quick
            return small or lora


def _labelling(name: PlannerName, seconds: float, read: Read | None) -> list[Source]:
    return [labelling(name, seconds, read)] if read is not None else []


def _chosen(name: str, sources: list[Source]) -> list[Source]:
    if not sources:
        raise SetupError(f"the planner {name!r} is not installed here; choose another --planner")
    return sources


def _candidates(reach: Reach, marks: dict[Writer, Mark], of: Policy) -> list[Candidate]:
    policy = of.within(reach.policy)
    return planners(reach.offers(), marks, policy=policy, health=reach.health, now=reach.clock())


def _examiner(
    reach: Reach, writers: Writers, local: Sequence[Source], book: MarkBook, label: Label
) -> Examiner:
    async def plan_by(offer: Offer, draft: Draft) -> Plan | None:
        found = [
            each
            for each in _candidates(reach, {}, Policy(label))
            if (each.peer, each.model) == writer_of(offer)
        ]
        if not found:
            raise NoProvider("the model has gone, or may not be shown the exam")
        return await writers.plan(draft, found, label, WRITING_SECONDS_MAX)

    here = Planner(local)

    async def plan_locally(draft: Draft) -> Plan:
        return await here.read(draft, Policy(label))

    def known() -> Sequence[Offer]:
        """Not strangers: the exam is public, and who has learnt it by heart would be shown every request.
        Their models plan only where the owner says so, by `--planner model`."""
        return one_each(reach.offers(), Policy("trusted").within(reach.policy))

    return Examiner(book, known, plan_by, plan_locally, reach.clock)
