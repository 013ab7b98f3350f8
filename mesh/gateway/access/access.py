"""Who may use a gateway, and how much: its keys as they are now, and what was used under each."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from starlette.datastructures import Headers

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.access.budgets import Budgets, DayUsage, Failures
from monai_node.mesh.gateway.access.rules import key_for, shown_key
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.errors import InvalidKey, OverLimit
from monai_node.mesh.gateway.feed import Watch
from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.mesh.keys import AccessKey, Right, new_key
from monai_node.registry.events import (
    AnswerCompleted,
    RunEvent,
    TaskDispatched,
    TaskText,
    TaskWasCompleted,
)
from monai_node.registry.wire import Usage

_RUNS_MAX = 4096  # whose they were is remembered
_BYTES_PER_TOKEN = 4  # of English text, roughly; for runs that ended before anybody counted
# Of one task: what a model is given besides (templates, instructions), and what it wrote and nobody saw.
_UNSEEN_BYTES_MAX = 32 << 10


class Access:
    """Says who a request comes from and whether it may go on. Without keys and without `requires_key` it
    lets everybody do everything, as on a machine that one person uses.

    Also watches runs (`feed.Watcher`): what they used is counted, and whose they were remembered.
    """

    def __init__(
        self,
        keys: Sequence[AccessKey] = (),
        *,
        requires_key: bool = False,
        usage: DayUsage | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.requires_key = requires_key
        self._keys: tuple[AccessKey, ...] = tuple(keys)
        self._owners: tuple[AccessKey, ...] = ()
        self._budgets = Budgets(usage)
        self._failures = Failures()
        self._runs: OrderedDict[str, str] = OrderedDict()  # the key of each run
        self._now = now

    # --- keys -------------------------------------------------------------------------------------------
    def take_up(self, keys: Sequence[AccessKey]) -> None:
        """These are the keys from now on."""
        self._keys = tuple(keys)
        self._budgets.keep_only({key.id for key in keys})

    def owners_key(self) -> str:
        """A key with every right that lives as long as we do: for the owner's own commands."""
        key, secret = new_key(self._now(), rights=("chat", "admin"))
        self._owners = (*self._owners, key)
        return secret

    def knows(self, key_id: str) -> bool:
        """Whether there is such a key now."""
        return self._key(key_id) is not None

    def identify(
        self, headers: Headers, needed: Right | Literal["none"], address: str, request_id: str
    ) -> Caller:
        """Who asks; InvalidKey, NotAllowed without the right, OverLimit for who tries too many keys."""
        if needed == "none":
            rights = frozenset[Right]() if self.requires_key else Caller().rights
            return Caller(rights=rights, request_id=request_id)
        try:
            shown = shown_key(headers)
            known = (*self._owners, *self._keys)
            key = key_for(known, shown, needed, self._now(), requires_key=self.requires_key)
        except InvalidKey:
            self._note_failure(address)
            raise
        if key is None:
            return Caller(request_id=request_id)
        return Caller(key.id, frozenset(key.rights), request_id)

    def _note_failure(self, address: str) -> None:
        wait = self._failures.failed(address, self._now())
        if wait:
            raise OverLimit(
                "too many requests without a good key came from this address; try again later",
                retry_after_seconds=wait,
            ) from None

    def _key(self, key_id: str) -> AccessKey | None:
        return next((key for key in (*self._owners, *self._keys) if key.id == key_id), None)

    # --- budgets ----------------------------------------------------------------------------------------
    def begin(self, caller: Caller) -> None:
        """One more request of this caller, over a socket one more run. InvalidKey when its key has been
        revoked or has expired since it came; OverLimit when it may not at the moment."""
        if not caller.key:
            return
        key = self._key(caller.key)
        if key is None or key.is_expired(self._now()):
            raise InvalidKey("this key was revoked, or has expired")
        self._budgets.take(key, self._now())

    def spend(self, caller: Caller, tokens: int) -> None:
        """Work used so many tokens; fewer than 0 for what was guessed too high."""
        key = self._key(caller.key)
        if key is not None and key.tokens_per_day is not None:
            self._budgets.spend(caller.key, tokens, self._now())

    def headers(self, caller: Caller) -> Mapping[str, str]:
        """What an answer to this caller says of its limits."""
        key = self._key(caller.key) if caller.key else None
        return self._budgets.headers(key, self._now()) if key is not None else {}

    def usage(self) -> DayUsage:
        return self._budgets.usage()

    # --- runs -------------------------------------------------------------------------------------------
    def watch(self, request: RunRequest, caller: Caller) -> Watch:
        self._runs[request.run] = caller.key
        if len(self._runs) > _RUNS_MAX:
            self._runs.popitem(last=False)
        key = self._key(caller.key) if caller.key else None
        if key is None or key.tokens_per_day is None:
            return _Unwatched()
        return RunMeter(request, lambda tokens: self.spend(caller, tokens))

    def may_rate(self, caller: Caller, run: str) -> bool:
        """Whether a run is this caller's own, as far as is remembered; the owner may rate every one."""
        return caller.is_admin or (bool(caller.key) and self._runs.get(run) == caller.key)


