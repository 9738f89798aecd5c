"""How states fade: what is left, at every later token, of what was written at a token.

    A_ij = Π_{j<t<=i} α_t,   from log α_t [B,H,T,1], or [B,H,T,Dk] where each channel fades by itself

As e^{a_i - a_j} with a_i = Σ_{t<=i} log α_t, summed in float64: after a hundred tokens of strong decay the sums are
large, and float32 would lose digits of their differences. A token that forgets everything (α = 0, or so small that its
exponential is 0) would make that -∞ - (-∞); it is left out of the sums and counted apart: nothing written before it
is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FINE = 16  # tokens at a time where each channel fades by itself: their products take FINE · Dk numbers per token
MILD = 20.0  # nats of decay up to which e^{a_i} and e^{-a_j} are factors of their own, exact to float32's last digits


@dataclass(frozen=True, eq=False)
class Ages:
    """sums a: float64 [B,H,T,1 or Dk], α = 0 left out; resets: how many of those came up to each token, int64."""

    sums: Tensor
    resets: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, log_decay: Tensor) -> Ages:
        """From log α_t, which is at most 0 and may be -inf."""
        forgets = log_decay.detach().exp() == 0
        sums = log_decay.masked_fill(forgets, 0.0).double().cumsum(2)
        return cls(sums, forgets.cumsum(2), log_decay.dtype)

    @property
    def is_mild(self) -> bool:
        """Whether so little fades over all tokens that their fading is a product of factors, one a token.

        No for tensors whose numbers are not known or must not decide (traced, transformed, recorded).
        """
        return _known(self.sums) and bool((self.sums.detach() > -MILD).all()) and not bool(self.resets.any())

    def since_start(self) -> Tensor:
        """What is left at each token of the state before the first: [B,H,T,1 or Dk]."""
        return torch.where(self.resets == 0, self.sums.exp(), 0.0).to(self.dtype)

    def until_end(self) -> Tensor:
        """What is left after the last token of what was written at each: [B,H,T,1 or Dk]."""
        same = self.resets == self.resets[:, :, -1:]
        return torch.where(same, (self.sums[:, :, -1:] - self.sums).exp(), 0.0).to(self.dtype)

    def products(
        self, q: Tensor, k: Tensor, rows: slice = slice(None), keys: slice = slice(None), before: bool = False
    ) -> Tensor:
        """Σ_d q_id k_jd A_ijd for j <= i (j < i with before=True), 0 elsewhere: [B,H,rows,keys] of a rectangle.

        q, k: [B,H,T,Dk] of all tokens. Where channels fade by themselves, FINE rows at a time.
        """
        if self.sums.shape[-1] == 1:
            fade = self._fade(rows, keys, before)
            return (q[:, :, rows] @ k[:, :, keys].mT) * fade[..., 0]
        if self.is_mild:
            grown = (-self.sums).exp().to(self.dtype)
            faded = (q * self.sums.exp().to(self.dtype))[:, :, rows] @ (k * grown)[:, :, keys].mT
            seen = lower_triangle(self.sums.shape[2], self.sums.device).tril(-1 if before else 0)[rows, keys]
            return faded.masked_fill(~seen, 0.0)
        first, last, _ = rows.indices(q.shape[2])
        parts = [slice(begin, min(begin + FINE, last)) for begin in range(first, last, FINE)] or [slice(first, first)]
        made = [
            torch.einsum("bhid,bhjd,bhijd->bhij", q[:, :, part], k[:, :, keys], self._fade(part, keys, before))
            for part in parts
        ]
        return torch.cat(made, 2)

    def _fade(self, rows: slice, keys: slice, before: bool) -> Tensor:
        """A_ij [B,H,rows,keys,1 or Dk], 0 for later j: the exponent is never positive where it is kept."""
        length = self.sums.shape[2]
        seen = lower_triangle(length, self.sums.device).tril(-1 if before else 0)[rows, keys]
        kept = seen[..., None] & (self.resets[:, :, rows, None] == self.resets[:, :, None, keys])
        exponent = (self.sums[:, :, rows, None] - self.sums[:, :, None, keys]).to(self.dtype)
        return exponent.masked_fill(~kept, -float("inf")).exp()


def _known(numbers: Tensor) -> bool:
    followed = torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    return (
        type(numbers) is Tensor and numbers.device.type != "meta" and not torch.compiler.is_compiling() and not followed
    )


def lower_triangle(size: int, device: torch.device) -> Tensor:
    """bool [size,size]: j <= i."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()


def decayed_sums(state: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """S_T and o_t = q_tᵀ S_t for S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ, many tokens at once."""
    size = q.shape[2] if log_decay.shape[-1] == 1 or Ages.of(log_decay).is_mild else FINE
    outputs = []
    for part in (slice(begin, begin + size) for begin in range(0, q.shape[2], max(size, 1))):
        some_q, some_k, some_v, ages = q[:, :, part], k[:, :, part], v[:, :, part], Ages.of(log_decay[:, :, part])
        left = ages.since_start()
        outputs.append((some_q * left) @ state + ages.products(some_q, some_k) @ some_v)
        state = state * left[:, :, -1:].mT + (some_k * ages.until_end()).mT @ some_v
    return state, torch.cat(outputs, 2)


# ---- quotients of two sums, the second of which is kept as one more column of values -------------------------------


def with_ones(v: Tensor) -> Tensor:
    """Values with a column of ones, whose sum is that of the weights."""
    return torch.cat([v, torch.ones_like(v[..., :1])], -1)


def averaged(out: Tensor) -> Tensor:
    """Sums of values by the sum of their weights, which stands in the last column; 0 where there is none."""
    total = out[..., -1:]
    return out[..., :-1] / total.masked_fill(total == 0, 1.0)


def shares(weights: Tensor) -> Tensor:
    """Rows divided by their sums; a row of zeros stays."""
    total = weights.sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)
