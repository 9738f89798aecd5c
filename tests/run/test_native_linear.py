"""Packed linear layers: the plain product, row by row the same."""

from __future__ import annotations

import pytest
import torch

from regard.run import native
from regard.run.native.linear import PackedLinear

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


def test_a_row_has_the_same_bits_in_any_company() -> None:
    torch.manual_seed(0)
    layer, x = PackedLinear.pack(torch.randn(96, 200)), torch.randn(100, 200)
    together = layer(x)
    for rows in (slice(0, 1), slice(41, 42), slice(10, 23), slice(1, 100)):
        assert torch.equal(layer(x[rows]), together[rows])


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
