"""How long a task would take at an offer, part by part. Pure.

What this node measured itself comes first, then what the peer announces, then a guess by the size of the
model. Whatever was announced, what comes out is finite and within RUN_SECONDS_MAX.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from monai_node.registry.advert import ModelInfo, Speed
from monai_node.registry.wire import RUN_SECONDS_MAX
from monai_node.router.demand import CHARS_PER_TOKEN, Demand
from monai_node.router.health import Health
from monai_node.router.offer import Offer
from monai_node.router.speed import COLD_AFTER_SECONDS, Measured, Speeds, level_of

# Of a peer that does not say how many tasks it does at once. As many as an agent does.
SLOTS_DEFAULT = 4
# Peers say how many slots they have and how many tasks: a claim above these counts as these. No engine of
# ours batches more sequences, and behind so long a queue nobody waits for it to become longer.
SLOTS_MAX = 64
LOAD_MAX = 256
# A load that was told so long ago counts half: tasks of that length have ended since, and nobody knows of
# new ones.
_LOAD_HALF_LIFE_SECONDS = 10.0
# One token reads all weights once, and one core of a small machine reads 17 GB a second: 270 MB in 15.3 ms
# (SmolLM2 135M, f16, two cores). A prompt is read several tokens at a time.
_BYTES_PER_SECOND = 17e9
_READ_SPEEDUP = 8.0
_TOKENS_PER_SECOND = (0.5, 200.0)  # the least and the most that a guess comes to
_SIZE_UNKNOWN = 4_000_000_000  # bytes: a model of 7B in 4 bits
_PATH_SECONDS = 0.05  # opening a stream and the first frame, on one machine or in one house
_AGENT_SECONDS = 0.2


class Delay(NamedTuple):
    """Expected seconds: on the way, waiting behind other tasks, loading the model, reading the task,
    writing the result. `is_known` says that they were measured or announced."""

    path: float
    queue: float
    load: float
    read: float
    write: float
    is_known: bool
    saved: float = 0.0  # not read again, because the peer has read it before: left out of `read`

    @property
    def work(self) -> float:
        """Without waiting behind others."""
        return _bounded(self.path + self.load + self.read + self.write)

    @property
    def total(self) -> float:
        return _bounded(self.work + self.queue)


def read_chars(offer: Offer, demand: Demand) -> int:
    """What has to be read of the task there."""
    return demand.prompt_chars - _warm_chars(offer, demand)


def delay_at(offer: Offer, demand: Demand, speeds: Speeds, health: Health, now: float) -> Delay:
    """What a task is expected to take at an offer."""
    under_way = _under_way(offer, speeds)
    path, load, read, write, is_known = _work(offer, demand, speeds, health, under_way, now)
    rounds = _waiting(offer, under_way, now)
    queue = _bounded((path + load + read + write) * rounds) if rounds else 0.0
    return Delay(path, queue, load, read, write, is_known, _saved(offer, demand, read))


def _saved(offer: Offer, demand: Demand, read: float) -> float:
    warm = _warm_chars(offer, demand)
    return _bounded(read * warm / max(1, demand.prompt_chars - warm)) if warm else 0.0


def _warm_chars(offer: Offer, demand: Demand) -> int:
    sticky = demand.sticky
    if sticky is None or (sticky.peer, sticky.model) != (offer.peer, offer.skill.model):
        return 0
    return min(max(0, sticky.prefix_chars), demand.prompt_chars)


def slots_of(slots: int) -> int:
    """Of a peer that announces this many."""
    return min(slots or SLOTS_DEFAULT, SLOTS_MAX)


def _waiting(offer: Offer, under_way: int, now: float) -> float:
    """How many rounds of tasks stand before a new one there."""
    slots, told = slots_of(offer.skill.slots), offer.load
    if told < slots > under_way:
        return 0.0
    age = min(max(0.0, now - offer.load_told_at), RUN_SECONDS_MAX)
    load = max(min(max(0, told), LOAD_MAX) * 0.5 ** (age / _LOAD_HALF_LIFE_SECONDS), under_way)
    return max(0.0, load + 1 - slots) / slots


def _under_way(offer: Offer, speeds: Speeds) -> int:
    """What this node itself has there, which the peer may not have told yet."""
    return min(speeds.under_way(offer.peer, offer.skill.model), LOAD_MAX)


def _work(
    offer: Offer, demand: Demand, speeds: Speeds, health: Health, under_way: int, now: float
) -> tuple[float, float, float, float, bool]:
    """Path, load, read, write, and whether that is more than a guess."""
    usual = health.expected_seconds(offer.peer, offer.skill.id)
    model = offer.model
    if model is None:
        return 0.0, 0.0, 0.0, _bounded(_AGENT_SECONDS if usual is None else usual), usual is not None
    measured = speeds.of(offer.peer, offer.skill.model)
    if measured is None and usual is not None:
        return 0.0, 0.0, 0.0, _bounded(usual), True
    chars, expected = read_chars(offer, demand), max(0, demand.expected_chars)
    load = max(0, offer.load, under_way)
    streams = min(load + 1, slots_of(offer.skill.slots))
    claimed = model.speed
    paced = speeds.elsewhere(offer.skill.model) if measured is None and claimed is None else measured
    read_char, write_char = _rates(model, paced, streams)
    return (
        _bounded(_PATH_SECONDS if measured is None or measured.path is None else measured.path),
        _bounded(_loading(claimed, measured, now)),
        _bounded(read_char * chars),
        _bounded(write_char * expected),
        measured is not None or claimed is not None,
    )


def _rates(model: ModelInfo, measured: Measured | None, streams: int) -> tuple[float, float]:
    """Seconds to read and to write a character, with so many tasks at once."""
    guess = _guessed_char(model)
    claimed = model.speed
    read = measured.read_char if measured is not None else None
    if read is None and claimed is not None and claimed.prefill_tokens_per_second:
        read = _char_seconds(claimed.prefill_tokens_per_second)
    write = _measured_write(measured, streams) if measured is not None else None
    if write is None and claimed is not None:
        write = _claimed_write(claimed, streams)
    return (
        guess / _READ_SPEEDUP if read is None else read,
        # Small processors gain nothing by batching: each of several tasks is so much slower.
        guess * streams if write is None else write,
    )


def _measured_write(measured: Measured, streams: int) -> float | None:
    """With so many tasks at once, and never quicker than what was measured with fewer."""
    level = level_of(streams)
    fewer = [seconds for known, seconds in measured.write_char.items() if known <= level]
    if fewer:
        return max(fewer)
    more = min(measured.write_char, default=None)
    return None if more is None else measured.write_char[more]


def _claimed_write(claimed: Speed, streams: int) -> float | None:
    """At the least announced number of tasks that is not less, and never quicker than what is announced
    for fewer; beyond them all, slower in proportion."""
    if not claimed.decode:
        return None
    paces = sorted(claimed.decode, key=lambda pace: pace.streams)
    upper = next((at for at, pace in enumerate(paces) if pace.streams >= streams), len(paces) - 1)
    crowding = max(1.0, streams / paces[upper].streams)
    return crowding * max(_char_seconds(pace.tokens_per_second) for pace in paces[: upper + 1])


def _loading(claimed: Speed | None, measured: Measured | None, now: float) -> float:
    if measured is not None:
        return (measured.cold or 0.0) if now - measured.at > COLD_AFTER_SECONDS else 0.0
    return claimed.load_seconds if claimed is not None and not claimed.is_resident else 0.0


def _guessed_char(model: ModelInfo) -> float:
    """Seconds to write a character by the size alone."""
    size = model.size_bytes or model.parameter_count or _SIZE_UNKNOWN
    slowest, quickest = _TOKENS_PER_SECOND
    return _char_seconds(min(max(_BYTES_PER_SECOND / size, slowest), quickest))


def _char_seconds(tokens_per_second: float) -> float:
    return 1 / (tokens_per_second * CHARS_PER_TOKEN) if tokens_per_second > 0 else math.inf


def _bounded(seconds: float) -> float:
    if 0.0 <= seconds <= RUN_SECONDS_MAX:
        return seconds
    return 0.0 if seconds < 0.0 else RUN_SECONDS_MAX  # NaN is neither
