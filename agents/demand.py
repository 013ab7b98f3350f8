"""What a task of a plan asks of whoever is to do it, for the router. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from monai_node.agents.graph import FAN_OUT_MAX, Task
from monai_node.agents.languages import language_of
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.agents.task_request import share_of
from monai_node.registry.wire import ChatMessage, Label
from monai_node.router.demand import CHARS_PER_TOKEN, RESULT_CHARS, Conversation, Demand
from monai_node.router.policy import Policy, listed

# What models announce, by what `language_of` gives; Cyrillic letters are written in many languages.
_TAGS = {
    "Arabic": "ar",
    "Chinese": "zh",
    "Dutch": "nl",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Greek": "el",
    "Hebrew": "he",
    "Hindi": "hi",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Polish": "pl",
    "Portuguese": "pt",
    "Spanish": "es",
    "Thai": "th",
}


def demand_of(
    task: Task, plan: Plan, request: RunRequest, label: Label, *, has_contract: bool = False
) -> Demand:
    """The results that a task needs count as results of usual length: it is asked for before they are
    there. The budget of a request is shared equally by its tasks, and that of a task which is done for each
    item of a list by as many as there may be."""
    parameters, count = request.parameters, len(plan.graph.tasks)
    limit = share_of(parameters, request.options.budget_tokens, count).max_tokens
    expected = RESULT_CHARS if limit is None else min(RESULT_CHARS, int(limit * CHARS_PER_TOKEN))
    return Demand(
        policy_of(request, label, count * (FAN_OUT_MAX if task.each is not None else 1)),
        language=_TAGS.get(language_of(task.text), ""),
        prompt_chars=_prompt_chars(task, plan, request),
        expected_chars=expected,
        features=_features(request) if plan.is_passthrough else frozenset(),
        has_contract=has_contract,
        conversation=conversation_of(request.messages) if plan.is_passthrough else None,
    )


def _features(request: RunRequest) -> frozenset[str]:
    """What a model must be able to do that is given the whole request."""
    parameters = request.parameters
    needed = {
        "tools": bool(parameters.tools) or any(turn.is_tool_turn for turn in request.messages),
        "logprobs": parameters.logprobs is not None,
        "logit_bias": bool(parameters.logit_bias),
        "completion": request.is_completion,
    }
    return frozenset(feature for feature, is_needed in needed.items() if is_needed)


def policy_of(request: RunRequest, label: Label, shares: int = 1) -> Policy:
    """Whom a task may be given that has one of so many shares of the budget, as far as the request says."""
    options = request.options
    return Policy(
        label,
        allowed=listed(options.allow),
        denied=listed(options.deny),
        cost_max=float("inf") if options.budget is None else options.budget / shares,
    )


def conversation_of(messages: Sequence[ChatMessage]) -> Conversation:
    """The names of a conversation: turns are told apart by who says what in which words."""
    answered = max((at for at, turn in enumerate(messages) if turn.role == "assistant"), default=None)
    named = hashlib.blake2b(digest_size=16)
    before = ""
    for at, turn in enumerate(messages):
        if at == answered:
            before = named.hexdigest()
        content = turn.content.encode(errors="surrogatepass")
        named.update(f"{turn.role} {len(content)} ".encode() + content)
    return Conversation(before, named.hexdigest())


def _prompt_chars(task: Task, plan: Plan, request: RunRequest) -> int:
    if plan.is_passthrough:
        chars = sum(len(turn.content) for turn in request.messages)
        return chars + int(len(request.tokens) * CHARS_PER_TOKEN)
    turns = [request.messages[at] for at in task.turns if at < len(request.messages)]
    return len(task.text) + sum(len(turn.content) for turn in turns) + RESULT_CHARS * len(task.depends_on)
