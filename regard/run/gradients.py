"""A fast backend's output as autograd sees it: a second walk computes the weights anew, so memory stays linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard import core
from regard.run.output import Output

Walk = Callable[[core.Plan, core.Watch | None, bool], Output]
"""(plan, watch, whether an output is wanted) -> what one walk gives."""

Gradients = Callable[[core.Plan, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(plan, out, row_max, row_log_sum, gradient of out) -> the gradients of q, k and v, in their types."""


def wants_grad(plan: core.Plan) -> bool:
    """Whether autograd would want to come back through this plan."""
    tensors = [plan.q, plan.k, plan.v, plan.softmax.sink]
    tensors += [x for term in plan.terms for x in vars(term).values() if isinstance(x, Tensor)]
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def run(plan: core.Plan, watch: core.Watch | None, output: bool, walk: Walk, gradients: Gradients) -> Output:
    """One walk, differentiable in q, k, v, the scale of the dot product and the sink where they ask for it."""
    if not (output and wants_grad(plan)):
        return walk(plan, watch, output)
    assert plan.v is not None
    plan = _scaled(plan)
    found: list[Output] = []
    out = _Attention.apply(plan.q, plan.k, plan.v, plan.softmax.sink, plan, watch, walk, gradients, found)
    return replace(found[0], out=out)


def _scaled(plan: core.Plan) -> core.Plan:
    """The same with a scale that asks for a gradient multiplied into the queries, where autograd sees it."""
    dot = plan.terms[0]
    if not (isinstance(dot, core.Dot) and isinstance(dot.scale, Tensor) and dot.scale.requires_grad):
        return plan
    q = (plan.q * dot.scale.reshape(-1, 1, 1)).to(plan.q.dtype)
    return replace(plan, q=q, terms=(core.Dot(1.0), *plan.terms[1:]))


class _Attention(torch.autograd.Function):
    """The output of a plan from what autograd follows; what else the walk found goes into `found`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sink: Tensor | None,
        plan: core.Plan,
        watch: core.Watch | None,
        walk: Walk,
        gradients: Gradients,
        found: list[Output],
    ) -> Tensor:
        softmax = core.Softmax(None if sink is None else sink.detach())
        ctx.plan = replace(plan, q=q.detach(), k=k.detach(), v=v.detach(), softmax=softmax)
        ctx.gradients = gradients
        result = walk(ctx.plan, watch, True)
        found.append(result)
        ctx.save_for_backward(result.out, result.row_max, result.row_log_sum)
        assert result.out is not None
        return result.out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        rows = (*ctx.saved_tensors, grad_out)
        return (*ctx.gradients(ctx.plan, *rows), _of_sink(ctx.plan.softmax.sink, *rows), *(None,) * 5)


def _of_sink(sink: Tensor | None, out: Tensor, row_max: Tensor, row_log_sum: Tensor, grad_out: Tensor) -> Tensor | None:
    """dσ_h = -Σ_i e^(σ_h - lse_i) Σ_d out_id dout_id, over the rows that see something: what the sink takes from i."""
    if sink is None:
        return None
    taken = ((sink.double().view(-1, 1) - row_max) - row_log_sum).exp()  # [B,H,Tq]
    lost = (out.double() * grad_out).sum(-1)
    return -torch.where(row_max > -torch.inf, taken * lost, 0.0).sum((0, 2)).view_as(sink).to(sink.dtype)
