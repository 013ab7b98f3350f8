"""Call an agent's skills in a test, without a node: `assert ask(agent, "2 + 2") == "4"`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from monai_node.agents.context import Context
from monai_node.agents.sdk import Agent, AgentSkill
from monai_node.registry.wire import Artifact, ChatMessage

__all__ = ["ask", "context", "turns"]


def turns(*texts: str) -> tuple[ChatMessage, ...]:
    """Earlier turns, the user's first, then by turns."""
    return tuple(
        ChatMessage(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)
    )


def context(
    now: str | None = None,
    *,
    timezone: str = "UTC",
    locale: str = "",
    turns: Iterable[ChatMessage] = (),
    artifacts: Iterable[str] = (),
    remaining_seconds: float = 60.0,
) -> Context:
    """A context at `now`: ISO 8601, local to `timezone` unless it has an offset; else the clock.

    `artifacts` are results of earlier tasks, which are called t1, t2, …
    """
    zone = ZoneInfo(timezone)
    moment = datetime.fromisoformat(now) if now else datetime.now(UTC)
    return Context(
        now=moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone),
        timezone=zone,
        locale=locale,
        turns=tuple(turns),
        artifacts=tuple(Artifact(task=f"t{n}", text=text) for n, text in enumerate(artifacts, 1)),
        remaining_seconds=remaining_seconds,
    )


def ask(agent: Agent, text: str, *, skill: str | None = None, context: Context | None = None) -> str:
    """The result of the only skill, or of the one whose id is given; raises what it raises."""
    return asyncio.run(_collect(_pick(agent, skill), text, context or _now()))


def _now() -> Context:
    return context()


def _pick(agent: Agent, skill: str | None) -> AgentSkill:
    found = [each for each in agent.skills if skill in (None, each.card.id)]
    if len(found) != 1:
        known = ", ".join(each.card.id for each in agent.skills) or "none"
        raise LookupError(f"name one skill of agent {agent.name!r}; it has: {known}")
    return found[0]


async def _collect(skill: AgentSkill, text: str, ctx: Context) -> str:
    return "".join([piece async for piece in skill.run(text, ctx)])
