"""MultiHeadAttention and the transformer layers against torch's own: results, gradients, state dicts, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard
from regard import nn as ours
from regard.errors import UserError

FLOAT64 = {"dtype": torch.float64}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def twins(**options: Any) -> tuple[nn.MultiheadAttention, ours.MultiHeadAttention]:
    options = {"dtype": torch.float64, **options}
    theirs = nn.MultiheadAttention(12, 3, **options)
    mine = ours.MultiHeadAttention(12, 3, **options)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in mine.state_dict().items()}
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def compare(theirs: nn.Module, mine: nn.Module, tolerance: float, *given: Tensor, **options: Any) -> None:
    results = []
    for module in (theirs, mine):
        inputs = [x.clone().requires_grad_() for x in given]
        out, weights = module(*inputs, **options)
        (out.square().sum() + (0 if weights is None else weights.pow(3).sum())).backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        results.append((out, weights, [x.grad for x in inputs], gradients))
    (out, weights, at_inputs, at_parameters), (out_2, weights_2, at_inputs_2, at_parameters_2) = results
    torch.testing.assert_close(out_2, out, atol=tolerance, rtol=tolerance)
    assert (weights is None) == (weights_2 is None)
    if weights is not None:
        torch.testing.assert_close(weights_2, weights, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(at_inputs_2, at_inputs, atol=20 * tolerance, rtol=20 * tolerance)
    assert at_parameters.keys() == at_parameters_2.keys()
    for name, wanted in at_parameters.items():
        torch.testing.assert_close(at_parameters_2[name], wanted, atol=50 * tolerance, rtol=50 * tolerance, msg=name)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"kdim": 7, "vdim": 5},
    {"kdim": 7, "bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
def test_equals_torch(options: dict[str, Any], need_weights: bool) -> None:
    theirs, mine = twins(**options)
    widths = (12, options.get("kdim", 12), options.get("vdim", 12))
    shapes = [(2, n, w) if options.get("batch_first") else (n, 2, w) for n, w in zip((5, 7, 7), widths)]
    given = [normal(*shape, seed=place) for place, shape in enumerate(shapes)]
    compare(theirs, mine, 1e-12, *given, need_weights=need_weights)
    compare(theirs, mine, 1e-12, *given, need_weights=need_weights, average_attn_weights=False)


MASKS = {
    "bool": torch.ones(5, 7).triu(2).bool(),
    "float": normal(5, 7, seed=9),
    "closed": torch.zeros(5, 7, **FLOAT64).masked_fill(torch.ones(5, 7).triu(2).bool(), -float("inf")),
    "per head": normal(6, 5, 7, seed=3) > 0.8,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("padding", ["none", "bool", "float"])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=["plain", "extra keys"])
def test_masks_equal_torch(mask: str, padding: str, extra: dict[str, Any]) -> None:
    theirs, mine = twins(**extra)
    ends = torch.zeros(2, 7, dtype=torch.bool)
    ends[0, 5:] = True
    given = [normal(n, 2, 12, seed=n) for n in (5, 7, 7)]
    pad = {"none": None, "bool": ends, "float": torch.zeros(2, 7, **FLOAT64).masked_fill(ends, -float("inf"))}[padding]
    attn_mask = MASKS[mask]
    if padding != "none" and (pad is None or pad.dtype != attn_mask.dtype):
        attn_mask = (
            torch.zeros(attn_mask.shape, **FLOAT64).masked_fill(attn_mask, -float("inf"))
            if attn_mask.dtype == torch.bool
            else attn_mask
        )
        pad = torch.zeros(2, 7, **FLOAT64).masked_fill(ends, -float("inf"))
    compare(theirs, mine, 1e-12, *given, key_padding_mask=pad, attn_mask=attn_mask)


def test_float32_unbatched_and_causal() -> None:
    theirs, mine = twins(dtype=torch.float32)
    x = normal(6, 12, dtype=torch.float32)
    compare(theirs, mine, 1e-6, x, x, x)
    later = torch.ones(6, 6).triu(1).bool()
    wanted = theirs(x, x, x, attn_mask=later)[0]
    torch.testing.assert_close(mine(x, x, x, is_causal=True)[0], wanted, atol=1e-6, rtol=1e-6)
    batch = normal(6, 2, 12, dtype=torch.float32)
    compare(theirs, mine, 1e-6, batch, batch, batch, attn_mask=later, is_causal=True)


def test_equal_seeds_make_equal_modules_and_state_dicts_go_both_ways() -> None:
    for options in ({}, {"kdim": 5}, {"add_bias_kv": True}):
        torch.manual_seed(3)
        theirs = nn.MultiheadAttention(12, 3, **options)
        torch.manual_seed(3)
        mine = ours.MultiHeadAttention(12, 3, **options)
        torch.testing.assert_close(dict(mine.state_dict()), dict(theirs.state_dict()), atol=0, rtol=0)
        theirs.load_state_dict(mine.state_dict())


def test_row_that_sees_nothing_gives_zeros_and_padding_never_leaks() -> None:
    _, mine = twins()
    x = normal(4, 2, 12)
    padding = torch.zeros(2, 4, dtype=torch.bool)
    padding[1] = True
    poisoned = x.clone()
    out, weights = mine(x, poisoned, poisoned, key_padding_mask=padding)
    assert bool((weights[1] == 0).all()) and bool(out.isfinite().all())
    torch.testing.assert_close(out[:, 1], mine.out_proj.bias.expand(4, 12))


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    mine = ours.MultiHeadAttention(12, 3, dropout=0.5, dtype=torch.float64)
    x, y = normal(5, 1, 12), normal(8, 1, 12, seed=1)
    plain = mine.eval()(x, y, y)[0]
    torch.testing.assert_close(mine(x, y, y)[0], plain)
    mine.train()
    torch.manual_seed(0)
    first, weights = mine(x, y, y)
    torch.manual_seed(0)
    torch.testing.assert_close(mine(x, y, y)[0], first)
    assert not torch.allclose(first, plain)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 5, **FLOAT64))
    mean = torch.stack([mine(x, y, y)[0] for _ in range(400)]).mean(0)
    assert float((mean - plain).abs().max().detach()) < 0.15


def test_takes_any_mechanism() -> None:
    mine = ours.MultiHeadAttention(12, 3, mechanism="causal & window(2)", dtype=torch.float64)
    x = normal(6, 2, 12)
    out, weights = mine(x, x, x)
    assert bool((weights.triu(1) == 0).all()) and bool((weights.tril(-2) == 0).all())
    torch.testing.assert_close(mine(x, x, x, need_weights=False)[0], out, atol=1e-12, rtol=0)
    learned = ours.Learned(regard.zoo.card("learned_sink").factory, sink=torch.zeros(3, **FLOAT64))
    sink = ours.MultiHeadAttention(12, 3, mechanism=learned, dtype=torch.float64)
    sink(x, x, x)[0].sum().backward()
    assert "mechanism.sink" in sink.state_dict() and learned.sink.grad is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ours.MultiHeadAttention(12, 5), "does not divide into 5 heads"),
        (
            lambda: ours.MultiHeadAttention(12, 3)(*[torch.zeros(3, 2, 12)] * 3, attn_mask=torch.zeros(2, 2)),
            "attn_mask",
        ),
        (lambda: ours.MultiHeadAttention(12, 3)(*[torch.zeros(3, 2, 12)] * 3, torch.zeros(3, 2)), "key_padding_mask"),
        (lambda: ours.SelfAttention(12, 4, groups=3), "4 query heads do not divide over 3"),
        (lambda: ours.GlimpseNetwork(4, 3, 2)(torch.zeros(5), torch.zeros(3)), "glimpse"),
        (lambda: ours.TransformerEncoderLayer(12, 3, activation="tanh"), "relu, gelu"),
    ],
)
def test_misfits_are_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_mechanism_that_reads_positions_refuses_to_guess_them() -> None:
    mine = ours.MultiHeadAttention(12, 3, mechanism="causal")
    with pytest.raises(ValueError, match="positions"):
        mine(torch.zeros(3, 1, 12), torch.zeros(5, 1, 12), torch.zeros(5, 1, 12))


# ---- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_equal_torch(norm_first: bool, activation: str) -> None:
    options: dict[str, Any] = {
        "dim_feedforward": 20,
        "dropout": 0.0,
        "norm_first": norm_first,
        "activation": activation,
    }
    options |= {"batch_first": True, **FLOAT64}
    src, tgt = normal(2, 5, 12), normal(2, 4, 12, seed=1)
    later = torch.ones(4, 4).triu(1).bool()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    for name, given, masks in (
        ("TransformerEncoderLayer", (src,), {"src_key_padding_mask": padding}),
        ("TransformerDecoderLayer", (tgt, src), {"tgt_mask": later, "memory_key_padding_mask": padding}),
    ):
        theirs, mine = getattr(nn, name)(12, 3, **options), getattr(ours, name)(12, 3, **options)
        mine.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(mine.state_dict())
        results = []
        for layer in (theirs, mine):
            x = [t.clone().requires_grad_() for t in given]
            out = layer(*x, **masks)
            out.pow(3).sum().backward()
            results.append((out.detach(), [t.grad for t in x], [p.grad for _, p in sorted(layer.named_parameters())]))
        torch.testing.assert_close(results[1], results[0], atol=1e-10, rtol=1e-10)


def test_module_inside_torch_layers_keeps_its_mechanism() -> None:
    """torch's fused encoder path would bypass `forward`; the module keeps it from being taken."""
    layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True).eval()
    layer.self_attn = ours.MultiHeadAttention(12, 3, batch_first=True, mechanism="causal")
    x = normal(1, 4, 12, dtype=torch.float32)
    with torch.no_grad():
        first = layer(x)[:, 0]
        x[:, 1:] = 0
        torch.testing.assert_close(layer(x)[:, 0], first)
    stack = nn.TransformerEncoder(
        ours.TransformerEncoderLayer(12, 3, 16, mechanism="alibi & causal"), 2, enable_nested_tensor=False
    )
    assert stack(normal(5, 2, 12, dtype=torch.float32)).shape == (5, 2, 12)


