"""Responses that can be asked for and continued later, in memory: each only by the key that made it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_node.mesh.gateway.http.answers import first_of_most
from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.mesh.gateway.http.recording import Recording
from monai_node.mesh.gateway.responses.items import ItemObject
from monai_node.registry.errors import InvalidRequest, NotFound
from monai_node.registry.wire import MESSAGES_MAX

RESPONSES_MAX = 1024
BYTES_MAX = 64 << 20  # of all, as JSON, with what is recorded of their streams
SECONDS_MAX = 24 * 3600.0  # since a response was made or last continued


@dataclass(slots=True)
class KeptResponse:
    """`given` are the items of its own request. One made in the background has a `recording` of the events of
    its stream, each under its sequence number, and a `cancel` while it is not over. `last_used` by the
    clock of the store."""

    response: dict[str, Any]
    given: Sequence[ItemObject]
    recording: Recording | None = None
    cancel: Callable[[], None] | None = None
    last_used: float = field(default=0.0, init=False)
    byte_count: int = field(default=0, init=False)

    @property
    def id(self) -> str:
        return self.response["id"]

    @property
    def is_over(self) -> bool:
        return self.response["status"] not in ("queued", "in_progress")

    @property
    def items(self) -> list[ItemObject]:
        return [*self.given, *self.response["output"]]


_Key = tuple[str, str]  # of the caller, and the id of a response


class ResponseStore:
    """RESPONSES_MAX responses and BYTES_MAX bytes at most; the least lately used of who has the most go
    first, those in progress never."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[_Key, KeptResponse] = OrderedDict()
        self._items: dict[_Key, ItemObject] = {}
        self._byte_count = 0

    def of(self, caller_key: str) -> OwnResponses:
        """What that caller may see."""
        return OwnResponses(self, caller_key)

    def add(self, key: _Key, kept: KeptResponse) -> None:
        self._kept[key] = kept
        self.update(key)

    def update(self, key: _Key) -> None:
        """To be told when a response has changed: counts it anew, and lets go of what is too much."""
        kept = self._kept.get(key)
        if kept is None:
            return
        self.touch(key)
        self._byte_count -= kept.byte_count
        recorded = kept.recording.byte_count if kept.recording is not None else 0
        kept.byte_count = recorded + len(encode_json([kept.response, kept.given]))
        self._byte_count += kept.byte_count
        self._items |= {(key[0], item["id"]): item for item in kept.items}
        self._let_go()

    def touch(self, key: _Key) -> None:
        self._kept[key].last_used = self._clock()
        self._kept.move_to_end(key)

    def get(self, key: _Key) -> KeptResponse | None:
        self._let_go()
        return self._kept.get(key)

    def item(self, key: _Key) -> ItemObject | None:
        self._let_go()
        return self._items.get(key)

    def drop(self, key: _Key) -> None:
        kept = self._kept.pop(key)
        self._byte_count -= kept.byte_count
        for item in kept.items:
            self._items.pop((key[0], item["id"]), None)

    def _let_go(self) -> None:
        oldest = self._clock() - SECONDS_MAX
        for key, kept in list(self._kept.items()):
            if kept.last_used >= oldest:
                break
            if kept.is_over:
                self.drop(key)
        while len(self._kept) > RESPONSES_MAX or self._byte_count > BYTES_MAX:
            if (key := self._dispensable()) is None:
                return
            self.drop(key)

    def _dispensable(self) -> _Key | None:
        """The least lately used of the caller who has the most: nobody pushes out what others keep."""
        is_large = self._byte_count > BYTES_MAX
        over = {key: kept.byte_count if is_large else 1 for key, kept in self._kept.items() if kept.is_over}
        return first_of_most(over)


@dataclass(frozen=True, slots=True)
class OwnResponses:
    """The part of a store that one caller sees."""

    store: ResponseStore
    caller_key: str

    def add(self, kept: KeptResponse) -> None:
        self.store.add((self.caller_key, kept.id), kept)

    def keep(self, response: dict[str, Any], given: Sequence[ItemObject]) -> None:
        """One that is over."""
        self.add(KeptResponse(response, given))

    def update(self, kept: KeptResponse) -> None:
        self.store.update((self.caller_key, kept.id))

    def drop(self, kept: KeptResponse) -> None:
        self.store.drop((self.caller_key, kept.id))

    def get(self, response_id: str) -> KeptResponse:
        """NotFound also for those of others."""
        kept = self.store.get((self.caller_key, response_id))
        if kept is None:
            raise NotFound(f"no response {response_id[:100]!r} is kept here", code="response_not_found")
        return kept

    def item(self, item_id: str) -> ItemObject | None:
        return self.store.item((self.caller_key, item_id))

    def conversation(self, response_id: str) -> tuple[ItemObject, ...]:
        """All items from the first response of the chain to the end of that one; NotFound when one of them is
        not kept any more, InvalidRequest when one has no answer. Using them keeps them."""
        param = "previous_response_id"
        pieces: list[list[ItemObject]] = []
        previous: str | None = response_id
        while previous is not None:
            kept = self.store.get((self.caller_key, previous))
            if kept is None:
                message = (
                    f"the response {previous[:100]!r} is not kept here any more; send its items in input"
                )
                raise NotFound(message, code="previous_response_not_found", param=param)
            if kept.response["status"] not in ("completed", "incomplete"):
                status = kept.response["status"]
                raise InvalidRequest(f"that response is {status}: it cannot be continued", param=param)
            self.store.touch((self.caller_key, previous))
            pieces.append(kept.items)
            if sum(map(len, pieces)) > MESSAGES_MAX:
                raise InvalidRequest(f"that conversation has more than {MESSAGES_MAX} items", param=param)
            previous = kept.response["previous_response_id"]
        return tuple(item for piece in reversed(pieces) for item in piece)
