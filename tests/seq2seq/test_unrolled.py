"""What training computes in its own quick ways equals torch's plain ones, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from regard.seq2seq.narrow import Quick
from regard.seq2seq.unrolled import SharedLinear, SharedMemory, both_directions, gru


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random).mul_(0.5).requires_grad_() for shape in shapes]


def check(quick: Callable[[], Tensor], plain: Callable[[], Tensor], inputs: list[Tensor], close: float = 1e-5) -> None:
    results = []
    for made in (quick(), plain()):
        slope = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
        results.append([made, *torch.autograd.grad((made * slope).sum(), inputs)])
    for number, (one, other) in enumerate(zip(*results, strict=True)):
        error = (one - other).abs().max() / other.abs().max()
        assert error.item() < close, f"result {number} is off by {error.item():.1e}"


def test_a_shared_product_is_a_product_at_each_step() -> None:
    weight, bias, x = inputs = leaves((6, 6), (6,), (5, 6))

    def run(product: Callable[[Tensor], Tensor]) -> Tensor:
        h = x
        for _ in range(4):
            h = torch.tanh(product(h))
        return h

    check(lambda: run(SharedLinear(weight, bias)), lambda: run(lambda h: F.linear(h, weight, bias)), inputs)


@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_a_shared_memory_is_softmax_attention(additive: bool, padded: bool) -> None:
    keys, values, vector, query = leaves((3, 7, 4), (3, 7, 5), (4,), (3, 4))
    inputs = [keys, values, query, *([vector] if additive else [])]
    valid = torch.arange(7) < torch.tensor([[7], [3], [1]]) if padded else None

    def plain(q: Tensor) -> Tensor:
        score = torch.tanh(keys + q[:, None]) @ vector if additive else (keys @ q[:, :, None])[:, :, 0]
        score = score if valid is None else score.masked_fill(~valid, float("-inf"))
        return (score.softmax(1)[:, None] @ values)[:, 0]

    def run(attend: Callable[[Tensor], Tensor]) -> Tensor:
        first = attend(query)
        return torch.cat([first, attend(first[:, :4] + query)])

    check(lambda: run(SharedMemory(keys, values, valid, vector if additive else None)), lambda: run(plain), inputs)


def test_the_gates_are_a_grus() -> None:
    cell = nn.GRUCell(3, 4)
    x, h = leaves((5, 3), (5, 4))

    def quick() -> Tensor:
        again = F.linear(h, cell.weight_hh, cell.bias_hh)
        return gru(F.linear(x, cell.weight_ih, cell.bias_ih), again, h)

    check(quick, lambda: cell(x, h), [x, h, *cell.parameters()])


def test_both_directions_are_a_packed_grus() -> None:
    rnn = nn.GRU(3, 4, batch_first=True, bidirectional=True)
    (words,) = leaves((3, 6, 3))
    lengths = torch.tensor([6, 1, 4])

    def packed() -> Tensor:
        sequence = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(rnn(sequence)[0], batch_first=True, total_length=6)[0]

    check(lambda: both_directions(rnn, words, lengths), packed, [words, *rnn.parameters()])


@pytest.mark.parametrize("mask", ["none", "flags", "added", "causal"])
def test_dense_attention_is_torchs(mask: str) -> None:
    q, k, v = leaves((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4))
    flags = torch.arange(5) < torch.tensor([5, 2])[:, None, None, None]
    asked = {"flags": flags, "added": torch.zeros(2, 1, 1, 5).masked_fill(~flags, -1e9)}.get(mask)

    def run() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, asked, is_causal=mask == "causal")

    def quick() -> Tensor:
        with Quick():
            return run()

    check(quick, run, [q, k, v])


def test_narrow_products_are_near_the_wide_ones() -> None:
    layer = nn.Linear(64, 32)
    (x,) = leaves((3, 5, 64))

    def quick() -> Tensor:
        with Quick(torch.bfloat16):
            return layer(x)

    assert quick().dtype == torch.float32
    check(quick, lambda: layer(x), [x, *layer.parameters()], 2e-2)


def test_dropout_keeps_the_share_and_the_mean_and_follows_the_seed() -> None:
    x = torch.ones(1000, 99, requires_grad=True)

    def drawn() -> Tensor:
        torch.manual_seed(5)
        with Quick():
            return F.dropout(x, 0.25)

    made = drawn()
    assert abs((made == 0).float().mean().item() - 0.25) < 0.01
    assert made.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(made, drawn())
    (slope,) = torch.autograd.grad(made.sum(), x)
    assert torch.equal(slope, made.detach())
    with Quick():
        assert F.dropout(x, 0.25, training=False) is x
