"""The backward of strips: the dense gradient, for every tensor it depends on, and nothing kept in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.mechanism import Mechanism
from regard.parts.masks import causal
from regard.run import reference, strips
from regard.zoo import card


def example(**options: Any) -> Inputs:
    torch.manual_seed(0)
    return inputs(*(torch.randn(2, heads, 9, 4, dtype=torch.float64) for heads in (4, 2, 2)), **options)


def learned(raw: Tensor) -> Mechanism:
    """A mechanism whose tensor has a history of its own."""
    found = card("learned_sink").make(sink=raw.tanh() * 2).replace(mask=causal())  # type: ignore[union-attr]
    assert isinstance(found, Mechanism)
    return found


@pytest.mark.parametrize("strip_bytes", [1, 1000, 1 << 20])
def test_gradients_equal_the_dense_ones_through_tensors_with_a_history(strip_bytes: int) -> None:
    x, raw = example(), torch.randn(4, dtype=torch.float64, requires_grad=True)
    leaves = [t.clone().requires_grad_() for t in (x.q, x.k, x.v) if t is not None]
    upstream = torch.randn(2, 4, 9, 4, dtype=torch.float64)

    def gradients(dense: bool) -> tuple[Tensor, ...]:
        q, k, v = (2 * leaf for leaf in leaves)
        y = x.replace(q=q, k=k, v=v)
        out = reference.attend(learned(raw), y)[0] if dense else strips.attend(learned(raw), y, strip_bytes=strip_bytes)
        assert out is not None
        return torch.autograd.grad(out, [*leaves, raw], upstream)

    torch.testing.assert_close(gradients(False), gradients(True), atol=1e-12, rtol=1e-12)


def test_the_same_tensor_as_query_and_key_gets_both_gradients() -> None:
    x = example()
    shared = x.k.clone().requires_grad_()
    plain = card("scaled_dot").make()
    assert isinstance(plain, Mechanism)
    y = x.replace(q=shared, k=shared, v=shared)
    found = torch.autograd.grad(strips.attend(plain, y, strip_bytes=1).square().sum(), shared)  # type: ignore[union-attr]
    wanted = torch.autograd.grad(reference.attend(plain, y)[0].square().sum(), shared)  # type: ignore[union-attr]
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


def test_only_wanted_gradients_are_made_and_rows_may_be_a_part() -> None:
    x, raw = example(), torch.zeros(4, dtype=torch.float64)
    v = x.v.clone().requires_grad_()  # type: ignore[union-attr]
    out = strips.attend(learned(raw), x.replace(v=v), rows=slice(3, 7), strip_bytes=1)
    assert out is not None and out.shape[2] == 4
    out.sum().backward()
    dense = torch.autograd.grad(reference.attend(learned(raw), x.replace(v=v))[0][:, :, 3:7].sum(), v)[0]  # type: ignore[index]
    torch.testing.assert_close(v.grad, dense, atol=1e-12, rtol=1e-12)
    assert raw.grad is None and x.q.grad is None


def test_a_call_under_autocast_is_computed_again_under_autocast() -> None:
    x = example()
    q = x.q.float().requires_grad_()
    y = x.replace(q=q, k=x.k.float(), v=x.v.float())  # type: ignore[union-attr]
    found = []
    for dense in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            plain = learned(torch.zeros(4))
            out = reference.attend(plain, y)[0] if dense else strips.attend(plain, y, strip_bytes=1)
        assert out is not None
        found.append(torch.autograd.grad(out.float().square().sum(), q)[0])
    torch.testing.assert_close(found[1], found[0], atol=1e-2, rtol=1e-2)


def test_what_was_changed_in_between_and_second_derivatives_are_refused() -> None:
    x = example()
    q = x.q.clone().requires_grad_()
    doubled = 2 * q
    out = strips.attend(learned(torch.zeros(4, dtype=torch.float64)), x.replace(q=doubled))
    assert out is not None
    with pytest.raises(UserError, match="strips has first derivatives only"):
        (slope,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        slope.sum().backward()
    out = strips.attend(learned(torch.zeros(4, dtype=torch.float64)), x.replace(q=doubled))
    doubled.data.add_(0)
    with torch.no_grad():
        doubled.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()  # type: ignore[union-attr]


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    """A part that is no record of tensors: what it holds cannot be found, so it must not be dropped in silence."""
    hidden = torch.ones((), dtype=torch.float64, requires_grad=True)

    class Louder:
        def __call__(self, scores: Tensor | None, tile: Any) -> Tensor:
            assert scores is not None
            return scores * hidden

    plain = card("scaled_dot").make()
    assert isinstance(plain, Mechanism)
    x = example()
    out = strips.attend(plain.replace(score=(*plain.score, Louder())), x.replace(q=x.q.requires_grad_()))
    assert out is not None
    with pytest.raises(ValueError, match="is in none of its fields; make it a field"):
        out.sum().backward()
