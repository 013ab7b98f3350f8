"""Measure choosing a skill for a text: which comes first, and whether any fits.

    python tests/bench/router.py --json
    python tests/bench/router.py --json --skills F --queries F [--examples N] [--out F]

Prints one JSON line. Without options the three sets of $MONAI_BENCH_DATA (default ../shared/bench beside
the repository; without them the line says `skipped`) are measured. Files are JSON lines:
`{"id", "name", "description", "examples"}` a skill, `{"text", "gold": [ids]}` a request; no gold means that
no skill fits, several that each does. Every skill stands at a peer of its own.

`arms` has what each kind of comparison comes to with each number of examples (0, 1, 3, 5 and all, or what
`--examples` says): `fused` is what a gateway does (SkillIndex and its embedder), `dense` the cosine of the
nearest text, `sparse` likeness in words. `summary` is `fused` with most examples. Skill and request
texts are the same in all of them: name and description, and the examples.

top1, top3: percent of the requests that a skill fits with a right one among the first; mrr: mean of 1 /
place of the first right one among those that are matched. auroc: that `p_none` tells requests without a
skill from others; ece: expected calibration error of `p_none`, ten bins, over all requests; ece_fit: of the
chance of the first skill being right. Chances of `dense` and `sparse` are their cosines, uncalibrated.
p95_ms: processor time of one match, on one thread, without embedding. Intervals are of 1,000 bootstrap
samples, 95 %.

`--out` writes a line a request: {"id": its place in the file, "ranked": [ids], "p_none": chance}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from pathlib import Path
from typing import Any

from router_arms import EXAMPLES, measure
from router_data import NAMES, data_folder, files_of, open_stored_embedder, read_set


async def on_files(options: argparse.Namespace) -> dict[str, Any]:
    whole = read_set(options.skills, options.queries)
    examples = EXAMPLES if options.examples is None else (options.examples,)
    async with open_stored_embedder() as embedder:
        return await measure(whole, examples, embedder, options.out)


async def on_all() -> dict[str, Any]:
    async with open_stored_embedder() as embedder:
        found = {name: await measure(read_set(*files_of(name)), EXAMPLES, embedder) for name in NAMES}
    return {
        "summary": {name: each["summary"] for name, each in found.items()},
        "arms": {name: each["arms"] for name, each in found.items()},
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure choosing a skill; prints one JSON line.")
    parser.add_argument("--json", action="store_true", help="one JSON line (the default, and only, form)")
    parser.add_argument("--skills", type=Path, metavar="FILE", help="skills, one a line")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="requests, one a line")
    parser.add_argument("--examples", type=int, metavar="N", help="only the first N examples of each skill")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the order of skills goes")
    options = parser.parse_args()
    if (options.skills is None) != (options.queries is None):
        parser.error("--skills and --queries go together")
    if options.skills is None and (options.out or options.examples is not None):
        parser.error("--out and --examples need --skills")
    return options


def main() -> None:
    options = parsed()
    line: dict[str, Any] = {
        "bench": "router",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    if options.skills is not None:
        line |= asyncio.run(on_files(options))
    elif all(path.is_file() for name in NAMES for path in files_of(name)):
        line |= asyncio.run(on_all())
    else:
        line["skipped"] = f"no data in {data_folder()}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
