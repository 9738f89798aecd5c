"""regard.attention and regard.weights: the same numbers from every backend, and refusals that say why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard
from regard.inputs import inputs
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.parts.normalisers import Sigmoid, Softmax
from regard.parts.scores import Distance, Dot, KeyBias, Slope, Table
from regard.run import native, reference
from regard.run.choose import BACKENDS
from regard.run.triton import why_unavailable

B, H, G, T, D = 2, 4, 2, 33, 16
CAUSAL = mechanism_with("causal", "", mask=masks.causal())
FULL = mechanism_with("scaled dot", "")
WINDOW = mechanism_with("window", "", mask=masks.causal() & masks.window(5) | masks.sinks(2))
SLOPED = mechanism_with("alibi", "", score=(Dot(), Slope(torch.rand(H))), mask=masks.causal())
SINK = mechanism_with("sink", "", mask=masks.causal(), normaliser=Softmax(torch.rand(H)))
SIGMOID = mechanism_with("sigmoid", "", mask=masks.causal(), normaliser=Sigmoid(-3.0))
EVERY = {m.name: m for m in (CAUSAL, FULL, WINDOW, SLOPED, SINK, SIGMOID)}
HERE = [name for name in BACKENDS if name != "triton" or why_unavailable(torch.device("cpu")) is None]


def qkv(tq: int = T, tk: int = T, *, groups: int = G, dk: int = D, dv: int = D, dtype: Any = torch.float32) -> Any:
    make = torch.Generator().manual_seed(tq * 1000 + tk)
    shapes = ((B, H, tq, dk), (B, groups, tk, dk), (B, groups, tk, dv))
    return [torch.randn(shape, generator=make).to(dtype) for shape in shapes]


def dense(q: Tensor, k: Tensor, v: Tensor, mechanism: Mechanism, **more: Any) -> tuple[Tensor, Tensor]:
    out, weights = reference.attend(mechanism, inputs(q.double(), k.double(), v.double(), **more))
    assert out is not None
    return out, weights


@pytest.mark.parametrize("backend", ["auto", *HERE])
@pytest.mark.parametrize("name", EVERY)
def test_every_backend_gives_the_same_or_says_why_not(name: str, backend: str) -> None:
    q, k, v = qkv()
    expected, _ = dense(q, k, v, EVERY[name])
    try:
        found = regard.attention(q, k, v, EVERY[name], backend=backend)
    except ValueError as error:
        said = str(error)
        assert said.startswith(f"backend {backend!r} cannot compute {name}: ") and said.endswith("; use backend='auto'")
        assert backend == "sdpa" if name != "sigmoid" else backend in ("sdpa", "native", "triton")
        return
    assert found.shape == (B, H, T, D) and found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("groups,dk,dv", [(1, 16, 16), (4, 7, 7), (2, 16, 5), (2, 3, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_grouped_heads_odd_widths_and_half_precision(groups: int, dk: int, dv: int, dtype: torch.dtype) -> None:
    q, k, v = qkv(groups=groups, dk=dk, dv=dv, dtype=dtype)
    for mechanism in (CAUSAL, FULL, WINDOW):
        expected, _ = dense(q, k, v, mechanism)
        found = regard.attention(q, k, v, mechanism)
        assert found.dtype == dtype
        assert (found - expected).abs().max() <= 4 * max(torch.finfo(dtype).eps, 1e-7) * v.double().abs().max()


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_the_reference(name: str) -> None:
    q, k, v = (t.double().requires_grad_() for t in qkv(9, 9))
    ours = torch.autograd.grad(regard.attention(q, k, v, EVERY[name]).square().sum(), (q, k, v))
    out, _ = reference.attend(EVERY[name], inputs(q, k, v))
    assert out is not None
    theirs = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


def test_a_gradient_for_the_mechanism_alone_is_honoured() -> None:
    """Only a bias or a sink asks for one: a fast backend that lacks it steps aside, and one that has it is right."""
    q, k, v = qkv()
    slope, sink = torch.rand(H, requires_grad=True), torch.rand(H, requires_grad=True)
    biased = mechanism_with("biased", "", score=(Dot(), Slope(slope)))
    regard.attention(q, k, v, biased).sum().backward()
    assert slope.grad is not None and bool(slope.grad.any())
    if native.available():
        with pytest.raises(ValueError, match=r"Slope.*gradient.*native"):
            regard.attention(q, k, v, biased, backend="native")
    sunk = mechanism_with("sink", "", normaliser=Softmax(sink))
    squares = [regard.attention(q, k, v, sunk, backend=name).square().sum() for name in ("auto", "strips")]
    ours, theirs = (torch.autograd.grad(total, sink)[0] for total in squares)
    assert torch.allclose(ours, theirs, rtol=1e-4)
    with torch.no_grad():
        assert not regard.attention(q, k, v, sunk).requires_grad


@pytest.mark.parametrize("name", EVERY)
def test_any_rectangle_of_weights_is_that_part_of_the_whole(name: str) -> None:
    q, k, v = qkv()
    _, whole = dense(q, k, v, EVERY[name])
    for rows, keys in (
        (slice(None), slice(None)),
        (slice(3, 9), slice(2, 20)),
        (slice(32, 33), slice(0, 1)),
        (slice(-4, None), slice(-9, -2)),
        (slice(5, 5), slice(0, 4)),
        (slice(0, 4), slice(7, 7)),
        (slice(20, 90), slice(30, 90)),
    ):
        block = regard.weights(q, k, EVERY[name], rows, keys)
        expected = whole.expand(B, H, T, T)[:, :, rows, keys]
        assert block.shape == expected.shape
        assert expected.numel() == 0 or (block - expected).abs().max() <= 1e-5


def test_a_rectangle_with_gaps_is_refused() -> None:
    q, k, _ = qkv()
    for part in ({"rows": slice(0, 9, 2)}, {"keys": slice(None, None, -1)}):
        with pytest.raises(ValueError, match="step"):
            regard.weights(q, k, CAUSAL, **part)


def test_weights_need_no_values_and_ask_for_no_gradient() -> None:
    q, k, _ = qkv()
    assert not regard.weights(q.requires_grad_(), k, CAUSAL).requires_grad


def test_keys_that_are_not_valid_are_never_read() -> None:
    q, k, v = qkv()
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[0, :5], valid[1, 20:] = False, False
    k[~valid[:, None].expand(B, G, T)], v[~valid[:, None].expand(B, G, T)] = float("nan"), float("nan")
    clean = [torch.where(valid[:, None, :, None], t, 0.0) for t in (k, v)]
    for mechanism in EVERY.values():
        expected, weights = dense(q, *clean, mechanism, key_valid=valid)
        for backend in ("auto", "strips", "reference"):
            found = regard.attention(q, k, v, mechanism, key_valid=valid, backend=backend)
            assert (found - expected).abs().max() <= 1e-5
        shown = regard.weights(q, k, mechanism, key_valid=valid)
        assert (shown - weights).abs().max() <= 1e-5
        assert not bool((shown * ~valid[:, None, None]).any())


def test_a_chunk_with_its_positions_continues_a_sequence() -> None:
    q, k, v = qkv()
    for mechanism in EVERY.values():
        whole = regard.attention(q, k, v, mechanism)
        for backend in ("auto", "strips", "reference"):
            last = regard.attention(q[:, :, 20:], k, v, mechanism, query_positions=torch.arange(20, T), backend=backend)
            assert (last - whole[:, :, 20:]).abs().max() <= 1e-5
        block = regard.weights(q[:, :, 20:], k, mechanism, query_positions=torch.arange(20, T))
        assert (block - regard.weights(q, k, mechanism, slice(20, T))).abs().max() <= 1e-5


DISTANCE = mechanism_with("distance", "", score=(Dot(), Distance(torch.rand(H, 5))))


@pytest.mark.parametrize("backend", ["auto", *HERE])
@pytest.mark.parametrize("mechanism", [CAUSAL, WINDOW, SLOPED.replace(mask=masks.full()), DISTANCE], ids=str)
def test_positions_must_be_given_where_a_part_reads_them(mechanism: Mechanism, backend: str) -> None:
    q, k, v = qkv(3, 9)
    with pytest.raises(ValueError, match=r"reads positions, and 3 queries on 9 keys .* give query_positions"):
        regard.attention(q, k, v, mechanism, backend=backend)
    if backend == "auto":
        with pytest.raises(ValueError, match="give query_positions"):
            regard.weights(q, k, mechanism)


@pytest.mark.parametrize("backend", ["auto", "strips", "reference"])
def test_positions_need_not_be_given_where_nothing_reads_them(backend: str) -> None:
    q, k, v = qkv(3, 9)
    for mask in (masks.full(), masks.global_keys(4), masks.full() & masks.global_keys(4)):
        mechanism = mechanism_with("free", "", mask=mask)
        expected, _ = dense(q, k, v, mechanism)
        assert (regard.attention(q, k, v, mechanism, backend=backend) - expected).abs().max() <= 1e-5


# ---- what does not fit, in one sentence ------------------------------------------------------------------------------


def test_an_unknown_backend_lists_the_known_ones() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match="no backend 'cuda'; there are: auto, native, triton, sdpa, strips, reference"):
        regard.attention(q, k, v, CAUSAL, backend="cuda")


@pytest.mark.parametrize(
    "shapes,words",
    [
        (((4, 3, 2), (1, 4, 3, 2), (1, 4, 3, 2)), r"q must be \[batch, heads, tokens, width\], got 3 dimensions"),
        (((1, 4, 3, 2), (1, 4, 3, 2), (4, 3, 2)), r"v must be \[batch, heads, tokens, width\], got 3 dimensions"),
        (((2, 4, 3, 2), (1, 4, 3, 2), (1, 4, 3, 2)), "batch, key-value heads and key count must agree"),
        (((1, 4, 3, 2), (1, 4, 3, 2), (1, 4, 5, 2)), "batch, key-value heads and key count must agree"),
        (((1, 4, 3, 2), (1, 4, 3, 2), (1, 2, 3, 2)), "batch, key-value heads and key count must agree"),
        (((1, 4, 3, 2), (1, 3, 3, 2), (1, 3, 3, 2)), "4 query heads do not divide over 3 key-value heads"),
        (((1, 4, 3, 2), (1, 0, 3, 2), (1, 0, 3, 2)), "4 query heads do not divide over 0 key-value heads"),
        (((1, 4, 3, 8), (1, 4, 3, 2), (1, 4, 3, 2)), "queries of width 8 and keys of width 2"),
        (((1, 4, 3, 2), (1, 4, 3, 8), (1, 4, 3, 2)), "queries of width 2 and keys of width 8"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", *HERE])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...], words: str, backend: str) -> None:
    q, k, v = (torch.randn(shape) for shape in shapes)
    with pytest.raises(ValueError, match=words):
        regard.attention(q, k, v, CAUSAL, backend=backend)


@pytest.mark.parametrize("backend", ["auto", "native", "strips", "reference"])
@pytest.mark.parametrize(
    "part,words",
    [
        (KeyBias(torch.zeros(1, 1, 30)), r"KeyBias.*\[1, 1, 30\]"),
        (KeyBias(torch.zeros(3, 1, T)), rf"KeyBias.*\[3, 1, {T}\]"),
        (Slope(torch.zeros(3)), r"Slope.*\[3\]"),
        (Distance(torch.zeros(3, 5)), r"Distance.*\[3, 5\]"),
        (Distance(torch.zeros(4, 4)), r"Distance.*\[4, 4\]"),
        (Table(torch.zeros(1, 1, 5, T)), rf"Table.*\[1, 1, 5, {T}\]"),
        (Table(torch.zeros(1, 3, T, T)), rf"Table.*\[1, 3, {T}, {T}\]"),
        (Table(torch.zeros(1, 1, T, 30)), rf"Table.*\[1, 1, {T}, 30\]"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_tensors_of_parts_that_do_not_fit_are_refused(part: Any, words: str, backend: str) -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match=words):
        regard.attention(q, k, v, mechanism_with("one", "", score=(Dot(), part)), backend=backend)


@pytest.mark.parametrize("backend", ["auto", "native", "strips", "reference"])
def test_scales_and_sinks_for_another_number_of_heads_are_refused(backend: str) -> None:
    q, k, v = qkv()
    for mechanism in (
        mechanism_with("one", "", score=(Dot(torch.ones(3)),)),
        mechanism_with("one", "", normaliser=Softmax(torch.ones(3))),
    ):
        with pytest.raises(ValueError, match=r"\[3\].*4 heads"):
            regard.attention(q, k, v, mechanism, backend=backend)


def test_positions_and_flags_that_do_not_fit_are_refused() -> None:
    q, k, v = qkv()
    for more, words in (
        ({"query_positions": torch.arange(5)}, r"query_positions must be integers \[33\] or \[2, 33\]"),
        ({"key_positions": torch.rand(T)}, "key_positions must be integers .* got torch.float32"),
        ({"key_positions": torch.zeros(3, T, dtype=torch.long)}, "key_positions must be integers"),
        ({"key_valid": torch.ones(B, T)}, r"key_valid must be bool \[2, 33\], got torch.float32"),
        ({"key_valid": torch.ones(T, dtype=torch.bool)}, r"key_valid must be bool \[2, 33\]"),
    ):
        with pytest.raises(ValueError, match=words):
            regard.attention(q, k, v, CAUSAL, **more)


def test_a_score_that_cannot_come_first_says_what_to_begin_with() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match="cannot come first; begin with a score such as Dot"):
        regard.attention(q, k, v, mechanism_with("one", "", score=(Slope(torch.rand(H)),)))
    with pytest.raises(ValueError, match="no score term"):
        regard.attention(q, k, v, mechanism_with("none", "", score=()))
