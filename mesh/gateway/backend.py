"""What the gateway needs from the node behind it: one small protocol, and the values it shows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.mesh.embeddings import Embedded, EmbeddingModel, Text
from monai_node.mesh.store import Decision
from monai_node.registry.events import RunEvent
from monai_node.registry.ids import RunId
from monai_node.registry.wire import Label


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model at one peer, as `GET /v1/models` lists it: the fields of its advert."""

    alias: str
    peer: str
    peer_name: str
    digest: str = ""
    architecture: str = ""
    parameter_count: int = 0
    quantisation: str = ""
    n_ctx: int = 0
    licence: str = ""

    @property
    def qualified(self) -> str:
        """`alias@peer`: this model at this peer and nowhere else."""
        return f"{self.alias}@{self.peer}"


@dataclass(frozen=True, slots=True)
class RouteCandidate:
    """One peer that could do a task, best first in a list; `reasons` says why it stands there in words, and
    `terms` in numbers. Peers of one `tier` do it equally well: among them time decides."""

    peer: str
    peer_name: str
    skill: str
    model: str
    score: float
    reasons: list[str] = field(default_factory=list[str])
    is_chosen: bool = False
    tier: int = 0
    terms: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class PassedOver:
    """One offer that is not asked for a task, and why."""

    peer: str
    peer_name: str
    skill: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Routed:
    """Who would be asked for a task, and who would not (some of these, where they are many).

    `decision` is "route" when a skill made for such tasks comes first, "fallback" when a general one does,
    "none" when nobody can be asked; `reason` says it in a sentence. `none` is the calibrated chance, 0 to 1,
    that no narrow skill fits; None when that was not found out.
    """

    decision: Literal["route", "fallback", "none"]
    none: float | None
    reason: str
    candidates: Sequence[RouteCandidate]
    filtered: Sequence[PassedOver]


@dataclass(frozen=True, slots=True)
class PeerView:
    """A node of the mesh as seen from here. `last_heard_seconds` ago; None for this node itself."""

    id: str
    name: str
    state: Literal["alive", "suspect", "gone", "self"]
    addrs: list[str] = field(default_factory=list[str])
    models: list[str] = field(default_factory=list[str])
    skills: list[str] = field(default_factory=list[str])
    running: int = 0
    queued: int = 0
    last_heard_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and by the id of each task who could do it now, best first."""

    plan: Plan
    candidates: Mapping[str, Sequence[RouteCandidate]]


class Runs(Protocol):
    def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        """The run's events, ending with exactly one `answer.completed` or `error`.

        Iterated, and closed, in one task; closing it cancels the run. It ends within
        `request.options.deadline_seconds`. A model that no peer offers is a NotFound with the code
        `model_not_found`, either raised or as the `error` event.
        """
        ...


class Backend(Runs, Protocol):
    """Runs requests. Every method may raise a MonaiError, which becomes the HTTP answer."""

    async def plan(self, request: RunRequest) -> Planned:
        """The plan that `run` would carry out for this request. Nobody being known who could do its
        tasks, or nobody being able to tell, is no error."""
        ...

    async def accept(self, request: RunRequest) -> None:
        """Told of a run that went well and whose plan its user had sent: what follows for requests like
        this one is the backend's to decide. Raises nothing."""
        ...

    async def feedback(self, run: RunId, task: str | None, rating: float) -> Sequence[str]:
        """Take what a user says of a run, or of one of its tasks: 0 for bad to 1 for good. The ids of the
        tasks for which it counts; NotFound when the run is not known, or not any more."""
        ...

    async def decisions(self, limit: int) -> Sequence[Decision]:
        """The last attempts of tasks, newest first; in words of peers, never of users."""
        ...

    async def route(self, text: str, label: Label | None) -> Routed:
        """Who would be asked to do the task `text`, for None under the label of requests that have none;
        nothing is sent to anyone."""
        ...

    def embedding_model(self) -> EmbeddingModel | None:
        """What `embed` embeds with; None where there is nothing."""
        ...

    async def embed(self, texts: Sequence[Text]) -> Embedded:
        """The vectors of texts, or of texts of which the tokens are given, in their order. What the model
        cannot read is an InvalidRequest or ContextLengthExceeded that names it."""
        ...

    def models(self) -> Sequence[ModelEntry]: ...

    def peers(self) -> Sequence[PeerView]: ...

    def ejected_count(self) -> int:
        """Peers that are not asked for a while, be it for one skill, since they failed."""
        ...

    def is_ready(self) -> tuple[bool, str]:
        """Whether at least one skill is reachable and, when not, why, in one sentence."""
        ...
