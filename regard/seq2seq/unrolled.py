"""What every step of a training shares, its gradient taken once after the last step instead of at each.

A loop over T steps that multiplies by one weight makes T small gradients of it and adds them up. Here each step
remembers its input and the slope of its output; when the last has, one product gives the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from regard.seq2seq.narrow import product_type

PARTS = ("weight", "bias")
NEVER = float("-inf")


def trains(module: nn.Module) -> bool:
    """Whether a module's weights are about to learn: the quick ways are for training alone."""
    return module.training and torch.is_grad_enabled()


class SharedLinear:
    """y = x Wᵀ (+ b) at many steps; products in the type that `narrow` chose, sums and results in float32.

    weight [...,out,in], bias [...,out]: leading dimensions, such as two directions, go side by side.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.kind = product_type(weight)
        self.weight = weight.detach().to(self.kind)
        self.wide = self.weight.mT.contiguous()
        self.bias = None if bias is None else bias.detach().unsqueeze(-2)
        self.inputs: list[Tensor] = []
        self.slopes: list[Tensor] = []
        self.opened = _OpenLinear.apply(self, weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """x [...,N,in] of one step -> [...,N,out]."""
        return _StepLinear.apply(self, x, self.opened)


class _OpenLinear(torch.autograd.Function):
    """A number that every step depends on: its backward comes after all of theirs."""

    @staticmethod
    def forward(ctx: Any, shared: SharedLinear, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.shared = shared
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *up: Tensor) -> Any:
        shared = ctx.shared
        x, slope = torch.cat(shared.inputs, -2), torch.cat(shared.slopes, -2)
        shared.inputs, shared.slopes = [], []
        of_bias = None if shared.bias is None else slope.sum(-2, dtype=torch.float32)
        return None, (slope.mT @ x).float(), of_bias


class _StepLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: SharedLinear, x: Tensor, opened: Tensor) -> Tensor:
        ctx.shared, ctx.x = shared, x.to(shared.kind)
        y = (ctx.x @ shared.wide).float()
        return y if shared.bias is None else y.add_(shared.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *up: Tensor) -> Any:
        shared, slope = ctx.shared, up[0].to(ctx.shared.kind)
        shared.inputs.append(ctx.x)
        shared.slopes.append(slope)
        return None, (slope @ shared.weight).float(), up[0].new_zeros(())


class SharedMemory:
    """c = softmax(score(q, K)) V at many steps of single queries: additive with its vector v, else dot.

    keys [B,S,M], values [B,S,V], valid bool [B,S] or None.
    """

    def __init__(self, keys: Tensor, values: Tensor, valid: Tensor | None, vector: Tensor | None) -> None:
        self.keys, self.values = keys.detach(), values.detach()
        self.vector = None if vector is None else vector.detach()
        self.never = (
            None if valid is None else torch.zeros(valid.shape, device=valid.device).masked_fill_(~valid, float("-inf"))
        )
        self.of_keys: Tensor | None = None
        self.of_vector: Tensor | None = None
        self.steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.opened = _OpenMemory.apply(self, keys, values, vector)

    def __call__(self, query: Tensor) -> Tensor:
        """query [B,M] of one step -> its context [B,V]."""
        return _StepMemory.apply(self, query, self.opened)


class _OpenMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: SharedMemory, keys: Tensor, values: Tensor, vector: Tensor | None) -> Tensor:
        ctx.shared = shared
        return keys.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *up: Tensor) -> Any:
        shared = ctx.shared
        weights, slopes, scores, queries = (torch.stack(parts, 1) for parts in zip(*shared.steps))
        of_keys = scores.mT @ queries if shared.vector is None else shared.of_keys
        of_vector, shared.of_vector, shared.of_keys, shared.steps = shared.of_vector, None, None, []
        return None, of_keys, weights.mT @ slopes, of_vector


class _StepMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: SharedMemory, query: Tensor, opened: Tensor) -> Tensor:
        if shared.vector is None:
            bent = None
            score = (shared.keys @ query[:, :, None])[:, :, 0]
        else:
            bent = (shared.keys + query[:, None]).tanh_()
            score = bent @ shared.vector
        weights = (score if shared.never is None else score.add_(shared.never)).softmax(1)
        ctx.shared = shared
        ctx.save_for_backward(query, weights, bent)
        return (weights[:, None] @ shared.values)[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *up: Tensor) -> Any:
        shared, (slope,) = ctx.shared, up
        query, weights, bent = ctx.saved_tensors
        toward = (shared.values @ slope[:, :, None])[:, :, 0]
        score = weights * (toward - (weights * toward).sum(1, keepdim=True))
        shared.steps.append((weights, slope, score, query))
        if bent is None:
            of_query = (score[:, None] @ shared.keys)[:, 0]
        else:
            of_vector = bent.flatten(0, 1).mT @ score.flatten()
            shared.of_vector = of_vector if shared.of_vector is None else shared.of_vector.add_(of_vector)
            bent = torch.addcmul(shared.vector, bent * shared.vector, bent, value=-1).mul_(score[:, :, None])
            of_query = bent.sum(1)
            shared.of_keys = bent if shared.of_keys is None else shared.of_keys.add_(bent)
        return None, of_query, slope.new_zeros(())


class _Gru(torch.autograd.Function):
    """h' = n + u (h - n), r, u = σ(x + a), n = tanh(x + r a): the gates of one step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, again: Tensor, h: Tensor) -> Tensor:
        width = 2 * h.shape[-1]
        gates = (x[..., :width] + again[..., :width]).sigmoid_()
        reset, update = gates.chunk(2, -1)
        new = torch.addcmul(x[..., width:], reset, again[..., width:]).tanh_()
        ctx.save_for_backward(gates, new, again, h)
        return torch.lerp(new, h, update)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *up: Tensor) -> Any:
        gates, new, again, h = ctx.saved_tensors
        (slope,) = up
        width = 2 * h.shape[-1]
        reset, update = gates.chunk(2, -1)
        of_h = slope * update
        inner = (slope - of_h).mul_(1 - new * new)
        of_gates = torch.cat([inner * again[..., width:], slope * (h - new)], -1).mul_(gates * (1 - gates))
        return torch.cat([of_gates, inner], -1), torch.cat([of_gates, inner * reset], -1), of_h


