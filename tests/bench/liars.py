"""What liars and other bad peers cost: `python tests/bench/liars.py --json`, one JSON line.

A simulation, without models and network, of one gateway and 20 peers: the project's own ranking, estimates,
canaries and health, around peers that are right with a given chance. Of the tasks 25 % have no contract but
that there is a result, 55 % one that sees the form, 20 % one that knows the value; a broken one is asked of
the next peer, at most three in all. Liars announce the best model.

- `lies`: by what liars do and by their share: `accuracy` of answers after the first 50 requests, `asked` the
  share of liars among attempts, `behind` the points of accuracy that are lost against the same number of
  peers without liars, `error` the standard error of these, `undefended` the accuracy when peers are taken at
  random and nothing is checked. Turncoats, and the sly that do well at canaries also then, are honest for 150
  requests and measured from 50 after that; `spent` is how many answers more are wrong from the turn on.
- `troubles`: slow (12 s instead of 1), flapping and stale peers, 30 % of all: seconds and failed requests,
  with the router and with peers at random.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
from dataclasses import dataclass
from random import Random

from liars_mesh import HONEST_REQUESTS, NO_DEFENCE, TURNING, Defence, Lie, Mesh, Tally, Trouble, peers_of

PEERS = 20
LIES: tuple[Lie, ...] = (
    *("empty", "echo", "truncated", "weak"),
    *("plausible", "turncoat", "wary", "sly", "boaster"),
)
TROUBLES: tuple[Trouble, ...] = ("slow", "flapping", "stale")
SHARES = (0.1, 0.3, 0.49)
TROUBLED_SHARE = 0.3
# Until then nobody is known.
WARM_UP = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often each arm is run."""

    requests: int
    seeds: int

    def run(
        self, share: float, lie: Lie = "", trouble: Trouble = "", defence: Defence | None = None
    ) -> list[Tally]:
        """One tally for each seed."""
        tallies: list[Tally] = []
        for seed in range(self.seeds):
            peers = peers_of(PEERS, round(PEERS * share), lie, trouble, Random(seed))
            tallies.append(Mesh(peers, defence or Defence(), seed).run(self.requests))
        return tallies


def accuracy(tallies: list[Tally], start: int) -> float:
    return round(100 * statistics.mean(statistics.mean(tally.right[start:]) for tally in tallies), 1)


def asked(tallies: list[Tally], start: int) -> float:
    return round(100 * statistics.mean(statistics.mean(tally.asked_liars[start:]) for tally in tallies), 2)


def error_of_behind(tallies: list[Tally], honest: list[Tally], start: int) -> float:
    """The standard error, in points, of how far the one is behind the other: runs are independent, answers
    of one are not."""
    arms = [[statistics.mean(each.right[start:]) for each in arm] for arm in (tallies, honest)]
    variances = [statistics.variance(map(float, arm)) for arm in arms]
    return round(100 * math.sqrt(sum(variances) / len(tallies)), 1)


def figures(plan: Plan, lie: Lie, share: float, honest: list[Tally]) -> dict[str, float]:
    start = HONEST_REQUESTS + WARM_UP if lie in TURNING else WARM_UP
    tallies = plan.run(share, lie)
    found = accuracy(tallies, start)
    row = {
        "accuracy": found,
        "behind": round(accuracy(honest, start) - found, 1),
        "asked": asked(tallies, start),
        "undefended": accuracy(plan.run(share, lie, defence=NO_DEFENCE), start),
    }
    if plan.seeds > 1:
        row["error"] = error_of_behind(tallies, honest, start)
    if lie in TURNING:
        lost = accuracy(honest, HONEST_REQUESTS) - accuracy(tallies, HONEST_REQUESTS)
        row["spent"] = round(lost / 100 * (plan.requests - HONEST_REQUESTS), 1)
    return row


def trouble_figures(plan: Plan, trouble: Trouble) -> dict[str, dict[str, float]]:
    arms = {"router": Defence(), "random": NO_DEFENCE}
    return {
        name: _times(plan.run(TROUBLED_SHARE, trouble=trouble, defence=defence))
        for name, defence in arms.items()
    }


def _times(tallies: list[Tally]) -> dict[str, float]:
    seconds = [each for tally in tallies for each in tally.seconds[WARM_UP:]]
    requests = sum(len(tally.right) for tally in tallies)
    return {
        "median_seconds": round(statistics.median(seconds), 2),
        "p95_seconds": round(statistics.quantiles(seconds, n=20)[18], 2),
        "failed": round(100 * sum(tally.failed for tally in tallies) / requests, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="what liars cost")
    parser.add_argument("--json", action="store_true", help="print one JSON line (always)")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    plan = Plan(arguments.requests, arguments.seeds)
    honest = plan.run(0.0)
    lies = {lie: {str(share): figures(plan, lie, share, honest) for share in SHARES} for lie in LIES}
    rows = [row for shares in lies.values() for row in shares.values()]
    line = {
        "bench": "liars",
        "is_simulated": True,
        "host": platform.machine(),
        "peers": PEERS,
        "requests": plan.requests,
        "seeds": plan.seeds,
        "honest_accuracy": accuracy(honest, WARM_UP),
        "canaries": statistics.mean(tally.canaries for tally in honest),
        "lies": lies,
        "troubles": {trouble: trouble_figures(plan, trouble) for trouble in TROUBLES},
        "summary": {
            "asked_max": max(row["asked"] for row in rows),
            "behind_max": max(row["behind"] for row in rows),
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
