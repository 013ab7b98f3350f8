"""When a request is not planned but passed through: one task that is given the whole conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monai_node.agents.request import RunRequest
from monai_node.registry.wire import ChatMessage

MESH_MODEL = "mesh"
# Longer system prompts describe an application, which expects one model to obey all of it.
SYSTEM_PROMPT_CHARS_MAX = 400

_EXAMPLE_PAIRS_MIN = 3
_EXAMPLE_CHARS_MAX = 300

WhyNot = Literal[
    "never",  # options.plan == "never"
    "model",  # one model was asked for by name
    "completion",  # no conversation: a text is to be gone on with
    "tools",  # tools, or a conversation with tool calls
    "logprobs",  # what is told of an answer's tokens is of one model's
    "schema",  # the answer must match one JSON schema
    "prefill",  # the last message is the assistant's: its text is to be continued
    "last_message",  # the last message is neither the user's nor the assistant's, or has no text
    "examples",  # few-shot turns
    "system_prompt",  # longer than SYSTEM_PROMPT_CHARS_MAX
]


def why_not_planned(request: RunRequest) -> WhyNot | None:
    """Why this request is passed through as it is; None when it may be planned."""
    messages, parameters = request.messages, request.parameters
    system = sum(len(turn.content) for turn in messages if turn.role in {"system", "developer"})
    last = messages[-1].role if messages else None
    checks: tuple[tuple[bool, WhyNot], ...] = (
        (request.options.plan == "never", "never"),
        (request.is_completion, "completion"),
        (request.model != MESH_MODEL, "model"),
        (bool(parameters.tools) or any(turn.is_tool_turn for turn in messages), "tools"),
        (parameters.logprobs is not None, "logprobs"),
        (parameters.json_schema is not None, "schema"),
        (last == "assistant", "prefill"),
        (last != "user" or not messages[-1].content.strip(), "last_message"),
        (system > SYSTEM_PROMPT_CHARS_MAX, "system_prompt"),
        (has_examples(messages), "examples"),
    )
    return next((reason for applies, reason in checks if applies), None)


def has_examples(messages: Sequence[ChatMessage]) -> bool:
    """Whether the turns before the last look like few-shot examples.

    Three or more pairs of user and assistant from the start; all turns short; the user's turns, the last
    one too, of similar length, and the assistant's likewise. A brisk chat may look the same: passing it
    through loses nothing, whereas an example that is dropped changes the answer.
    """
    turns = [turn for turn in messages if turn.role not in {"system", "developer"}]
    roles = [turn.role for turn in turns]
    pairs = len(turns) // 2
    if pairs < _EXAMPLE_PAIRS_MIN or roles != ["user", "assistant"] * pairs + ["user"]:
        return False
    asked = [len(turn.content) for turn in turns[::2]]
    answered = [len(turn.content) for turn in turns[1::2]]
    return all(
        max(sizes) <= _EXAMPLE_CHARS_MAX and max(sizes) <= 3 * min(sizes) + 20 for sizes in (asked, answered)
    )
