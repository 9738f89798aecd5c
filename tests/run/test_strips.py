"""Strips compute what the dense reference does, whatever the strip, the sizes, the padding or the scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regard.core import ranges
from regard.inputs import Inputs, Tile, inputs
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.parts.normalisers import Sigmoid, Softmax
from regard.parts.scores import Distance, Dot, KeyBias, Slope, Softcap, Table
from regard.run import reference, strips

B, H, G, TQ, TK = 2, 4, 2, 7, 7


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def an_input(tq: int = TQ, tk: int = TK, dk: int = 6, dv: int = 5, groups: int = G, **more: Any) -> Inputs:
    q, k, v = seeded(B, H, tq, dk), seeded(B, groups, tk, dk, seed=1), seeded(B, groups, tk, dv, seed=2)
    return inputs(q, k, v, query_positions=torch.arange(tk - tq, tk), **more)


def opaque(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A predicate that nobody can state as a formula; it differs by sequence and head."""
    return ((query * 7 + key * 13 + batch * 5 + head * 3) % 4 < 2) & (key <= query)


class Euclid:
    """s_ij = -‖q_i - k_j‖², written by a user in one call."""

    scratch_per_pair = 6

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        k = tile.k.repeat_interleave(tile.q.shape[1] // tile.k.shape[1], 1)
        return -(tile.q[:, :, :, None] - k[:, :, None]).square().sum(-1)


MECHANISMS: dict[str, Mechanism] = {
    "scaled dot": mechanism_with("scaled dot", ""),
    "causal": mechanism_with("causal", "", mask=masks.causal()),
    "window and sinks": mechanism_with("window and sinks", "", mask=masks.causal() & masks.window(3) | masks.sinks(1)),
    "opaque": mechanism_with("opaque", "", mask=opaque),
    "nothing visible": mechanism_with("nothing visible", "", mask=~masks.full()),
    "future only": mechanism_with("future only", "", mask=~masks.causal()),
    "key bias": mechanism_with("key bias", "", score=(Dot(), KeyBias(seeded(B, H, TK)))),
    "slope": mechanism_with("slope", "", score=(Dot(), Slope(torch.tensor([0.5, 0.25, 0.1, 1.0])))),
    "distance": mechanism_with("distance", "", score=(Dot(), Distance(seeded(H, 7))), mask=masks.causal()),
    "table": mechanism_with("table", "", score=(Dot(0.3), Table(seeded(1, H, TQ, TK)))),
    "scale by head": mechanism_with("scale by head", "", score=(Dot(torch.tensor([0.1, 1.0, 2.0, 0.0])),)),
    "softcap": mechanism_with("softcap", "", score=(Dot(2.0), Softcap(3.0)), mask=masks.window(4)),
    "sink": mechanism_with("sink", "", mask=masks.causal(), normaliser=Softmax(seeded(H))),
    "off by one": mechanism_with("off by one", "", mask=masks.causal(), normaliser=Softmax(0.0)),
    "sigmoid": mechanism_with("sigmoid", "", mask=masks.causal(), normaliser=Sigmoid(-1.0)),
    "user's score": mechanism_with("user's score", "", score=(Euclid(),), mask=masks.causal()),
}


def watched(mechanism: Mechanism, x: Inputs, **how: Any) -> tuple[Tensor | None, Tensor]:
    """Output and the weights that passed by, each cell once, in order of rows."""
    first, last, _ = how.get("rows", slice(None)).indices(x.q.shape[2])
    seen = torch.full((*x.q.shape[:2], last - first, x.k.shape[2]), 0.0, dtype=x.q.dtype)
    row = first

    def absorb(rows: slice, keys: slice, weights: Tensor, allowed: Tensor | None) -> None:
        nonlocal row
        assert rows.start == row and weights.shape[2:] == (rows.stop - rows.start, keys.stop - keys.start)
        row = rows.stop
        if allowed is not None:
            assert not bool((weights * ~allowed).any())
        seen[:, :, rows.start - first : rows.stop - first, keys] = weights

    out = strips.attend(mechanism, x, absorb=absorb, **how)
    assert row == last
    return out, seen


@pytest.mark.parametrize("strip_bytes", [1, 4 * B * H * TK * 3, 1 << 25])
@pytest.mark.parametrize("name", MECHANISMS)
def test_strips_equal_the_reference(name: str, strip_bytes: int) -> None:
    x = an_input()
    out, weights = reference.attend(MECHANISMS[name], x)
    found, seen = watched(MECHANISMS[name], x, strip_bytes=strip_bytes)
    assert found is not None and out is not None
    assert torch.allclose(seen, weights.expand_as(seen), atol=1e-12, rtol=0)
    assert torch.allclose(found, out, atol=1e-12, rtol=0)
    alone = strips.attend(MECHANISMS[name], x, strip_bytes=strip_bytes)
    assert alone is not None and torch.equal(alone, found)


@pytest.mark.parametrize("name", MECHANISMS)
def test_some_rows_are_those_rows_of_all(name: str) -> None:
    x = an_input()
    whole, weights = watched(MECHANISMS[name], x)
    assert whole is not None
    for rows in (slice(2, 5), slice(0, 1), slice(6, 7), slice(-3, None)):
        found, seen = watched(MECHANISMS[name], x, rows=rows, strip_bytes=4 * B * H * TK * 2)
        assert found is not None
        assert torch.allclose(found, whole[:, :, rows], atol=1e-12, rtol=0)
        assert torch.allclose(seen, weights[:, :, rows], atol=1e-12, rtol=0)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 9), (3, 8), (8, 8), (1, 0), (0, 5), (0, 0)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_awkward_sizes(sizes: tuple[int, int], groups: int) -> None:
    x = an_input(*sizes, groups=groups, dk=3, dv=7)
    for name in ("scaled dot", "causal", "window and sinks", "opaque", "sink", "sigmoid"):
        out, weights = reference.attend(MECHANISMS[name], x)
        found, seen = watched(MECHANISMS[name], x, strip_bytes=200)
        assert found is not None and out is not None
        assert found.shape == (B, H, sizes[0], 7)
        assert torch.allclose(found, out, atol=1e-12, rtol=0), name
        assert torch.allclose(seen, weights.expand_as(seen), atol=1e-12, rtol=0), name


