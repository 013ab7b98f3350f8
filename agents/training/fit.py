# pyright: reportUnknownMemberType=false
"""Train a small decoder from nothing to answer requests with short results: dates, schedules, and the like.

A sample is <|in|>REQUEST<|out|>RESULT<|end|>; only the result is learnt. Models of this size learn to
choose symbols and not to copy words, so a result should come from a closed set of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from monai_node.agents.training.decoder import Decoder

END, IN, OUT = 0, 1, 2  # ids of gguf_export.CONTROLS
_IGNORED = -100

Pair = tuple[str, str]  # request, result


@dataclass(frozen=True, slots=True)
class FitOptions:
    """`rate` is AdamW's peak, reached after `warm_up` steps and falling to zero over the second half."""

    steps: int = 1000
    batch_tokens: int = 4000
    rate: float = 3e-3
    warm_up: int = 40
    seed: int = 1


def prompt_ids(tokeniser: Tokenizer, request: str) -> list[int]:
    """What the decoder is given to answer a request; no text of a request becomes a control token."""
    return [IN, *tokeniser.encode(request, add_special_tokens=False).ids, OUT]


def fit(decoder: Decoder, tokeniser: Tokenizer, pairs: Sequence[Pair], options: FitOptions) -> float:
    """Train on the pairs, over and over; the mean loss of the last tenth of the steps, in nats a token.

    Same seed, machine and thread count: same weights. Pairs longer than the context are left out.
    """
    rows = [
        (prompt_ids(tokeniser, request), [*tokeniser.encode(result, add_special_tokens=False).ids, END])
        for request, result in pairs
    ]
    rows = [row for row in rows if len(row[0]) + len(row[1]) <= decoder.shape.context]
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    decoder.train()
    draws = _batches(rows, options)
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / options.warm_up) * _fall(step / options.steps)
        tokens, wanted = next(draws)
        logits = decoder(tokens[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), wanted[:, 1:].flatten(), ignore_index=_IGNORED)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    decoder.eval()
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _fall(share: float) -> float:
    return min(1.0, 2 * (1 - share))


def _batches(
    rows: Sequence[tuple[list[int], list[int]]], options: FitOptions
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids [batch, tokens], and the same with _IGNORED wherever nothing is learnt; endless."""
    draw = random.Random(options.seed)  # noqa: S311  (an order of samples, no secret)
    while True:
        ordered = sorted(rows, key=lambda row: len(row[0]) + len(row[1]) + draw.random())
        size = max(1, options.batch_tokens // (len(ordered[-1][0]) + len(ordered[-1][1])))
        starts = list(range(0, len(ordered), size))
        draw.shuffle(starts)
        for start in starts:
            chosen = ordered[start : start + size]
            tokens = [torch.tensor(said + result) for said, result in chosen]
            wanted = [torch.tensor([_IGNORED] * len(said) + result) for said, result in chosen]
            yield (
                pad_sequence(tokens, batch_first=True, padding_value=END),
                pad_sequence(wanted, batch_first=True, padding_value=_IGNORED),
            )


@torch.inference_mode()
def answer(decoder: Decoder, tokeniser: Tokenizer, request: str, most: int = 64) -> list[int]:
    """The result's token ids, the likeliest one at a time, without <|end|>."""
    tokens = prompt_ids(tokeniser, request)
    start = len(tokens)
    while len(tokens) < min(start + most, decoder.shape.context):
        best = int(decoder(torch.tensor([tokens]))[0, -1].argmax())
        if best == END:
            break
        tokens.append(best)
    return tokens[start:]