def test_layers_hold_their_parameters_in_torchs_order() -> None:
    """Optimizer states go by index: those of torch's layers fit ours."""
    pairs = (
        (nn.TransformerEncoderLayer(8, 2, 16), ours.TransformerEncoderLayer(8, 2, 16)),
        (nn.TransformerDecoderLayer(8, 2, 16), ours.TransformerDecoderLayer(8, 2, 16)),
    )
    for theirs, mine in pairs:
        named = [[(name, p.shape) for name, p in layer.named_parameters()] for layer in (theirs, mine)]
        assert named[0] == named[1]
        before, after = (torch.optim.Adam(layer.parameters()) for layer in (theirs, mine))
        after.load_state_dict(before.state_dict())
    torch.manual_seed(3)
    theirs = nn.TransformerEncoderLayer(8, 2, 16)
    torch.manual_seed(3)
    mine = ours.TransformerEncoderLayer(8, 2, 16)
    for (name, a), b in zip(theirs.state_dict().items(), mine.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}]
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_is_causal_leaves_added_keys_to_all(options: dict[str, bool], need_weights: bool) -> None:
    theirs, mine = twins(batch_first=True, **options)
    x = normal(2, 5, 12)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    wanted = theirs(x, x, x, attn_mask=later, need_weights=need_weights)
    for given in ({"is_causal": True}, {"is_causal": True, "attn_mask": later}):
        found = mine(x, x, x, need_weights=need_weights, **given)
        torch.testing.assert_close(found[0], wanted[0])
        if need_weights:
            torch.testing.assert_close(found[1], wanted[1])
    with pytest.raises(UserError, match="5 queries on 7 keys stand; give attn_mask instead"):
        mine(x, normal(2, 7, 12), normal(2, 7, 12), is_causal=True)
    with pytest.raises(UserError, match="append have no positions; leave query_positions out"):
        mine(x, x, x, query_positions=torch.arange(5))