class _Unwatched:
    def note(self, event: RunEvent) -> None: ...

    def close(self) -> None: ...


class RunMeter:
    """Counts the tokens of one run while it goes on, so that many runs at once cannot spend much more than is
    left: of tasks that are done by what they say, of those under way by a guess. At the end the answer's own
    count takes the place of that; a run that ended without one leaves the guess."""

    def __init__(self, request: RunRequest, spend: Callable[[int], None]) -> None:
        self._asked_bytes = _bytes_of(request)
        self._spend = spend
        self._spent = 0
        self._done = 0
        self._seen_bytes = _UNSEEN_BYTES_MAX  # of all that was sent and came back, and may have been
        self._told_bytes = 0  # of what came back
        self._bytes: dict[str, int] = {}  # of the tasks under way: what was sent and what came back

    def note(self, event: RunEvent) -> None:
        match event:
            case TaskDispatched(task=task):
                self._seen_bytes += _UNSEEN_BYTES_MAX + self._told_bytes  # results go on into later tasks
                self._grow(task, self._asked_bytes)
            case TaskText(task=task, text=text):
                self._told_bytes += len(text.encode())
                self._grow(task, len(text.encode()))
            case TaskWasCompleted(task=task, provenance=part):
                self._bytes.pop(task, None)
                self._seen_bytes += len(part.items) * (_UNSEEN_BYTES_MAX + self._asked_bytes)
                self._done += self._believed(part.usage)
                self._settle(self._guess())
            case AnswerCompleted(usage=usage):
                self._settle(self._believed(usage))
            case _:
                pass

    def close(self) -> None:
        """All was counted as it came."""

    def _believed(self, usage: Usage) -> int:
        """A peer may say what it likes, but there is a byte at least to a token."""
        return min(_sum(usage), self._seen_bytes)

    def _grow(self, task: str, size: int) -> None:
        self._seen_bytes += size
        self._bytes[task] = self._bytes.get(task, 0) + size
        self._settle(self._guess())

    def _guess(self) -> int:
        return self._done + math.ceil(sum(self._bytes.values()) / _BYTES_PER_TOKEN)

    def _settle(self, total: int) -> None:
        if total != self._spent:
            self._spend(total - self._spent)
            self._spent = total


def _bytes_of(request: RunRequest) -> int:
    """Of what a model is given; a token that came as its id counts as usual."""
    said = [message.content for message in request.messages]
    more = [message.extra for message in request.messages if message.extra]
    tools = request.parameters.tools
    given = len(encode_json([more, tools])) if more or tools else 0
    return sum(len(text.encode()) for text in said) + given + _BYTES_PER_TOKEN * len(request.tokens)


def _sum(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
