"""Dense cases: causal at every length, heads and groups, a window with sinks, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from regard import core
from regard.bench.cases import peers
from regard.bench.cases.case import Case, Contestant, off, worst
from regard.inputs import Inputs, inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.run import native
from regard.run.choose import BACKENDS, candidates, choose, explain
from regard.seeing.statistics import Entropy, standard
from regard.seeing.watching import Watching
from regard.statistic import Axis, View

REFERENCE_TOKENS = 1024


def causal(tokens: int, heads: int = 12, groups: int = 12, width: int = 64, watched: bool = True) -> Case:
    """Causal prefill by everyone who can; watched: also all statistics of all heads, with the output and alone."""
    x = _inputs(tokens, heads, groups, width)
    mechanism = _mechanism(masks.causal())
    error = _rows_error(mechanism, x, [0, 1, tokens // 2, tokens - 1])
    q, k, v = _qkv(x)
    gqa = heads != groups
    contestants = {"sdpa": Contestant(lambda: sdpa(q, k, v, is_causal=True, enable_gqa=gqa), error)}
    contestants |= _backends(mechanism, x, error)
    if watched:
        contestants |= _watched(mechanism, x, error)
    flex = peers.flex(lambda b, h, i, j: j <= i, q, k, v)
    contestants["flex, compiled"] = Contestant(flex, error, compiles=True)
    if peers.eager_fits(heads, tokens):
        contestants["eager"] = Contestant(lambda: peers.eager(q, k, v), error)
    return Case("sdpa", contestants, note=f"{heads} query heads on {groups} of width {width}")


def windowed(tokens: int, window: int = 1024, sinks: int = 4) -> Case:
    """A window with sinks, against what SDPA takes for all of the causal mask."""
    x = _inputs(tokens, 12, 12, 64)
    mechanism = _mechanism(masks.window(window) | masks.sinks(sinks))
    rows = [0, min(5, tokens - 1), tokens // 2, tokens - 1]
    error = _rows_error(mechanism, x, rows)
    q, k, v = _qkv(x)
    contestants = {"sdpa, causal": Contestant(lambda: sdpa(q, k, v, is_causal=True))}
    contestants |= _backends(mechanism, x, error)
    flex = peers.flex(lambda b, h, i, j: (j <= i) & ((i - j < window) | (j < sinks)), q, k, v)
    contestants["flex, compiled"] = Contestant(flex, error, compiles=True)
    return Case("sdpa, causal", contestants, note=f"a window of {window} and {sinks} sinks; the peer sees all before")


def backward(tokens: int) -> Case:
    """Forward and the gradients of queries, keys and values."""
    x = _inputs(tokens, 12, 12, 64)
    q, k, v = leaves = tuple(t.requires_grad_() for t in _qkv(x))
    seed = torch.randn(x.q.shape, generator=torch.Generator().manual_seed(1))
    mechanism = _mechanism(masks.causal())

    def both(forward: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def run() -> tuple[Tensor, ...]:
            with torch.enable_grad():
                return torch.autograd.grad(forward(), leaves, seed)

        return run

    truth: list[Tensor] = []

    def error(found: tuple[Tensor, ...]) -> float:
        truth[:] = truth or _true_gradients(leaves, seed)
        return worst(off(a, b) for a, b in zip(found, truth, strict=True))

    forwards: dict[str, Callable[[], Tensor]] = {"sdpa": lambda: sdpa(q, k, v, is_causal=True)}
    with torch.enable_grad():
        forwards |= {name: choose(mechanism, x, name).output for name in ("native", "strips")}
    if peers.eager_fits(12, 2 * tokens):
        forwards["eager"] = lambda: peers.eager(q, k, v)
    contestants = {who: Contestant(both(forward), error) for who, forward in forwards.items()}
    return Case("sdpa", contestants, note="forward and backward; FlexAttention has no backward on the CPU")


# ---- who computes it ------------------------------------------------------------------------------------------------


def _inputs(tokens: int, heads: int, groups: int, width: int) -> Inputs:
    make = torch.Generator().manual_seed(tokens)
    q, k, v = (torch.randn(1, n, tokens, width, generator=make) for n in (heads, groups, groups))
    return inputs(q, k, v)


def _qkv(x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    assert x.v is not None
    return x.q, x.k, x.v


def _mechanism(mask: Any) -> Mechanism:
    return mechanism_with("attention", "Vaswani 2017", mask=mask)


def _backends(mechanism: Mechanism, x: Inputs, error: Callable[[Any], float]) -> dict[str, Contestant]:
    """Every backend of regard that can compute this, but torch's own and the reference where n × n is too much."""
    here = candidates(x.q.device)
    able = [name for name, reason in explain(mechanism, x) if reason is None and name in here and name != "sdpa"]
    if x.q.shape[2] > REFERENCE_TOKENS:
        able.remove("reference")
    assert set(able) <= set(BACKENDS)
    return {name: Contestant(choose(mechanism, x, name).output, error) for name in able}


