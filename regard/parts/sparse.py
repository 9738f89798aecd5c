"""Normalisers with exact zeros, entmax and normmax: a threshold below which a key counts nothing.

    Σ_j [z_j - τ]₊^P = 1

Both raise what is left above a threshold τ of the row to a power; they differ in P and in what is summed to one. τ is
solved for, and differentiated by the equation that it solves, to any order:

    ∂τ/∂z_j = b_j^{P-1} / Σ b^{P-1},   ∂τ/∂P = Σ b^P log b / (P Σ b^{P-1}),   b = [z - τ]₊
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Where
from regard.mechanism import WeightKind

SUPPORT = 64  # the largest entries of a long row, whose own threshold is where the row's search begins: it is not above


@dataclass(frozen=True, eq=False)
class Entmax:
    """a = [(α - 1) s - τ]₊^{1/(α - 1)}, τ such that Σ a = 1 (Peters 2019, eq. 10). α = 2 is sparsemax (Martins 2016).

    alpha: a number above 1, or a tensor [heads] (Correia 2019).
    """

    alpha: float | Tensor = 1.5
    kind: ClassVar[WeightKind] = "distribution"

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, "entmax", "alpha = 1 is softmax")

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        if not scores.numel():
            return scores
        alpha = _per_head(self.alpha, scores)
        z, power = _below_top(scores, allowed, alpha) * (alpha - 1), 1 / (alpha - 1)
        return _shares(_power(z - _threshold(z, power), power)).to(scores.dtype)

    def __str__(self) -> str:
        if isinstance(self.alpha, Tensor):
            raise UserError("entmax with a learned alpha holds a tensor and has no text form; build it in Python")
        return "sparsemax" if self.alpha == 2 else f"entmax({self.alpha})"


@dataclass(frozen=True, eq=False)
class Normmax:
    """a = b / Σ b, b = [s - τ]₊^{1/(α - 1)}, τ such that ‖b‖_α = 1: argmax_p p·s - ‖p‖_α (Blondel 2020, section 4.3).

    Rows are flatter inside their support than entmax's. alpha: a number above 1, or a tensor [heads].
    """

    alpha: float | Tensor = 2.0
    kind: ClassVar[WeightKind] = "distribution"

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, "normmax", "near 1 all keys above the threshold count alike")

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        if not scores.numel():
            return scores
        alpha = _per_head(self.alpha, scores)
        z = _below_top(scores, allowed, alpha)
        return _shares(_power(z - _threshold(z, alpha / (alpha - 1)), 1 / (alpha - 1))).to(scores.dtype)

    def __str__(self) -> str:
        if isinstance(self.alpha, Tensor):
            raise UserError("normmax with a learned alpha holds a tensor and has no text form; build it in Python")
        return f"normmax({self.alpha})"


def _check_alpha(alpha: float | Tensor, name: str, otherwise: str) -> None:
    lowest = float(alpha.detach().amin()) if isinstance(alpha, Tensor) else alpha
    if not 1 < lowest < math.inf:
        raise UserError(f"{name} needs alpha above 1, got {lowest}; {otherwise}")


def _per_head(alpha: float | Tensor, scores: Tensor) -> Tensor:
    """α as [1,heads or 1,1,1] in the scores' type; float64 above 2, where thresholds lie as near to the largest score
    as n^{-(α - 1)}, closer than float32 can tell."""
    each = alpha[None, :, None, None] if isinstance(alpha, Tensor) else scores.new_tensor(alpha).view(1, 1, 1, 1)
    return each.double() if bool((each.detach() > 2).any()) else each.to(scores.dtype)


def _below_top(scores: Tensor, allowed: Tensor | None, alpha: Tensor) -> Tensor:
    """Each score less the largest allowed one of its row, -inf where not allowed, in α's type."""
    scores = scores.to(alpha.dtype)
    scores = scores if allowed is None else scores.masked_fill(~allowed, -float("inf"))
    top = scores.detach().amax(-1, keepdim=True)
    return scores - top.masked_fill(top == -float("inf"), 0.0)


def _power(base: Tensor, power: Tensor) -> Tensor:
    """[base]₊^power, with gradient 0 where base <= 0."""
    positive = base > 0
    return torch.where(positive, torch.where(positive, base, 1.0) ** power, 0.0)


def _shares(kept: Tensor) -> Tensor:
    """Rows divided by their sums, which for entmax are 1 but for rounding; a row of zeros stays."""
    total = kept.sum(-1, keepdim=True)
    return kept / total.masked_fill(total == 0, 1.0)


def _threshold(z: Tensor, power: Tensor) -> Tensor:
    """τ [B,H,Tq,1] of each row, for z whose largest entry is 0: -1 <= τ < 0 (-1 for a row that sees nothing)."""
    tau: Tensor = _Threshold.apply(z, power)
    return tau


