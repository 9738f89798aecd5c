"""What each policy keeps of a prompt, by its published formula, from full matrices of eager attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d


@dataclass
class Layer:
    """One layer of a prompt: eager's weights [H,n,n]; rotated keys and values [G,n,D]; queries before rotation [H,n,D]
    and the rotation of a later position as a matrix [D,D]."""

    a: Tensor
    k: Tensor
    v: Tensor
    q_plain: Tensor
    turn: Callable[[int], Tensor]
    number: int
    layers: int

    @property
    def n(self) -> int:
        return self.a.shape[-1]

    @property
    def groups(self) -> int:
        return self.k.shape[0]

    def grouped(self, x: Tensor) -> Tensor:
        return x.reshape(self.groups, -1, *x.shape[1:]).mean(1)


def best(scores: Tensor, count: int) -> list[set[int]]:
    return [set(row.argsort(descending=True)[:count].tolist()) for row in scores]


def sinks(x: Layer, share: float) -> list[set[int]]:
    count = max(1, int(x.n * share))
    return [set(range(4)) | set(range(x.n - count + 4, x.n))] * x.groups


def h2o(x: Layer, share: float) -> list[set[int]]:
    mean = x.a.double().sum(1) / torch.arange(x.n, 0, -1)
    return best(x.grouped(mean), max(1, int(x.n * share)))


def tova(x: Layer, share: float) -> list[set[int]]:
    scores = x.a[:, -1].mean(0).clone()
    scores[-1] = 9.0
    return best(scores.expand(x.groups, -1), max(1, int(x.n * share)))


def votes(x: Layer, window: int, kernel: int = 5) -> Tensor:
    found = avg_pool1d(x.a[:, -window:, :-window].mean(1), kernel, 1, kernel // 2)
    return torch.cat([x.grouped(found), torch.full((x.groups, window), 9.0)], 1)


def snapkv(x: Layer, share: float, window: int = 8) -> list[set[int]]:
    return best(votes(x, window), max(1, int(x.n * share)))


def pyramid(x: Layer, share: float, window: int = 8, beta: int = 20) -> list[set[int]]:
    wanted = x.n * share
    least = wanted / beta
    most = 2 * wanted - least
    if most >= x.n - window:
        most, least = x.n - window, 2 * wanted - (x.n - window)
    if not x.n >= most >= least >= window:
        return snapkv(x, share, window)
    return best(votes(x, window), round(most - x.number * (most - least) / (x.layers - 1)))


def ada(x: Layer, share: float, window: int = 8, safe: float = 0.2) -> list[set[int]]:
    scores, each = votes(x, window), max(1, int(x.n * share))
    kept = best(scores, max(1, int(each * safe)))
    pairs = [(float(scores[g, j]), g, j) for g in range(x.groups) for j in range(x.n) if j not in kept[g]]
    for _, g, j in sorted(pairs, reverse=True)[: x.groups * each - sum(map(len, kept))]:
        kept[g].add(j)
    return kept


def expected(x: Layer, share: float, future: int = 512, first: int = 4) -> list[set[int]]:
    width, times = x.k.shape[-1], x.q_plain.shape[0] // x.groups
    turn = torch.stack([x.turn(x.n + step) for step in range(future)]).mean(0)
    scores = []
    for head in range(x.q_plain.shape[0]):
        q = x.q_plain[head, first:].double()
        mean, spread = turn @ q.mean(0), turn @ torch.cov(q.T, correction=0) @ turn.T
        k = x.k[head // times, first:].double()
        exponent = (k @ mean) / width**0.5 + torch.einsum("jd,de,je->j", k, spread, k) / width / 2
        scores.append(exponent.softmax(-1))
    weighed = x.grouped(torch.stack(scores)) * x.v[:, first:].double().norm(dim=-1)
    return best(torch.cat([torch.full((x.groups, first), 9e9), weighed], 1), max(1, int(x.n * share)))


ORACLES = {
    "sinks": sinks,
    "h2o": h2o,
    "tova": tova,
    "snapkv": snapkv,
    "pyramid": pyramid,
    "ada": ada,
    "expected": expected,
}