def test_a_row_that_sees_nothing_gives_zeros_and_no_gradient() -> None:
    x = an_input()
    q, k, v = (t.clone().requires_grad_() for t in (x.q, x.k, x.v) if t is not None)
    x = x.replace(q=q, k=k, v=v)
    for name in ("future only", "nothing visible"):
        out, weights = watched(MECHANISMS[name], x)
        assert out is not None
        assert not bool(out[:, :, -1].any()) and not bool(weights[:, :, -1].any())
        for gradient in torch.autograd.grad(out.sum(), (q, k, v), allow_unused=True):
            assert gradient is None or bool(torch.isfinite(gradient).all())


def test_many_separate_intervals_go_by_the_predicate() -> None:
    x = an_input(3, 300)
    comb = mechanism_with("comb", "", mask=lambda batch, head, query, key: (key % 2 == 0) & (query == query))
    with pytest.raises(ranges.TooManyRuns):
        ranges.from_dense((torch.arange(300) % 2 == 0)[None, None, None])
    out, weights = reference.attend(comb, x)
    found, seen = watched(comb, x, strip_bytes=1)
    assert torch.allclose(seen, weights, atol=1e-12) and found is not None and out is not None
    assert torch.allclose(found, out, atol=1e-12)


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_invalid_keys_hold_never_leaks(name: str) -> None:
    """NaN and infinities in padding reach neither weights nor output nor any gradient, the padding's own included."""
    valid = torch.tensor([[False, False, True, True, True, True, True], [True, True, False, True, True, False, True]])
    clean = an_input(key_valid=valid)
    assert clean.v is not None
    dirty = {
        part: torch.where(valid[:, None, :, None], tensor, poison)
        for part, tensor, poison in (("k", clean.k, float("nan")), ("v", clean.v, float("inf")))
    }
    results = []
    for k, v in ((clean.k, clean.v), (dirty["k"], dirty["v"])):
        q, k, v = (t.detach().clone().requires_grad_() for t in (clean.q, k, v))
        x = clean.replace(q=q, k=k, v=v)
        out, weights = watched(MECHANISMS[name], x, strip_bytes=400)
        assert out is not None
        assert not bool((weights * ~valid[:, None, None]).any())
        gradients = torch.autograd.grad((out * seeded(*out.shape, seed=3)).sum(), (q, k, v), allow_unused=True)
        results.append([out, weights, *(torch.zeros(()) if g is None else g for g in gradients)])
    for a, b in zip(*results, strict=True):
        assert bool(torch.isfinite(b).all())
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "nothing visible"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    x = an_input(3, 3, dk=2, dv=2)
    mechanism = MECHANISMS[name]
    parts = {"key bias": KeyBias(seeded(B, H, 3)), "table": Table(seeded(1, H, 3, 3))}
    if name in parts:
        mechanism = mechanism.replace(score=(Dot(), parts[name]))
    assert x.v is not None

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = strips.attend(mechanism, x.replace(q=q, k=k, v=v), strip_bytes=1)
        assert out is not None
        return out

    assert torch.autograd.gradcheck(run, [t.clone().requires_grad_() for t in (x.q, x.k, x.v)])