def test_positions_say_where_queries_stand_where_lengths_differ() -> None:
    mine = ours.MultiHeadAttention(12, 3, batch_first=True, mechanism="alibi & causal", dtype=torch.float64)
    x = normal(2, 7, 12)
    whole = mine(x, x, x)[0]
    last = mine(x[:, 4:], x, x, query_positions=torch.arange(4, 7))[0]
    torch.testing.assert_close(last, whole[:, 4:])
    plain = ours.MultiHeadAttention(12, 3, batch_first=True, dtype=torch.float64)
    whole = plain(x, x, x, is_causal=True)[0]
    torch.testing.assert_close(
        plain(x[:, 4:], x, x, is_causal=True, query_positions=torch.arange(4, 7))[0], whole[:, 4:]
    )
    with pytest.raises(ValueError, match="give query_positions"):
        plain(x[:, 4:], x, x, is_causal=True)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_row_of_the_lowest_number_is_uniform_as_in_torch(dtype: torch.dtype, need_weights: bool) -> None:
    theirs, mine = twins(batch_first=True, dtype=dtype)
    x = normal(2, 5, 12, dtype=dtype)
    mask = torch.zeros(5, 5, dtype=dtype)
    mask[1], mask[3, :2] = torch.finfo(dtype).min, torch.finfo(dtype).min
    found, wanted = (m(x, x, x, attn_mask=mask, need_weights=need_weights) for m in (mine, theirs))
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found[0], wanted[0], atol=tolerance, rtol=tolerance)
    wide = mine(x, x, x, attn_mask=mask.double().clamp(min=torch.finfo(torch.float64).min), need_weights=need_weights)
    assert bool(wide[0].isfinite().all())


def test_a_width_of_nothing_is_one_sentence() -> None:
    for make in (lambda: ours.MultiHeadAttention(0, 1), lambda: ours.SelfAttention(0, 1)):
        with pytest.raises(UserError, match="of 0 holds nothing; give at least 1"):
            make()