class _Threshold(torch.autograd.Function):
    """τ(z, P). Its derivatives are expressions in z, P and τ, so that they can be differentiated again."""

    generate_vmap_rule = False

    @staticmethod
    def forward(z: Tensor, power: Tensor) -> Tensor:
        search = _bracketed if float(power.min()) < 1 else _convex
        return search(z, power)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        z, power, tau = ctx.saved_tensors
        of_z = upstream * _by_score(z, power, tau) if ctx.needs_input_grad[0] else None
        of_power = (upstream * _by_power(z, power, tau)).sum_to_size(power.shape) if ctx.needs_input_grad[1] else None
        return of_z, of_power

    @staticmethod
    def jvp(ctx: Any, of_z: Tensor | None, of_power: Tensor | None) -> Tensor:
        z, power, tau = ctx.saved_tensors
        moved = torch.zeros_like(tau)
        if of_z is not None:
            share = _by_score(z, power, tau)
            moved = moved + (share * of_z.masked_fill(share == 0, 0.0)).sum(-1, keepdim=True)
        return moved if of_power is None else moved + _by_power(z, power, tau) * of_power


def _by_score(z: Tensor, power: Tensor, tau: Tensor) -> Tensor:
    """∂τ/∂z_j = b_j^{P-1} / Σ b^{P-1}."""
    slopes = _power(z - tau, power - 1)
    total = slopes.sum(-1, keepdim=True)
    return slopes / total.masked_fill(total == 0, 1.0)


def _by_power(z: Tensor, power: Tensor, tau: Tensor) -> Tensor:
    """∂τ/∂P = Σ b^P log b / (P Σ b^{P-1})."""
    base = z - tau
    logs = torch.where(base > 0, base, 1.0).log()
    slope = (power * _power(base, power - 1)).sum(-1, keepdim=True)
    return (_power(base, power) * logs).sum(-1, keepdim=True) / slope.masked_fill(slope == 0, 1.0)


# ---- the search for τ ------------------------------------------------------------------------------------------------


def _convex(z: Tensor, power: Tensor) -> Tensor:
    """P >= 1: the mass is convex in τ, and Newton's steps from below never overstep."""
    rows, start = z.reshape(-1, z.shape[-1]), z.new_full((z.shape[:-1].numel(), 1), -1.0)
    power = power.expand(*z.shape[:-1], 1).reshape(-1, 1)
    if z.shape[-1] > 4 * SUPPORT:
        start = _from_below(rows.topk(SUPPORT, sorted=False).values, power, start)
    return _from_below(rows, power, start).view(*z.shape[:-1], 1)


def _from_below(z: Tensor, power: Tensor, guess: Tensor) -> Tensor:
    """Newton's steps for rows [R,n]; rows that have arrived are left out."""
    tau, left = guess.clone(), torch.arange(len(z), device=z.device)
    for _ in range(60):
        positive = (z - guess).clamp_(min=0)
        slopes = torch.where(positive > 0, positive ** (power - 1), 0.0)
        total, slope = (slopes * positive).sum(-1, keepdim=True), (power * slopes).sum(-1, keepdim=True)
        step = ((total - 1) / slope.clamp(min=torch.finfo(z.dtype).tiny)).clamp(min=0)
        tau[left] = guess = guess + step
        more = step[:, 0] > 8 * torch.finfo(z.dtype).eps
        if not bool(more.any()):
            break
        z, guess, left, power = z[more], guess[more], left[more], power[more]
    return tau.clamp_(max=0)


def _bracketed(z: Tensor, power: Tensor) -> Tensor:
    """Some P < 1, where the mass has corners: Newton's steps for log(-τ), within a bracket that halves where they
    leave it. n keys hold at most a mass of n (-τ)^P, so log(-τ) is not below -log(n) / P."""
    low = (-math.log(z.shape[-1]) / power).expand(*z.shape[:-1], 1)
    high = torch.zeros_like(low)
    guess = (low + high) / 2
    for _ in range(100):
        base = z + guess.exp()
        total = _power(base, power).sum(-1, keepdim=True)
        slope = (power * _power(base, power - 1)).sum(-1, keepdim=True) * guess.exp()
        low, high = torch.where(total <= 1, guess, low), torch.where(total >= 1, guess, high)
        step = guess - (total - 1) / slope.clamp(min=torch.finfo(z.dtype).tiny)
        step = torch.where((step > low) & (step < high), step, (low + high) / 2)
        if bool(((step - guess).abs() <= 4 * torch.finfo(z.dtype).eps * (1 + guess.abs())).all()):
            break
        guess = step
    return -guess.exp()
