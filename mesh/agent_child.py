"""The child process of an agent file: it alone imports the user's Python and runs its skills."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from monai_node.agents.context import context_of
from monai_node.agents.sdk import Abstain, Agent, AgentSkill
from monai_node.mesh.child_channel import Channel, serve
from monai_node.registry.errors import Abstained, NotFound, SetupError, TaskFailed
from monai_node.registry.wire import SKILLS_PER_NODE_MAX, TEXT_CHARS_MAX, TaskRequest

_PIECE_CHARS_MAX = 32_768  # of one event: far below a frame, whatever the script
_REASON_CHARS_MAX = 300


def main(channel: Channel, config: dict[str, Any]) -> None:
    """Load the agents in `config["path"]`, then answer `run` calls until the parent goes."""
    skills = load_skills(Path(config["path"]))
    info = {"skills": [skill.card.model_dump() for skill in skills.values()]}

    async def handle(op: str, payload: Any) -> AsyncGenerator[Any, None]:
        if op != "run":
            raise TaskFailed(f"an agent cannot {op!r}")
        request = TaskRequest.model_validate(payload)
        skill = skills.get(request.skill)
        if skill is None:
            raise NotFound(f"this agent has no skill {request.skill!r}")
        start = time.monotonic()
        async with aclosing(_run(skill, request)) as pieces:
            async for piece in after_prefix(pieces, request.prefix):
                for text in _cut(piece):
                    yield {"text": text}
        yield {"generate_ms": (time.monotonic() - start) * 1000}

    asyncio.run(serve(channel, handle, info))


def load_skills(path: Path) -> dict[str, AgentSkill]:
    """The skills of every Agent in a Python file, by id; SetupError naming the line at fault.

    The file's folder is searched last for what it imports, so that nothing in it shadows a library.
    """
    sys.path.append(str(path.parent))
    name = f"monai_agent_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SetupError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and annotations look themselves up
    try:
        spec.loader.exec_module(module)
    except SetupError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file does while it is imported
        traceback.print_exc()
        raise SetupError(_complaint(path, error)) from error
    agents = {id(value): value for value in vars(module).values() if isinstance(value, Agent)}
    skills = [skill for agent in agents.values() for skill in agent.skills]
    by_id = {skill.card.id: skill for skill in skills}
    if not skills:
        raise SetupError(f'{path.name} defines no skill; write agent = Agent("…") and @agent.skill(…)')
    if len(by_id) != len(skills) or len(skills) > SKILLS_PER_NODE_MAX:
        raise SetupError(f"{path.name} needs different skill ids, at most {SKILLS_PER_NODE_MAX}")
    return by_id


def _complaint(path: Path, error: BaseException) -> str:
    """One sentence with the line of the user's file that was running."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path and frame.lineno is not None
    ]
    line = error.lineno if isinstance(error, SyntaxError) and not lines else lines[-1] if lines else None
    where = f"{path.name}, line {line}" if line else path.name
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}: {type(error).__name__}: {' '.join(what.split())}".removesuffix(": ")


async def _run(skill: AgentSkill, request: TaskRequest) -> AsyncGenerator[str, None]:
    """The pieces of a result; what the user's code raises becomes one of our errors."""
    context = context_of(request)
    length = 0
    try:
        async with aclosing(skill.run(request.input.text, context)) as pieces:
            async for piece in pieces:
                length += len(piece)
                if length > TEXT_CHARS_MAX:
                    raise TaskFailed(f"skill {skill.card.id} wrote more than {TEXT_CHARS_MAX} characters")
                yield piece
    except Abstain as abstained:
        reason = " ".join(abstained.reason.split())[:_REASON_CHARS_MAX]
        raise Abstained(f"{skill.card.id} abstains: {reason}") from None
    except TaskFailed:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's function raises fails its own task
        traceback.print_exc()
        raise TaskFailed(f"skill {skill.card.id} failed ({type(error).__name__})") from None


async def after_prefix(pieces: AsyncIterator[str], prefix: str) -> AsyncGenerator[str, None]:
    """The pieces behind `prefix`, which was shown already; TaskFailed when they begin otherwise."""
    missing = prefix
    async for piece in pieces:
        known = piece[: len(missing)]
        if not missing.startswith(known):
            raise TaskFailed("its result begins otherwise than what was already shown")
        missing = missing[len(known) :]
        if len(piece) > len(known):
            yield piece[len(known) :]
    if missing:
        raise TaskFailed("its result is shorter than what was already shown")


def _cut(piece: str) -> Iterator[str]:
    """Parts that fit a frame, with nothing in them that UTF-8 cannot carry."""
    sendable = piece.encode("utf-8", "replace").decode()
    for start in range(0, len(sendable), _PIECE_CHARS_MAX):
        yield sendable[start : start + _PIECE_CHARS_MAX]
