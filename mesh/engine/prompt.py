"""How a task becomes chat messages. Pure."""

from __future__ import annotations

import re

from monai_node.registry.wire import Artifact, ChatMessage, TaskRequest

_QUOTES = re.compile(r'"{3,}')


def messages_of(request: TaskRequest) -> list[ChatMessage]:
    """The conversation that a model is shown for a task.

    A conversation passed through stays as it is. Otherwise: the earlier turns that the task needs,
    then one user message with the task and, quoted below it, the results it builds on.
    """
    task = request.input
    if task.is_conversation and task.turns:
        return list(task.turns)
    parts = [task.text, *(_quoted(artifact) for artifact in task.artifacts)]
    message = ChatMessage(role="user", content="\n\n".join(part for part in parts if part))
    return [*task.turns, message]


def _quoted(artifact: Artifact) -> str:
    """A result as data, between marks that it cannot contain: it cannot end its own quote."""
    longest = max((len(run) for run in _QUOTES.findall(artifact.text)), default=2)
    mark = '"' * (longest + 1)
    return f"Result of an earlier step ({artifact.task}):\n{mark}\n{artifact.text}\n{mark}"


def plain_turns(messages: list[ChatMessage]) -> list[ChatMessage]:
    """The same conversation for a template that knows users and assistants in turn and nothing
    else: system text goes to the first user message, neighbours of one role become one.
    """
    system = "\n\n".join(m.content for m in messages if m.role in ("system", "developer"))
    turns: list[ChatMessage] = [ChatMessage(role="user", content=system)] if system else []
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            joined = f"{turns.pop().content}\n\n{message.content}"
            turns.append(ChatMessage(role=role, content=joined))
        else:
            turns.append(ChatMessage(role=role, content=message.content))
    return turns
