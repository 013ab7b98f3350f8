"""Agents: typed Python functions that the mesh may call.

    agent = Agent("dice")

    @agent.skill(examples=["Roll two dice", "Throw a die"])
    def roll(text: str, ctx: Context) -> str:
        '''Rolls dice and says what they show.'''

A function takes the task's text (`str`) and, if it wants to, a `Context`. It returns `str`, plainly
or from `async def`, or yields pieces of it as an async iterator. It raises `Abstain` when the task
is not its own, and another peer is asked. Mistakes are found when the file is imported: SetupError.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast

from pydantic import ValidationError

from monai_node.agents.context import Context
from monai_node.registry.advert import Skill
from monai_node.registry.errors import SetupError
from monai_node.registry.wire import EXAMPLES_PER_SKILL_MAX

_NAME = re.compile(r"[A-Za-z][\w-]{0,62}")
_STREAMS = ("AsyncIterator", "AsyncGenerator", "AsyncIterable")

Kind = Literal["sync", "async", "stream"]
SkillFunction = Callable[..., str | Awaitable[str] | AsyncIterator[str]]
_F = TypeVar("_F", bound=SkillFunction)


class Abstain(Exception):
    """Raised by a skill: this task is not mine. The reason is shown to who looks into the run."""

    def __init__(self, reason: str = "this is not a task for me") -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AgentSkill:
    """A skill as announced (`card`) and the function behind it."""

    card: Skill
    function: SkillFunction
    kind: Kind
    text_parameter: str | None
    context_parameter: str | None

    async def run(self, text: str, context: Context) -> AsyncGenerator[str, None]:
        """The pieces of the result; TypeError for a piece that is not text.

        A sync function runs in a thread. It cannot be interrupted, so closing this iterator waits
        until it has returned: who must not wait ends the process.
        """
        arguments: dict[str, Any] = {}
        if self.text_parameter:
            arguments[self.text_parameter] = text
        if self.context_parameter:
            arguments[self.context_parameter] = context
        if self.kind == "stream":
            pieces = cast(AsyncIterator[object], self.function(**arguments))
            try:
                async for piece in pieces:
                    yield self._checked(piece)
            finally:
                close = getattr(pieces, "aclose", None)
                if close is not None:
                    await close()
        elif self.kind == "async":
            yield self._checked(await cast(Awaitable[object], self.function(**arguments)))
        else:
            yield self._checked(await _in_thread(self.function, arguments))

    def _checked(self, piece: object) -> str:
        if not isinstance(piece, str):
            raise TypeError(f"it returned {type(piece).__name__} where str was declared")
        return piece


async def _in_thread(function: SkillFunction, arguments: dict[str, Any]) -> object:
    """`asyncio.to_thread` that, when cancelled, still waits until the thread is done."""

    def work() -> object:
        try:
            return function(**arguments)
        except (StopIteration, SystemExit, KeyboardInterrupt) as error:
            # asyncio hands none of them on: the first would hang the caller, the others end the loop
            raise RuntimeError(f"it raised {type(error).__name__}") from error

    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    finally:
        if not running.done():
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # taken, so that nobody reports it as never retrieved


class Agent:
    """A named set of skills, defined in one Python file: `monai-node serve that_file.py`."""

    def __init__(self, name: str, description: str = "") -> None:
        if not _NAME.fullmatch(name):
            raise SetupError(
                f"agent name {name!r}: use a letter, then letters, digits, '_' or '-', at most 63"
            )
        self.name = name
        self.description = description
        self._skills: dict[str, AgentSkill] = {}

    @property
    def skills(self) -> tuple[AgentSkill, ...]:
        return tuple(self._skills.values())

    def skill(
        self,
        *,
        examples: Sequence[str],
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] = (),
    ) -> Callable[[_F], _F]:
        """Makes a function a skill of this agent, and leaves the function as it was.

        `examples` are requests as people would write them (1 to 16): the router compares new
        requests with them, so the more unlike each other the better. The description is the
        docstring unless given. The id is "<agent>.<function>", or the agent's name alone when both
        are equal.
        """

        def register(function: _F) -> _F:
            where = _where(function)
            skill_id = self.name
            if function.__name__ != self.name:
                skill_id = f"{self.name}.{function.__name__}"
            if skill_id in self._skills:
                raise SetupError(f"{where}: this agent has a skill {skill_id!r} already; rename one")
            text_parameter, context_parameter = _parameters(function, where)
            words = description or inspect.getdoc(function) or self.description
            if not words.strip():
                raise SetupError(
                    f"{where}: say what it does in a docstring (or description=…); "
                    "the router finds it by these words"
                )
            self._skills[skill_id] = AgentSkill(
                card=_card(
                    where,
                    id=skill_id,
                    name=name or function.__name__.replace("_", " "),
                    description=" ".join(words.split()),
                    tags=list(tags),
                    examples=_examples(examples, where),
                ),
                function=function,
                kind=_kind(function, where),
                text_parameter=text_parameter,
                context_parameter=context_parameter,
            )
            return function

        return register


def _where(function: Callable[..., object]) -> str:
    code = inspect.unwrap(function).__code__
    return f"skill {function.__name__!r} ({code.co_filename}, line {code.co_firstlineno})"


def _card(where: str, **fields: object) -> Skill:
    try:
        return Skill.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SetupError(f"{where}: {place}: {first['msg']}") from None


def _examples(examples: object, where: str) -> list[str]:
    if isinstance(examples, str) or not isinstance(examples, Sequence):
        raise SetupError(f'{where}: examples must be a list of texts: examples=["…", "…"]')
    texts = [
        " ".join(text.split()) if isinstance(text, str) else "" for text in cast(Sequence[object], examples)
    ]
    if not texts or not all(texts):
        raise SetupError(
            f"{where}: give examples of what people would write, none of them empty; "
            "a skill without examples is found by nobody"
        )
    if len(texts) > EXAMPLES_PER_SKILL_MAX:
        raise SetupError(
            f"{where}: {len(texts)} examples; keep the {EXAMPLES_PER_SKILL_MAX} most different ones"
        )
    return texts


def _hints(function: Callable[..., object], where: str) -> dict[str, object]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise SetupError(
            f"{where}: its annotations cannot be read ({error}); import what they name"
        ) from None


def _parameters(function: Callable[..., object], where: str) -> tuple[str | None, str | None]:
    """The names of the parameters that take the text and the context."""
    hints = _hints(function, where)
    found: dict[object, str] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind = _bare(hints.get(parameter.name))
        problem = None
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            problem = "must be a plain parameter that can be passed by name"
        elif parameter.name not in hints:
            problem = "has no type; write `text: str` or `ctx: Context`"
        elif kind is not str and kind is not Context:
            problem = f"is {_shown(kind)}; only `str` (the task's text) and `Context` are supported"
        elif kind in found:
            problem = f"is a second {_shown(kind)}; the task has one text and one context"
        if problem is not None:
            raise SetupError(f"{where}: parameter {parameter.name!r} {problem}")
        found[kind] = parameter.name
    return found.get(str), found.get(Context)


def _bare(hint: object) -> object:
    """`X` for `X | None`."""
    if typing.get_origin(hint) in (Union, UnionType):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _shown(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _kind(function: Callable[..., object], where: str) -> Kind:
    returns = _hints(function, where).get("return")
    is_async = inspect.iscoroutinefunction(function)
    if returns is str and not inspect.isgeneratorfunction(function):
        return "async" if is_async else "sync"
    origin = typing.get_origin(returns)
    is_stream = getattr(origin, "__name__", "") in _STREAMS and typing.get_args(returns)[:1] == (str,)
    if is_stream and not is_async:
        return "stream"
    raise SetupError(
        f"{where}: it must be declared to return `str`, or to yield it: `async def … -> AsyncIterator[str]`"
    )
