"""A fast backend's output as autograd sees it: a second walk computes the weights anew, so memory stays linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.run.output import Output

Walk = Callable[[core.Plan, core.Watch | None, bool], Output]
"""(plan, watch, whether an output is wanted) -> what one walk gives."""

Gradients = Callable[[core.Plan, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(plan, out, row_max, row_log_sum, gradient of out) -> the gradients of q, k and v, in their types."""


ROWS = core.Watch(())  # no statistics, but the rows' state beside the output


def wants_grad(plan: core.Plan) -> bool:
    """Whether autograd would want to come back through this plan."""
    if not torch.is_grad_enabled():
        return False
    if plan.q.requires_grad or plan.k.requires_grad or (plan.v is not None and plan.v.requires_grad):
        return True
    return any([tensor.requires_grad for tensor in _of_parts(plan)])


def differentiable(name: str, walk: Walk, gradients: Gradients) -> Walk:
    """The same walk, differentiable once in q, k, v, the scale of the dot product and the sink where they ask for it.

    name: who says that there is no second derivative.
    """

    def walked(plan: core.Plan, watch: core.Watch | None, output: bool) -> Output:
        if not output or not torch.is_grad_enabled() or not wants_grad(plan):
            return walk(plan, watch, output)
        plan, result = _scaled(plan), _Result(name, walk, gradients, watch)
        out = _Attention.apply(result, plan, plan.q, plan.k, plan.v, plan.softmax.sink)
        assert result.output is not None
        return replace(result.output, out=out)

    return walked


def first_only(name: str, inputs: Sequence[Tensor | None], *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients whose own gradient is refused in one sentence, where autograd would follow them (create_graph=True).

    inputs: what the gradients depend on; a way back to any of them leads through the refusal.
    """
    if not torch.is_grad_enabled():
        return gradients
    there = [g for g in gradients if g is not None]
    made = _FirstOnly.apply(name, len(there), *(g.detach() for g in there), *(x for x in inputs if x is not None))
    refusing = iter(made)
    return tuple(None if g is None else next(refusing) for g in gradients)


class _FirstOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(g.view_as(g) for g in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise UserError(
            f"{ctx.name} has first derivatives only, and a gradient of its gradient is asked for (create_graph=True); "
            "use backend='reference'"
        )


def _scaled(plan: core.Plan) -> core.Plan:
    """The same with a scale that asks for a gradient multiplied into the queries, where autograd sees it."""
    dot = plan.terms[0]
    if not (isinstance(dot, core.Dot) and isinstance(dot.scale, Tensor) and dot.scale.requires_grad):
        return plan
    q = (plan.q * dot.scale.reshape(-1, 1, 1)).to(plan.q.dtype)
    return replace(plan, q=q, terms=(core.Dot(1.0), *plan.terms[1:]))


class _Result:
    """What a walk gives besides the output, and what the backward needs to know."""

    def __init__(self, name: str, walk: Walk, gradients: Gradients, watch: core.Watch | None) -> None:
        self.name, self.walk, self.gradients, self.watch = name, walk, gradients, watch
        self.output: Output | None = None


class _Attention(torch.autograd.Function):
    """The output of a plan from what autograd follows.

    Every tensor of the plan is saved by autograd, which refuses the backward if one was changed in place since.
    """

    @staticmethod
    def forward(
        ctx: Any, result: _Result, plan: core.Plan, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None
    ) -> Tensor:
        softmax = core.Softmax(None if sink is None else sink.detach())
        inside = replace(plan.over(q.detach(), k.detach(), v.detach()), softmax=softmax)
        inside.compiled.update(plan.compiled if sink is None or not sink.requires_grad else {})
        result.output = output = result.walk(inside, ROWS if result.watch is None else result.watch, True)
        result.watch = None
        ctx.result, ctx.plan = result, plan
        ctx.save_for_backward(q, k, v, sink, output.out, output.row_max, output.row_log_sum, *_tensors_of(plan))
        result.output = replace(output, out=None)
        assert output.out is not None
        return output.out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sink, out, row_max, row_log_sum, *_ = ctx.saved_tensors  # raises if one was changed in place since
        plan = replace(ctx.plan, q=q.detach(), k=k.detach(), v=v.detach(), softmax=core.Softmax(sink))
        with torch.no_grad():
            of_qkv = ctx.result.gradients(plan, out, row_max, row_log_sum, grad_out)
            of_sink = _of_sink(sink, out, row_max, row_log_sum, grad_out)
        return None, None, *first_only(ctx.result.name, (q, k, v, sink, grad_out), *of_qkv, of_sink)


def _of_parts(plan: core.Plan) -> list[Tensor]:
    """What the terms and the softmax hold; listed once for a plan."""
    tensors: list[Tensor] | None = plan.compiled.get("tensors")
    if tensors is None:
        values = [value for part in (*plan.terms, plan.softmax) for value in vars(part).values()]
        tensors = plan.compiled["tensors"] = [value for value in values if isinstance(value, Tensor)]
    return tensors


def _tensors_of(plan: core.Plan) -> list[Tensor]:
    """What a plan reads besides q, k, v and the sink: tables, biases, positions, ranges."""
    terms = [x for term in plan.terms for x in vars(term).values() if isinstance(x, Tensor)]
    ranges = [getattr(plan.ranges, f.name) for f in fields(Ranges)]
    return [*terms, plan.query_positions, plan.key_positions, *(t for t in ranges if isinstance(t, Tensor))]


def _of_sink(sink: Tensor | None, out: Tensor, row_max: Tensor, row_log_sum: Tensor, grad_out: Tensor) -> Tensor | None:
    """dσ_h = -Σ_i e^(σ_h - lse_i) Σ_d out_id dout_id, over the rows that see something: what the sink takes from i."""
    if sink is None:
        return None
    taken = ((sink.double().view(-1, 1) - row_max) - row_log_sum).exp()  # [B,H,Tq]
    lost = (out.double() * grad_out).sum(-1)
    return -torch.where(row_max > -torch.inf, taken * lost, 0.0).sum((0, 2)).view_as(sink).to(sink.dtype)
