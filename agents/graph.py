"""Tasks and the graph they form. Pure values; the plan's owner may read, edit and send them back."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TASKS_MAX = 32
DEPTH_MAX = 16
TASK_TEXT_CHARS_MAX = 1 << 20

_TaskName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w-]+$")]


class Task(BaseModel):
    """One thing to be done by one peer.

    `text` is the task in words, cut from the request. `depends_on` names the tasks whose results it is
    given. `turns` are indices of the earlier messages of the conversation that it needs. `skill` fixes
    the skill; None leaves the choice to the router.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _TaskName
    text: str = Field(min_length=1, max_length=TASK_TEXT_CHARS_MAX)
    depends_on: list[_TaskName] = Field(default_factory=list[str], max_length=TASKS_MAX)
    turns: list[int] = Field(default_factory=list[int], max_length=1024)
    skill: str | None = Field(default=None, max_length=128)