def _watched(mechanism: Mechanism, x: Inputs, error: Callable[[Any], float]) -> dict[str, Contestant]:
    """Every standard statistic of every head by the native core, with and without the output."""
    tokens = x.q.shape[2]
    ids = (torch.arange(tokens) * 7919 % 50257)[None]
    axis = Axis(torch.arange(tokens)[None], torch.ones(1, tokens, dtype=torch.bool), ids, ids == 0)
    view = View(1, x.q.shape[1], axis, axis, same_axis=True)
    rows = [0, tokens // 2, tokens - 1]
    truth = _entropy(_weights(mechanism, x, rows))

    def run(given: Inputs) -> tuple[Tensor | None, Watching]:
        watching = Watching(standard(), (native.NATIVE,))
        return watching.absorb(mechanism, given, view, slice(0, tokens), 0, None), watching

    def both_errors(found: tuple[Tensor | None, Watching]) -> float:
        out, watching = found
        entropy = watching.finish(view)[0][Entropy().label]["rows"][:, :, rows]
        return worst([off(entropy, truth), *([] if out is None else [error(out)])])

    without = x.replace(v=None)
    return {
        "native, all statistics": Contestant(lambda: run(x), both_errors),
        "statistics alone": Contestant(lambda: run(without), both_errors),
    }


# ---- the same in float64 --------------------------------------------------------------------------------------------


def _weights(mechanism: Mechanism, x: Inputs, rows: list[int]) -> Tensor:
    """float64 weights [B,H,rows,keys] of some rows."""
    plan = lower(mechanism, x)
    assert isinstance(plan, core.Plan)
    seen = torch.cat([plan.ranges.rows(row, row + 1).dense() for row in rows], 2)
    keys = x.k.detach().double().repeat_interleave(x.q.shape[1] // x.k.shape[1], 1)
    scores = (x.q[:, :, rows].detach().double() @ keys.transpose(-1, -2)) * x.q.shape[-1] ** -0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def _rows_error(mechanism: Mechanism, x: Inputs, rows: list[int]) -> Callable[[Any], float]:
    values = _qkv(x)[2].double().repeat_interleave(x.q.shape[1] // x.k.shape[1], 1)
    truth = _weights(mechanism, x, rows) @ values
    return lambda out: off(out[:, :, rows], truth)


def _entropy(weights: Tensor) -> Tensor:
    return -torch.xlogy(weights, weights).sum(-1)


def _true_gradients(leaves: tuple[Tensor, ...], seed: Tensor) -> list[Tensor]:
    """float64 gradients of causal attention, a head at a time."""
    found: list[list[Tensor]] = [[], [], []]
    for head in range(seed.shape[1]):
        parts = [t[:, head : head + 1].detach().double().requires_grad_() for t in leaves]
        with torch.enable_grad():
            made = torch.autograd.grad(peers.eager(*parts), parts, seed[:, head : head + 1].double())
        for kept, one in zip(found, made, strict=True):
            kept.append(one)
    return [torch.cat(kept, 1) for kept in found]
