"""What is possible: no schedule is shorter than the bound, and few are shorter than the oracle's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from monai_node.agents.graph import TaskGraph

ORACLE_TRIES = 60

Draw = dict[str, float]  # seconds of work of each task


@dataclass(frozen=True, slots=True)
class Peers:
    """The conditions: how fast each peer is, and how many tasks it does at once."""

    speeds: tuple[float, ...]
    slots: int

    @property
    def machines(self) -> list[float]:
        return [speed for speed in self.speeds for _ in range(self.slots)]


def chains(graph: TaskGraph, draw: Draw) -> Draw:
    """The work of the heaviest chain that begins with each task."""
    found: Draw = {}

    def measure(name: str) -> float:
        if name not in found:
            found[name] = draw[name] + max(map(measure, graph.dependants(name)), default=0.0)
        return found[name]

    for task in graph.tasks:
        measure(task.id)
    return found


def bound(graph: TaskGraph, draw: Draw, peers: Peers) -> float:
    chain = max(chains(graph, draw).values()) / max(peers.speeds)
    return max(chain, sum(draw.values()) / sum(peers.machines))


def oracle(graph: TaskGraph, draw: Draw, peers: Peers, chance: Random) -> float:
    """The shortest of many list schedules that know the draws: priorities near the heaviest chain, the
    machine of the earliest finish, now and then the next one."""
    tails, best = chains(graph, draw), math.inf
    for number in range(ORACLE_TRIES):
        spread = 0.4 if number else 0.0
        first = {name: tail * math.exp(chance.gauss(0.0, spread)) for name, tail in tails.items()}
        stray_share = 0.15 if number % 2 else 0.0
        best = min(best, _list_schedule(graph, draw, peers, first, partial(_is_below, chance, stray_share)))
    return best


def _is_below(chance: Random, share: float) -> bool:
    return chance.random() < share


def _list_schedule(
    graph: TaskGraph, draw: Draw, peers: Peers, first: Draw, strays: Callable[[], bool]
) -> float:
    speeds, free, done = peers.machines, [0.0] * len(peers.machines), dict[str, float]()
    while len(done) < len(graph.tasks):
        name = max(graph.ready(done), key=lambda name: first[name])
        ready = max((done[other] for other in graph.task(name).depends_on), default=0.0)
        ends = sorted((max(at, ready) + draw[name] / speeds[n], n) for n, at in enumerate(free))
        done[name], machine = ends[1 if strays() and len(ends) > 1 else 0]
        free[machine] = done[name]
    return max(done.values())
