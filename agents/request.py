"""What a user asked for: one request, checked, in the mesh's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from monai_node.agents.graph import TASKS_MAX, TASKS_READ_MAX, Task
from monai_node.registry.advert import PRICE_MAX
from monai_node.registry.ids import RunId
from monai_node.registry.wire import (
    RUN_SECONDS_DEFAULT,
    RUN_SECONDS_MAX,
    ChatMessage,
    Label,
    Parameters,
)
from monai_node.router.policy import NAMES_MAX, listed

_Tasks = Annotated[list[Task], Field(max_length=TASKS_READ_MAX, fail_fast=True)]


def _names(texts: list[str]) -> list[str]:
    listed(texts)
    return texts


_Names = Annotated[list[str], Field(max_length=NAMES_MAX, fail_fast=True), AfterValidator(_names)]


class MeshOptions(BaseModel):
    """The `mesh: {…}` object of a request. Strict: an unknown key is an error, so that a misspelt
    privacy label never passes for the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    privacy: Label | None = Field(default=None, description="who may see the request")
    plan: Literal["auto", "never"] | _Tasks = "auto"
    budget_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    budget: float | None = Field(
        default=None,
        ge=0,
        le=PRICE_MAX,
        allow_inf_nan=False,
        description="the most that all tasks may be expected to cost",
    )
    allow: _Names = Field(default=[], description="only these: peer:ID, model:ALIAS, skill:ID")
    deny: _Names = Field(default=[], description="never these, whatever is allowed")
    shown: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=TASKS_MAX,
        description="tasks of a plan that is sent whose results make the answer; else those no other needs",
    )
    deadline_seconds: float = Field(default=RUN_SECONDS_DEFAULT, gt=0, le=RUN_SECONDS_MAX)
    events: bool = False
    now: str | None = Field(default=None, max_length=40, description="ISO 8601 with offset")
    timezone: str | None = Field(default=None, max_length=64)
    locale: str | None = Field(default=None, max_length=35)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One user call. `model` is "mesh" or names one model (`alias` or `alias@peer`).

    When `is_completion`, the one message is no chat but a text to go on with as it is, or `tokens` are, in
    the named model's own ids.
    """

    run: RunId
    messages: tuple[ChatMessage, ...]
    model: str = "mesh"
    parameters: Parameters = field(default_factory=Parameters)
    options: MeshOptions = field(default_factory=MeshOptions)
    traceparent: str | None = None
    is_completion: bool = False
    tokens: tuple[int, ...] = ()
