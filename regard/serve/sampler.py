"""From logits to tokens: the meaning of every sampling option, in torch, and the native kernel that does the same.

Row by row: a logit bias and penalties change the logits; then x ← x / temperature; then top_k keeps the k largest;
top_p, of what is left, the smallest set of the most probable tokens with at least so much probability; min_p those
with at least so much of the best one's probability. The draw is the inverse of the cumulative distribution, tokens in
order of probability, at a number that depends on the seed and the index of the token alone: the same seed gives the
same tokens whatever else is in the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.run import native
from regard.run.native.extension import extension
from regard.serve.request import Sampling

MASK = (1 << 64) - 1


@dataclass(frozen=True, eq=False)
class Row:
    """One choice to make. prompt, output: tokens so far; key: the seed of this answer; banned: tokens that may not
    come yet; allowed: bool [vocabulary] of a grammar, or None for all."""

    sampling: Sampling
    prompt: Sequence[int]
    output: Sequence[int]
    key: int
    banned: tuple[int, ...] = ()
    allowed: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the logits are taken as they are."""
        return not (self.sampling.changes_logits or self.banned or self.allowed is not None)


def mixed(x: int) -> int:
    """A 64-bit number with every bit of x spread over all of them (splitmix64: Steele 2014, figure 10)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def key_of(seed: int, index: int) -> int:
    """The seed of answer `index` of a request."""
    return mixed(mixed(seed & MASK) ^ index)


def uniform(key: int, step: int) -> float:
    """The number in [0, 1) that decides token `step` of an answer."""
    return (mixed(key ^ mixed(step)) >> 11) * 2.0**-53


def choose(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """A token for every row of logits [rows, vocabulary] float32, which may be changed in place; by the native core
    where it is built. The same tokens as `choose_plainly`, but where two agree to their last digits."""
    if not native.available() or logits.stride(1) != 1:
        return choose_plainly(logits, rows)
    asked: list[tuple[Any, ...] | None] = []
    for i, row in enumerate(rows):
        penalised = row.sampling.penalises
        if row.banned or row.allowed is not None or row.sampling.logit_bias:
            change(logits[i], row)
            penalised = False
        asked.append(_asked(row, penalised))
    threads = torch.get_num_threads()
    chosen: list[int] = extension().choose_tokens(logits.data_ptr(), logits.stride(0), logits.shape[1], asked, threads)
    return chosen


def _asked(row: Row, penalised: bool) -> tuple[Any, ...] | None:
    """A row as the extension takes it; None for the best token of logits as they are."""
    s = row.sampling
    if s.is_greedy and not penalised:
        return None
    penalties = (s.repetition_penalty, s.presence_penalty, s.frequency_penalty) if penalised else None
    number = 0.0 if s.is_greedy else uniform(row.key, len(row.output))
    return s.temperature, s.top_k, s.top_p, s.min_p, number, penalties, row.prompt, row.output


def choose_plainly(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """The same in torch, which says what is meant."""
    for i, row in enumerate(rows):
        if not row.is_plain:
            change(logits[i], row)
    tokens = logits.argmax(-1).tolist()
    for i, row in enumerate(rows):
        if not row.sampling.is_greedy:
            tokens[i] = draw(logits[i], row.sampling, uniform(row.key, len(row.output)))
    return tokens


def change(logits: Tensor, row: Row) -> None:
    """Bias, penalties, bans and a grammar, in place. logits [vocabulary]."""
    sampling = row.sampling
    if sampling.penalises:
        counts = Counter(row.output)
        _penalise(logits, sampling, counts, row.prompt)
    if sampling.logit_bias:
        ids, added = zip(*sampling.logit_bias)
        logits.index_add_(0, torch.tensor(ids), torch.tensor(added, dtype=logits.dtype))
    if row.banned:
        logits[list(row.banned)] = -torch.inf
    if row.allowed is not None:
        logits.masked_fill_(~row.allowed, -torch.inf)


def _penalise(logits: Tensor, sampling: Sampling, counts: Counter[int], prompt: Sequence[int]) -> None:
    if sampling.repetition_penalty != 1.0:
        ids = torch.tensor(sorted({*prompt, *counts}), dtype=torch.long)
        x, by = logits[ids], sampling.repetition_penalty
        logits[ids] = torch.where(x > 0, x / by, x * by)
    if counts and (sampling.presence_penalty or sampling.frequency_penalty):
        ids = torch.tensor(list(counts), dtype=torch.long)
        times = torch.tensor(list(counts.values()), dtype=logits.dtype)
        logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * times


def draw(logits: Tensor, sampling: Sampling, number: float) -> int:
    """The token at `number` in [0, 1) of the filtered distribution. logits [vocabulary]."""
    x = logits.double() / sampling.temperature
    if 0 < sampling.top_k < len(x):
        values, order = x.sort(descending=True, stable=True)
        values, order = values[: sampling.top_k], order[: sampling.top_k]
    elif sampling.top_p < 1.0 or sampling.min_p > 0.0:
        values, order = x.sort(descending=True, stable=True)
    else:
        values, order = x, torch.arange(len(x))
    weights = (values - values.max()).exp()
    if sampling.top_p < 1.0:
        before = weights.cumsum(0) - weights
        weights = weights.masked_fill(before >= sampling.top_p * weights.sum(), 0.0)
    if sampling.min_p > 0.0:
        weights = weights.masked_fill(weights < sampling.min_p, 0.0)
    total = weights.cumsum(0)
    at = int(torch.searchsorted(total, number * total[-1], right=True))
    return int(order[min(at, int(weights.nonzero()[-1]))])


@dataclass(frozen=True)
class Chances:
    """The natural logarithm of a token's probability, and the most probable tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    rank: int = 0


def chances(logits: Tensor, tokens: Sequence[int], most: Sequence[int]) -> list[Chances]:
    """Log-probabilities of the model's own logits [rows, vocabulary], before any option; most[i] alternatives."""
    if not tokens:
        return []
    total = logits.logsumexp(-1, keepdim=True)
    taken = torch.tensor(tokens)[:, None]
    own = logits.gather(1, taken)
    ranks = (logits > own).sum(-1).tolist()
    logprobs = (own - total)[:, 0].tolist()
    best = logits.topk(min(max(most), logits.shape[-1])) if max(most) else None
    found = []
    for i, token in enumerate(tokens):
        top: tuple[tuple[int, float], ...] = ()
        if best is not None and most[i]:
            values = (best.values[i, : most[i]] - total[i]).tolist()
            top = tuple(zip(best.indices[i, : most[i]].tolist(), values))
        found.append(Chances(token, logprobs[i], top, ranks[i] + 1))
    return found