def gru(x: Tensor, again: Tensor, h: Tensor) -> Tensor:
    """The next state of a GRU: x, again [...,3·H] the input's and the state's parts of the gates, h [...,H]."""
    return _Gru.apply(x, again, h)


def both_directions(rnn: nn.RNNBase, words: Tensor, lengths: Tensor) -> Tensor:
    """A bidirectional GRU of one layer over words [B,S,E], lengths [B] -> [B,S,2·H], zeros where padding stands.

    The backward direction reads each row turned around within its length, so both are one loop without masks.
    """
    number = torch.arange(words.shape[1], device=words.device)
    turned = torch.where(number < lengths[:, None], lengths[:, None] - 1 - number, number)
    backward = words.gather(1, turned[:, :, None].expand_as(words))
    inputs = [
        linear(side.transpose(0, 1), getattr(rnn, f"weight_ih_l0{name}"), getattr(rnn, f"bias_ih_l0{name}"))
        for side, name in ((words, ""), (backward, "_reverse"))
    ]
    weight, bias = (torch.stack([getattr(rnn, f"{part}_hh_l0{name}") for name in ("", "_reverse")]) for part in PARTS)
    product = SharedLinear(weight, bias)
    h, states = words.new_zeros(2, words.shape[0], rnn.hidden_size), []
    for gates in torch.stack(inputs, 1).unbind(0):
        h = gru(gates, product(h), h)
        states.append(h)
    ahead, back = torch.stack(states, 2).unbind(0)
    there = (number < lengths[:, None])[:, :, None]
    return torch.cat([ahead, back.gather(1, turned[:, :, None].expand_as(back))], -1) * there
