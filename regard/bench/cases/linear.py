"""The linear layers of one decoding step of a model of SmolLM-135M's shape, for so many rows at once.

30 layers of width 576 with 9 query and 3 key-value heads of 64 and a feed-forward of 1,536, and the head to 49,152
words: 134 million weights, 513 MiB in float32. Only the shape is that model's; the weights are random.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from regard.bench.cases import peers
from regard.bench.cases.case import Case, Contestant, off, worst
from regard.run.native.linear import PackedLinear

HIDDEN, KEYS, FEED, WORDS, LAYERS = 576, 192, 1536, 49_152, 30
LAYER = ((HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN), (FEED, HIDDEN), (FEED, HIDDEN))
SHAPES = (*LAYER, (HIDDEN, FEED))
MKL_ROWS = 32  # the row count that one MKL packing, which serves any, is made for

Apply = Callable[[Tensor], Tensor]


@cache
def memory(layers: int, words: int) -> Tensor:
    """All weights in one run of memory, as many as all shapes hold, each layer's scaled to outputs near 1."""
    sizes = [n * k for n, k in _shapes(layers, words)]
    flat = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0))
    for part, (_, inputs) in zip(flat.split(sizes), _shapes(layers, words), strict=True):
        part.mul_(inputs**-0.5)
    return flat


@cache
def weights(layers: int, words: int) -> list[Tensor]:
    """Every weight [outputs, inputs] in the order of its use, in that memory."""
    shapes = _shapes(layers, words)
    parts = memory(layers, words).split([n * k for n, k in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _shapes(layers: int, words: int) -> list[tuple[int, int]]:
    return [*SHAPES * layers, (words, HIDDEN)]


@cache
def packed(layers: int, words: int, int8: bool) -> list[PackedLinear]:
    """The same, packed; int8: rounded with a scale per output."""
    return [(PackedLinear.quantised if int8 else PackedLinear.pack)(w) for w in weights(layers, words)]


@cache
def joined(layers: int, words: int) -> list[PackedLinear]:
    """The same in float32, layers of one input as one: queries, keys and values, and both halves of the gated layer."""
    plain, found = weights(layers, words), []
    for first in range(0, len(plain) - 1, len(SHAPES)):
        q, k, v, out, gate, up, down = plain[first : first + len(SHAPES)]
        found += [PackedLinear.pack(w) for w in (torch.cat([q, k, v]), out, torch.cat([gate, up]), down)]
    return [*found, PackedLinear.pack(plain[-1])]


def _parted(found: list[Tensor]) -> list[Tensor]:
    """The outputs of joined layers as those of each layer."""
    parts: list[Tensor] = []
    for first in range(0, len(found) - 1, 4):
        qkv, out, both, down = found[first : first + 4]
        parts += [*qkv.split([HIDDEN, KEYS, KEYS], 1), out, *both.split(FEED, 1), down]
    return [*parts, found[-1]]


@cache
def mkl(layers: int, words: int) -> list[Tensor]:
    """The same in MKL's own packing."""
    return [torch.ops.mkl._mkl_reorder_linear_weight(w, MKL_ROWS) for w in weights(layers, words)]


def step(rows: int, layers: int = LAYERS, words: int = WORDS) -> Case:
    """All products of one step of so many rows."""
    make = torch.Generator().manual_seed(rows)
    plain = weights(layers, words)
    inputs = {width: torch.randn(rows, width, generator=make) for width in (HIDDEN, FEED)}
    floats, bytes8, together = packed(layers, words, False), packed(layers, words, True), joined(layers, words)
    error, error8 = _error(plain, inputs), _error([_unpacked(p) for p in _sampled(bytes8)], inputs)

    def all_of(applies: list[Apply], given: list[int]) -> Callable[[], list[Tensor]]:
        return lambda: [apply(inputs[width]) for apply, width in zip(applies, given, strict=True)]

    widths = [w.shape[1] for w in plain]
    contestants = {"torch linear": Contestant(all_of([partial(_linear, w) for w in plain], widths), error)}
    if torch.backends.mkl.is_available():
        both = zip(mkl(layers, words), plain, strict=True)
        contestants["MKL, packed"] = Contestant(all_of([partial(_mkl, p, w, rows) for p, w in both], widths), error)
    contestants |= {
        "native, packed": Contestant(all_of(list(floats), widths), error),
        "native, packed, joined": Contestant(
            all_of(list(together), [p.depth for p in together]), lambda found: error(_parted(found))
        ),
        "native, packed int8": Contestant(all_of(list(bytes8), widths), error8),
        "read the weights": Contestant(partial(peers.read, memory(layers, words))),
    }
    also = [("native, packed", who) for who in ("MKL, packed", "read the weights") if who in contestants]
    also.append(("native, packed, joined", "read the weights"))
    size = sum(w.numel() for w in plain) * 4 / 2**20
    return Case("torch linear", contestants, also=tuple(also), note=f"{len(plain)} layers, {size:.0f} MiB of weights")


def _linear(w: Tensor, x: Tensor) -> Tensor:
    return linear(x, w)


def _mkl(packed: Tensor, w: Tensor, rows: int, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkl._mkl_linear(x, packed, w, None, rows)
    return found


def _sampled(every: list[Any]) -> list[Any]:
    """One layer's weights and the head: each shape once or more."""
    return [*every[: len(SHAPES)], every[-1]]


def _unpacked(p: PackedLinear) -> Tensor:
    """The weight [N,K] in float64 that an int8 packing stands for."""
    assert p.scale is not None
    stored = p.panels.transpose(1, 2).reshape(-1, p.depth)[: p.num_outputs]
    return stored.double() * p.scale.double()[:, None]


def _error(plain: list[Tensor], inputs: dict[int, Tensor]) -> Callable[[list[Tensor]], float]:
    truth = [inputs[w.shape[1]].double() @ w.double().mT for w in _sampled(plain)]
    return lambda found: worst(off(a, b) for a, b in zip(_sampled(found), truth, strict=True))
