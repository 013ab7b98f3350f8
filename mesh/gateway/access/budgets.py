"""How much of a gateway each key may still use, and who shows wrong keys too often. Pure: time, in Unix
seconds, is passed in.

Requests flow through a token bucket that holds a minute's worth. Tokens are counted by the day (UTC): runs
that are under way when the last of them is spent go on to their end.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from monai_node.mesh.gateway.errors import OverLimit
from monai_node.mesh.keys import KEYS_MAX, AccessKey

_DAY_SECONDS = 86400
_FAILURES_PER_MINUTE = 10
_ADDRESSES_MAX = 1024


@dataclass(slots=True)
class _Bucket:
    per_minute: int
    left: float
    at: float

    def refill(self, now: float) -> None:
        # A clock that was put back gives nothing and takes nothing.
        gained = max(0.0, now - self.at) * self.per_minute / 60
        self.left, self.at = min(float(self.per_minute), self.left + gained), now

    def take(self, now: float) -> float:
        """Take one; the seconds until there is one, 0 when it was taken."""
        self.refill(now)
        if self.left < 1:
            return (1 - self.left) * 60 / self.per_minute
        self.left -= 1
        return 0.0


class DayUsage(BaseModel):
    """The tokens of each key on one day, as they are kept on disk; `day` since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: int
    tokens: dict[str, Annotated[int, Field(ge=0)]] = Field(max_length=KEYS_MAX)


class Budgets:
    """Counts for every key that has a limit. `usage` is what was used before this start."""

    def __init__(self, usage: DayUsage | None = None) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._day = usage.day if usage else 0
        self._tokens = dict(usage.tokens) if usage else {}

    def take(self, key: AccessKey, now: float) -> None:
        """One more request; OverLimit, which says when to come back, when there is no room for it."""
        day_left = _DAY_SECONDS - now % _DAY_SECONDS
        limit = key.tokens_per_day
        if limit is not None and self.used(key.id, now) >= limit:
            raise OverLimit(
                f"this key's {limit} tokens of today are used up; the day ends in {_lasting(day_left)}",
                code="insufficient_quota",
                retry_after_seconds=day_left,
            )
        wait = self._bucket(key, key.requests_per_minute, now).take(now) if key.requests_per_minute else 0.0
        if wait:
            raise OverLimit(
                f"this key has {key.requests_per_minute} requests a minute; try again in {_lasting(wait)}",
                retry_after_seconds=wait,
            )

    def spend(self, key_id: str, tokens: int, now: float) -> None:
        """So many tokens were used under this key; fewer than 0 are given back."""
        self._turn(now)
        self._tokens[key_id] = max(0, self._tokens.get(key_id, 0) + tokens)

    def used(self, key_id: str, now: float) -> int:
        """The tokens of today."""
        self._turn(now)
        return self._tokens.get(key_id, 0)

    def usage(self) -> DayUsage:
        """What is to be kept over a restart."""
        return DayUsage(day=self._day, tokens=dict(self._tokens))

    def keep_only(self, key_ids: Collection[str]) -> None:
        """Forget the keys that are no more."""
        for known in (self._buckets, self._tokens):
            for key_id in [key_id for key_id in known if key_id not in key_ids]:
                del known[key_id]

    def headers(self, key: AccessKey, now: float) -> Mapping[str, str]:
        """OpenAI's `x-ratelimit-…` of the limits that this key has."""
        told: dict[str, str] = {}
        if key.requests_per_minute is not None:
            bucket = self._bucket(key, key.requests_per_minute, now)
            bucket.refill(now)
            full = (bucket.per_minute - bucket.left) * 60 / bucket.per_minute
            told |= _told("requests", bucket.per_minute, int(bucket.left), full)
        if key.tokens_per_day is not None:
            left = max(0, key.tokens_per_day - self.used(key.id, now))
            told |= _told("tokens", key.tokens_per_day, left, _DAY_SECONDS - now % _DAY_SECONDS)
        return told

    def _bucket(self, key: AccessKey, per_minute: int, now: float) -> _Bucket:
        return self._buckets.setdefault(key.id, _Bucket(per_minute, float(per_minute), now))

    def _turn(self, now: float) -> None:
        day = int(now // _DAY_SECONDS)
        if day != self._day:
            self._day = day
            self._tokens.clear()


class Failures:
    """Who shows wrong keys too often. An address that did is told to come back later, for wrong keys only:
    others may stand behind it. Of many addresses those that failed longest ago are forgotten."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def failed(self, address: str, now: float) -> float:
        """A wrong key came from there; the seconds until the next may, 0 while it may at once."""
        source = _source(address)
        per_minute = _FAILURES_PER_MINUTE
        bucket = self._buckets.setdefault(source, _Bucket(per_minute, float(per_minute), now))
        self._buckets.move_to_end(source)
        if len(self._buckets) > _ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._buckets)


def _source(address: str) -> str:
    """Whoever has one IPv6 address has 2^64 of them."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if isinstance(known, IPv6Address) and known.ipv4_mapped is None:
        return str(ip_network((known, 64), strict=False))
    return address


def _told(what: str, limit: int, left: int, seconds: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(left),
        f"x-ratelimit-reset-{what}": _lasting(seconds),
    }


def _lasting(seconds: float) -> str:
    """As OpenAI writes it: 6m0s."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
