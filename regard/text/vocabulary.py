"""The words of the text form: masks and parts by name. Mechanisms have theirs in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from regard.mechanism import Mask
from regard.parts import masks
from regard.parts.adjusts import Dropout
from regard.parts.features import PositiveFeatures
from regard.parts.normalisers import Gumbel, Hard, Ratio, Relu, Sigmoid, Softmax, TopK
from regard.parts.prepare import AddPositions as Positions
from regard.parts.prepare import EluPlusOne, Normalise, Temperature
from regard.parts.relative import Alibi, SelfPenalty
from regard.parts.rotary import Rotary
from regard.parts.scores import Dot, Euclidean, Softcap
from regard.parts.select import SelectBlocks
from regard.parts.sparse import Entmax

Slot = Literal["base", "term", "normaliser", "prepare", "adjust"]


def _dot(scale: float = 1.0) -> Dot:
    return Dot(scale)


def _scaled_dot() -> Dot:
    return Dot()


def _gaussian(gamma: float = 0.5) -> Euclidean:
    return Euclidean(gamma)


def _softmax(sink: float | None = None) -> Softmax:
    return Softmax(sink)


def _off_by_one() -> Softmax:
    return Softmax(0.0)


def _sparsemax() -> Entmax:
    return Entmax(2.0)


def _entmax(alpha: float = 1.5) -> Entmax:
    return Entmax(alpha)


def _softcap(cap: float = 50.0) -> Softcap:
    return Softcap(cap)


def _sample(seed: int = 0) -> Gumbel:
    return Gumbel(seed=seed, straight_through=False)


def _gumbel(temperature: float = 1.0, seed: int = 0) -> Gumbel:
    return Gumbel(temperature, seed)


def _rotary(base: float = 10_000.0, width: int | None = None, interleaved: bool = False) -> Rotary:
    return Rotary(base, width, None, interleaved)


def _sinusoidal(values: bool = False) -> Positions:
    return Positions(None, values)


def _favor(count: int = 256, seed: int = 0) -> PositiveFeatures:
    return PositiveFeatures(count, seed)


def _mean_blocks(size: int, count: int) -> SelectBlocks:
    return SelectBlocks(size, count, "mean")


def _bound_blocks(size: int, count: int) -> SelectBlocks:
    return SelectBlocks(size, count, "bound")


MASKS: dict[str, Callable[..., Mask]] = {
    "full": masks.full,
    "causal": masks.causal,
    "window": masks.window,
    "near": masks.near,
    "sinks": masks.sinks,
    "globals": masks.global_keys,
    "global_tokens": masks.global_tokens,
    "prefix": masks.prefix,
    "chunk": masks.chunk,
    "every": masks.every,
    "dilated": masks.dilated,
    "summary": masks.summary,
    "near_blocks": masks.near_blocks,
    "random_blocks": masks.random_blocks,
    "heads": masks.heads,
}

PARTS: dict[str, tuple[Slot, Callable[..., Any]]] = {
    "scaled_dot": ("base", _scaled_dot),
    "dot": ("base", _dot),
    "gaussian": ("base", _gaussian),
    "alibi": ("term", Alibi),
    "softcap": ("term", _softcap),
    "self_penalty": ("term", SelfPenalty),
    "softmax": ("normaliser", _softmax),
    "off_by_one": ("normaliser", _off_by_one),
    "sigmoid": ("normaliser", Sigmoid),
    "relu": ("normaliser", Relu),
    "ratio": ("normaliser", Ratio),
    "sparsemax": ("normaliser", _sparsemax),
    "entmax": ("normaliser", _entmax),
    "topk": ("normaliser", TopK),
    "hard": ("normaliser", Hard),
    "gumbel": ("normaliser", _gumbel),
    "sample": ("normaliser", _sample),
    "temperature": ("prepare", Temperature),
    "unit": ("prepare", Normalise),
    "rotary": ("prepare", _rotary),
    "sinusoidal": ("prepare", _sinusoidal),
    "elu_plus_one": ("prepare", EluPlusOne),
    "favor": ("prepare", _favor),
    "mean_blocks": ("prepare", _mean_blocks),
    "bound_blocks": ("prepare", _bound_blocks),
    "dropout": ("adjust", Dropout),
}