def test_gradients_reach_the_tensors_of_the_mechanism() -> None:
    x = an_input()
    bias, sink, slope = seeded(B, H, TK), seeded(H), seeded(H)

    def run(bias: Tensor, sink: Tensor, slope: Tensor) -> Tensor:
        score = (Dot(), KeyBias(bias), Slope(slope))
        out = strips.attend(mechanism_with("one", "", score=score, normaliser=Softmax(sink)), x, strip_bytes=600)
        assert out is not None
        return out

    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in (bias, sink, slope)])


@pytest.mark.parametrize("name", ["scaled dot", "causal", "sink", "off by one", "slope"])
def test_peaked_logits_are_as_exact_as_float32_can(name: str) -> None:
    """Scores up to ±50: within 1e-6 + 2.4e-7 · σ · a of float64 (σ the score scale), finite everywhere."""
    x = an_input()
    scores = x.q @ x.k.repeat_interleave(H // G, 1).transpose(-1, -2) * x.q.shape[-1] ** -0.5
    x = x.replace(q=x.q * (50 / scores.abs().amax(-1, keepdim=True)))
    _, exact = reference.attend(MECHANISMS[name], x)
    assert x.v is not None
    _, found = watched(MECHANISMS[name], x.replace(q=x.q.float(), k=x.k.float(), v=x.v.float()), strip_bytes=900)
    sigma = x.q.shape[-1] ** -0.5 * x.q.norm(dim=-1).amax() * x.k.norm(dim=-1).amax()
    assert bool(((found - exact).abs() <= 1e-6 + 2.4e-7 * sigma * exact).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_outputs_keep_the_type_of_queries_and_scores_are_never_half(dtype: torch.dtype) -> None:
    x = an_input()
    assert x.v is not None
    low = x.replace(q=x.q.to(dtype), k=x.k.to(dtype), v=x.v.to(dtype))
    exact, weights = reference.attend(
        MECHANISMS["causal"],
        low.replace(q=low.q.double(), k=low.k.double(), v=low.v.double() if low.v is not None else None),
    )
    seen: list[Tensor] = []
    out = strips.attend(MECHANISMS["causal"], low, absorb=lambda rows, keys, w, allowed: seen.append(w))
    assert out is not None and exact is not None
    assert out.dtype == dtype and seen[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (seen[0] - weights).abs().max() <= 1e-6
    assert (out.double() - exact).abs().max() <= 2 * torch.finfo(dtype).eps * exact.abs().max()


def test_a_mechanism_without_an_output_says_so() -> None:
    with pytest.raises(ValueError, match=r"pointer has no output: .* ask for regard.weights"):
        strips.attend(mechanism_with("pointer", "", mix=None), an_input())
