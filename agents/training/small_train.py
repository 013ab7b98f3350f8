# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""Train the small labeller: from gold plans to weights, the same ones for the same seed and machine."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from monai_node.agents.label import Label, label_by_rules
from monai_node.agents.labellers.decode import openings, rule_links
from monai_node.agents.labellers.features import LABELS, Features, Tokenize, features
from monai_node.agents.labellers.net import SmallLabeller, batch_of
from monai_node.agents.segment import Segment, segment
from monai_node.agents.training.align import align, owners
from monai_node.agents.training.compose import Composer
from monai_node.agents.training.corpus import Gold


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. `steps` batches of about `batch_tokens` tokens; the rates are the peaks."""

    seed: int = 1
    steps: int = 2000
    batch_tokens: int = 1200
    adapter_rate: float = 1e-3
    head_rate: float = 1e-3
    warm_up: int = 60
    varied_share: float = 0.3
    composed_share: float = 0.8
    outside_weight: float = 0.3
    edge_weight: float = 1.0
    weight_decay: float = 0.05


@dataclass(frozen=True, slots=True)
class Example:
    """A request as the network learns it: targets of its segments and, [tasks, tasks], of its edges."""

    features: Features
    labels: tuple[int, ...]
    weights: tuple[float, ...]
    starts: tuple[int, ...]
    hints: Tensor
    edges: Tensor
    lower: Tensor = field(default_factory=lambda: torch.empty(0))


def example(gold: Gold, tokenize: Tokenize, outside_weight: float) -> Example | None:
    """None when the request is too long to be shown."""
    segments = segment(gold.text)
    shown = features(segments, tokenize)
    if shown is None:
        return None
    right = align(gold, segments, label_by_rules(segments).labels)
    mine = owners(gold, segments)
    starts = openings(right.labels)
    edges = torch.zeros(len(starts), len(starts))
    for task, start in enumerate(starts):
        for other in right.needs[start] or ():
            edges[task, starts.index(other)] = 1
    return Example(
        shown,
        tuple(LABELS.index(label) for label in right.labels),
        tuple(
            0.0
            if piece.kind == "payload"
            else outside_weight
            if owner is None and label == "continue"
            else 1.0
            for piece, owner, label in zip(segments, mine, right.labels, strict=True)
        ),
        tuple(starts),
        hints_of(segments, right.labels),
        edges,
    )


def hints_of(segments: Sequence[Segment], labels: Sequence[Label]) -> Tensor:
    """What the rules draw between the tasks, as `SmallLabeller.relate` takes it: [tasks, tasks]."""
    links = rule_links(segments, labels)
    hints = torch.zeros(len(links), len(links), dtype=torch.long)
    for task, found in enumerate(links):
        for other in found.depends_on:
            hints[task, other] = 2 if found.is_explicit else 1
    return hints


def examples(golds: Sequence[Gold], tokenize: Tokenize, recipe: Recipe) -> list[Example]:
    """The corpus, some of it once more in other clothes, and composed requests."""
    draw = random.Random(recipe.seed)  # noqa: S311
    composer = Composer(golds, recipe.seed)
    varied = [composer.vary(gold) for gold in draw.sample(golds, int(len(golds) * recipe.varied_share))]
    composed = [composer.compose() for _ in range(int(len(golds) * recipe.composed_share))]
    made = [example(gold, tokenize, recipe.outside_weight) for gold in [*golds, *varied, *composed]]
    return [one for one in made if one]


def with_lower(rows: Sequence[Example], net: SmallLabeller, batch_tokens: int) -> list[Example]:
    """The same examples with the states of the layers that never change."""
    done: list[Example] = []
    for batch in _batches(sorted(rows, key=_length), batch_tokens):
        packed = batch_of([row.features for row in batch])
        states = net.encoder.lower(packed.tokens.to(net.label.weight.device)).cpu()
        done += [
            replace(row, lower=states[at, : _length(row)].half().clone()) for at, row in enumerate(batch)
        ]
    return done


def supply(rows: Sequence[Example], recipe: Recipe) -> Iterator[list[Example]]:
    """Batches without end: the examples over and over, those of like length together."""
    draw = random.Random(recipe.seed)  # noqa: S311
    while True:
        near = {id(row): _length(row) + draw.random() * 8 for row in rows}
        batches = _batches(sorted(rows, key=lambda row: near[id(row)]), recipe.batch_tokens)
        draw.shuffle(batches)
        yield from batches


def _length(row: Example) -> int:
    return len(row.features.tokens) + 2


def _batches(rows: Sequence[Example], batch_tokens: int) -> list[list[Example]]:
    batches: list[list[Example]] = [[]]
    for row in rows:
        longest = max(map(_length, [*batches[-1], row]))
        if batches[-1] and longest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def loss_of(net: SmallLabeller, rows: Sequence[Example], recipe: Recipe) -> Tensor:
    device = net.label.weight.device
    lower = torch.nn.utils.rnn.pad_sequence([row.lower.float() for row in rows], batch_first=True)
    states, logits = net.read(batch_of([row.features for row in rows], str(device)), lower.to(device))
    count = states.shape[1]
    targets = torch.full((len(rows), count), 0, dtype=torch.long)
    weights = torch.zeros(len(rows), count)
    for at, row in enumerate(rows):
        targets[at, : len(row.labels)] = torch.tensor(row.labels)
        weights[at, : len(row.labels)] = torch.tensor(row.weights)
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten().to(device), reduction="none", label_smoothing=0.05
    )
    weights = weights.flatten().to(device)
    loss = (losses * weights).sum() / weights.sum()
    several = [at for at, row in enumerate(rows) if len(row.starts) > 1]
    if several:
        loss = loss + recipe.edge_weight * _edge_loss(net, states[several], [rows[at] for at in several])
    return loss


def _edge_loss(net: SmallLabeller, states: Tensor, rows: Sequence[Example]) -> Tensor:
    device = states.device
    count = max(len(row.starts) for row in rows)
    chosen = torch.zeros(len(rows), count, dtype=torch.long)
    hints = torch.full((len(rows), count, count), -1, dtype=torch.long)
    edges = torch.zeros(len(rows), count, count)
    for at, row in enumerate(rows):
        own = len(row.starts)
        chosen[at, :own] = torch.tensor(row.starts)
        hints[at, :own, :own] = row.hints
        edges[at, :own, :own] = row.edges
    chosen, hints, edges = chosen.to(device), hints.to(device), edges.to(device)
    tasks = states.gather(1, chosen[..., None].expand(-1, -1, states.shape[-1]))
    scores = net.relate(tasks, hints)
    is_pair = (hints >= 0) & ~torch.eye(count, dtype=torch.bool, device=device)
    losses = F.binary_cross_entropy_with_logits(scores, edges, reduction="none")
    return (losses * is_pair).sum() / is_pair.sum()


@dataclass(slots=True)
class Run:
    """What training left behind: the best averaged weights and how the figures went."""

    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    best: float = -math.inf
    history: list[str] = field(default_factory=list[str])


def train(
    base: Mapping[str, Tensor],
    golds: Sequence[Gold],
    tokenize: Tokenize,
    recipe: Recipe,
    judge: Callable[[SmallLabeller], tuple[float, str]],
    start: Mapping[str, Tensor] | None = None,
    every: int = 150,
    seconds: float = math.inf,
    say: Callable[[str], None] = print,
) -> Run:
    """Train, on from `start` if given; every so many steps `judge` scores the running average of the
    weights, and the best stays."""
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = SmallLabeller({name: tensor.to(device) for name, tensor in base.items()}).to(device)
    if start is not None:
        net.load_state_dict(dict(start))
    average = SmallLabeller(net.encoder.base).to(device).eval()
    average.load_state_dict(net.state_dict())
    adapters = list(net.encoder.adapters.parameters())
    heads = [weight for name, weight in net.named_parameters() if not name.startswith("encoder.")]
    groups: list[dict[str, Any]] = [
        {"params": adapters, "lr": recipe.adapter_rate, "peak": recipe.adapter_rate},
        {"params": heads, "lr": recipe.head_rate, "peak": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    run, started, recent = Run(), time.monotonic(), 0.0
    rows = with_lower(examples(golds, tokenize, recipe), average, 4 * recipe.batch_tokens)
    say(f"{len(rows)} examples, {sum(map(_length, rows))} tokens, {time.monotonic() - started:.0f} s")
    batches = supply(rows, recipe)
    for step in range(1, recipe.steps + 1):
        past = max(step / recipe.steps, (time.monotonic() - started) / seconds)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * min(1, step / recipe.warm_up) * max(0.02, min(1, 1.25 * (1 - past)))
        net.train()
        loss = loss_of(net, next(batches), recipe)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapters + heads, 1.0)
        optimiser.step()
        recent = 0.98 * recent + 0.02 * float(loss.detach()) if step > 1 else float(loss.detach())
        _follow(average, net, min(0.99, step / (step + 20)))
        if step % every == 0 or step == recipe.steps or past >= 1:
            figure, line = judge(average)
            run.history.append(f"step {step}, {time.monotonic() - started:.0f} s, loss {recent:.3f}: {line}")
            say(run.history[-1])
            if figure > run.best:
                run.best = figure
                run.weights = {name: one.clone() for name, one in average.state_dict().items()}
        if past >= 1:
            break
    return run


@torch.no_grad()
def _follow(average: SmallLabeller, net: SmallLabeller, keep: float) -> None:
    for old, new in zip(average.parameters(), net.parameters(), strict=True):
        old.lerp_(new, 1 - keep)
