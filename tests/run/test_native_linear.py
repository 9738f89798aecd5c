"""Packed linear layers: the plain product, row by row the same."""

from __future__ import annotations

import pytest
import torch

from regard.run import native
from regard.run.native.linear import PackedLinear, gated

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))

SHAPES = [(64, 64), (33, 7), (1, 1), (100, 301), (576, 1536)]


@pytest.mark.parametrize("outputs,depth", SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 3, 12, 13, 50, 256])
def test_a_packed_layer_is_the_plain_product(outputs: int, depth: int, rows: int) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(outputs, depth), torch.randn(outputs), torch.randn(rows, depth)
    expected = x.double() @ weight.double().T + bias
    found = PackedLinear.pack(weight, bias)(x)
    assert found.shape == (rows, outputs)
    assert ((found - expected).abs() <= 1e-5 * depth**0.5).all()


@pytest.mark.parametrize("outputs,depth", SHAPES)
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_bfloat16_weights_give_the_bits_of_float32(outputs: int, depth: int, rows: int) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(outputs, depth).bfloat16(), torch.randn(outputs), torch.randn(rows, depth)
    packed = PackedLinear.pack(weight, bias)
    assert packed.panels.dtype == torch.bfloat16
    assert torch.equal(packed(x), PackedLinear.pack(weight.float(), bias)(x))


@pytest.mark.parametrize("outputs,depth", SHAPES)
def test_int8_weights_are_scaled_per_output(outputs: int, depth: int) -> None:
    torch.manual_seed(0)
    weight, scale = torch.randint(-127, 128, (outputs, depth), dtype=torch.int8), torch.rand(outputs)
    x = torch.randn(2, 5, depth)
    expected = x.double() @ (weight.double() * scale[:, None].double()).T
    found = PackedLinear.pack(weight, scale=scale)(x)
    assert found.shape == (2, 5, outputs)
    assert ((found - expected).abs() <= 1e-5 * 127 * depth**0.5).all()


def test_quantising_is_within_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(48, 64)
    identity = torch.eye(64)
    step = weight.abs().amax(1) / 127
    assert ((PackedLinear.quantised(weight)(identity) - weight.T).abs() <= 0.501 * step).all()


@pytest.mark.parametrize("outputs,depth", SHAPES)
@pytest.mark.parametrize("rows", [1, 17, 200])
def test_rows_rounded_to_int8_give_whole_sums_times_two_scales(outputs: int, depth: int, rows: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(outputs, depth), torch.randn(rows, depth)
    w_scale, x_scale = weight.abs().amax(1) / 127, x.abs().amax(1) / 127
    w = (weight / w_scale[:, None]).round().double()
    x_whole = (x * (127 / x.abs().amax(1))[:, None]).round().double()
    expected = (x_whole @ w.T) * x_scale[:, None].double() * w_scale.double()
    found = PackedLinear.quantised(weight, rows=True)(x)
    assert ((found - expected).abs() <= 1e-6 * (1 + expected.abs())).all()


def packings(weight: torch.Tensor) -> list[PackedLinear]:
    return [
        PackedLinear.pack(weight),
        PackedLinear.pack(weight.bfloat16()),
        PackedLinear.quantised(weight),
        PackedLinear.quantised(weight, rows=True),
    ]


def test_a_row_has_the_same_bits_in_any_company() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 200)
    for layer in packings(torch.randn(96, 200)):
        together = layer(x)
        for rows in (slice(0, 1), slice(41, 42), slice(10, 23), slice(1, 100), slice(7, 300)):
            assert torch.equal(layer(x[rows]), together[rows])


@pytest.mark.parametrize("rows", [1, 20, 300])
def test_normalised_rows_added_to_what_is_there(rows: int) -> None:
    torch.manual_seed(0)
    x, gain, before = torch.randn(rows, 100), torch.rand(100), torch.randn(rows, 70)
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * gain
    for layer in packings(torch.randn(70, 100)):
        y = before.clone()
        layer.into(x, y, "add", gain, 1e-5)
        if layer.stored == 3:  # numbers halfway between two whole ones may go either way
            assert (y - (before + layer(normed))).abs().max() < 0.1
        else:
            assert torch.allclose(y, before + layer(normed), atol=1e-4)


@pytest.mark.parametrize("rows", [1, 20, 300])
def test_gated_outputs_are_silu_of_the_gate_times_the_value(rows: int) -> None:
    torch.manual_seed(0)
    x, gate, value = torch.randn(rows, 64), torch.randn(48, 64), torch.randn(48, 64)
    bias = torch.randn(48), torch.randn(48)
    layer, y = PackedLinear.pack(gated(gate, value), gated(*bias)), torch.empty(rows, 48)
    layer.into(x, y, "gated")
    expected = torch.nn.functional.silu(x @ gate.T + bias[0]) * (x @ value.T + bias[1])
    assert torch.allclose(y, expected, atol=1e-3, rtol=1e-4)


def test_an_infinite_gate_gives_what_silu_gives() -> None:
    gate = torch.tensor([[1e30]]).expand(16, 1)
    layer, y = PackedLinear.pack(gated(gate, torch.ones(16, 1))), torch.empty(2, 16)
    layer.into(torch.tensor([[1.0], [-1.0]]), y, "gated")
    assert torch.allclose(y, torch.tensor([[1e30], [0.0]]).expand(2, 16), rtol=1e-6)


def test_strided_rows_are_read_as_they_lie() -> None:
    torch.manual_seed(0)
    layer, x = PackedLinear.pack(torch.randn(32, 16)), torch.randn(6, 40)
    assert torch.equal(layer(x[::2, 8:24]), layer(x[::2, 8:24].contiguous()))


def test_what_cannot_be_done_is_said() -> None:
    layer = PackedLinear.pack(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="rows must have 3 numbers"):
        layer(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="has no gradient"):
        layer(torch.zeros(1, 3, requires_grad=True))
    with pytest.raises(ValueError, match="int8 weights come with a scale"):
        PackedLinear.pack(torch.zeros(4, 3, dtype=torch.int8))
