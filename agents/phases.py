# LangGraph ships no stubs and leaves type arguments open: this module is its typed front.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""The phases of a run as a LangGraph state graph: plan → execute → merge, each passed through once.

The graph's state is the name of the phase that comes next, and nothing a user wrote: what the phases
work on is handed to them as LangGraph's context, which is neither saved nor traced. Task results have
one place, the run itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict


class Phased(Protocol):
    """A run in the eyes of its phases. What one of them raises ends the run and leaves `Conduct`."""

    async def plan(self) -> None: ...

    async def execute(self) -> None: ...

    async def merge(self) -> None: ...


Conduct = Callable[[Phased], Awaitable[None]]


class _State(TypedDict):
    phase: Literal["plan", "execute", "merge", "over"]


@dataclass(frozen=True, slots=True)
class _Context:
    run: Phased


def open_phases() -> Conduct:
    """A function that takes a run through its phases; compiled once, used for any number of runs.

    Cancelling it cancels the phase in progress, and it returns when that phase has ended.
    """
    from langgraph.graph import END, START, StateGraph
    from langgraph.runtime import Runtime
    from langsmith import tracing_context

    async def plan(state: _State, runtime: Runtime[_Context]) -> _State:
        await runtime.context.run.plan()
        return {"phase": "execute"}

    async def execute(state: _State, runtime: Runtime[_Context]) -> _State:
        await runtime.context.run.execute()
        return {"phase": "merge"}

    async def merge(state: _State, runtime: Runtime[_Context]) -> _State:
        await runtime.context.run.merge()
        return {"phase": "over"}

    steps = StateGraph(_State, _Context)
    steps.add_node("plan", plan)
    steps.add_node("execute", execute)
    steps.add_node("merge", merge)
    steps.add_edge(START, "plan")
    steps.add_edge("plan", "execute")
    steps.add_edge("execute", "merge")
    steps.add_edge("merge", END)
    compiled = steps.compile()

    async def conduct(run: Phased) -> None:
        # A LANGSMITH_TRACING left in the environment would report every run to a web service.
        with tracing_context(enabled=False):
            await compiled.ainvoke({"phase": "plan"}, context=_Context(run))

    return conduct
