"""Attention through a few landmarks: the softmax matrix as a product of three small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import NO_POSITION, Inputs
from regard.mechanism import Mechanism
from regard.parts.scores import widened
from regard.protocol import Engine


@dataclass(frozen=True, eq=False)
class LowRank:
    """o = A(q, K̃) · A(Q̃, K̃)⁺ · A(Q̃, K) V, with `count` landmarks Q̃, K̃: means of segments (Xiong 2021, eq. 13).

    kernel A: a mechanism without mask. iterations: of the paper's approximate inverse (eq. 14); None: the exact one.
    """

    name: str
    source: str
    kernel: Mechanism
    count: int
    iterations: int | None = 6

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"{self.name} needs at least 1 landmark, got {self.count}")
        if str(self.kernel.mask) != "full":
            self.masked(self.kernel.mask)

    @property
    def is_causal(self) -> bool:
        return False

    def attend(self, x: Inputs, engine: Engine) -> Tensor:
        q_marks, k_marks = self._landmarks(x)
        summary = engine.output(self.kernel, _between(x, q_marks, x.k, x.v))
        inner = engine.dense(self.kernel, _between(x, q_marks, k_marks, None))
        values = pseudo_inverse(inner, self.iterations) @ summary.to(inner.dtype)
        k_marks = k_marks.repeat_interleave(x.q.shape[1] // k_marks.shape[1], 1)
        return engine.output(self.kernel, _between(x, x.q, k_marks, values))

    @torch.no_grad()
    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        left, inverse, right = self.factors(x, engine)
        return left[:, :, rows] @ (inverse @ right[..., keys])

    def factors(self, x: Inputs, engine: Engine) -> tuple[Tensor, Tensor, Tensor]:
        """A(q, K̃) [B,H,Tq,count], A(Q̃, K̃)⁺ [B,H,count,count] and A(Q̃, K) [B,H,count,Tk]."""
        q_marks, k_marks = self._landmarks(x)
        pairs = ((x.q, k_marks), (q_marks, k_marks), (q_marks, x.k))
        left, inner, right = (engine.dense(self.kernel, _between(x, q, k, None)) for q, k in pairs)
        return left, pseudo_inverse(inner, self.iterations), right

    def _landmarks(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """Q̃ and K̃. In self-attention the padding of the keys is the padding of the queries."""
        if x.allowed is not None:
            self.masked("that came with the inputs")
        same = x.key_valid if x.q.shape[2] == x.k.shape[2] else None
        q_marks = segment_means(widened(x.q), same, self.count)
        return q_marks, segment_means(widened(x.k), x.key_valid, self.count)

    def masked(self, mask: Any) -> LowRank:
        raise UserError(
            f"{self.name} cannot take the mask {mask}: its landmarks average over the whole sequence, the future "
            "included; use full"
        )

    def composition(self) -> tuple[tuple[str, Any], ...]:
        return (("low rank", self), ("kernel", self.kernel))

    def __str__(self) -> str:
        return self.name


def _between(x: Inputs, q: Tensor, k: Tensor, v: Tensor | None) -> Inputs:
    """The inputs of a run between tokens and landmarks, which have no positions."""
    valid = x.key_valid if k is x.k else None
    at_q, at_k = (torch.full((t.shape[0], t.shape[2]), NO_POSITION, device=t.device) for t in (q, k))
    return x.replace(q=q, k=k, v=v, query_positions=at_q, key_positions=at_k, key_valid=valid)


def segment_means(x: Tensor, valid: Tensor | None, count: int) -> Tensor:
    """Means of `count` segments of near equal length, over valid tokens. [B,H,T,D] -> [B,H,count,D]."""
    length = x.shape[2]
    if length < count:
        raise UserError(f"{count} landmarks need at least as many tokens, got {length}")
    keep = torch.ones(x.shape[0], length, dtype=torch.bool, device=x.device) if valid is None else valid
    segment = torch.arange(length, device=x.device) * count // length
    member = torch.nn.functional.one_hot(segment, count).to(x.dtype) * keep[..., None]
    x = torch.where(keep[:, None, :, None], x, 0)
    return member.transpose(1, 2)[:, None] @ x / member.sum(1).clamp(min=1)[:, None, :, None]


def pseudo_inverse(a: Tensor, iterations: int | None) -> Tensor:
    """A⁺: exact, or Z ← Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4 from Z = Aᵀ / ‖A‖₁‖A‖∞ (Xiong 2021, eq. 14)."""
    if iterations is None:
        return torch.linalg.pinv(a)
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    size = a.abs().sum(-2).amax(-1) * a.abs().sum(-1).amax(-1)
    z = a.transpose(-1, -2) / size[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z
