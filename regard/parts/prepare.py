"""Prepares: what happens to queries, keys and values once, before any score. O(tokens)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import NO_POSITION, Inputs, require_positions
from regard.parts import positions
from regard.parts.scores import widened


def projected(x: Tensor, weight: Tensor, part: str) -> Tensor:
    """x W: x [B,H,T,D], weight [D,M] or [H or 1,D,M] (a projection per head)."""
    if weight.shape[-2] != x.shape[-1] or (weight.ndim == 3 and weight.shape[0] not in (1, x.shape[1])):
        raise UserError(f"{part} of shape {list(weight.shape)} does not fit tokens {list(x.shape)} [B,heads,T,width]")
    return widened(x) @ as_wide(weight, x)


def as_wide(weight: Tensor, x: Tensor) -> Tensor:
    """A learned tensor in the type that the tokens are computed in."""
    return weight.to(widened(x).dtype)


@dataclass(frozen=True, eq=False)
class Project:
    """q = x W_q, k = x W_k, v = x W_v. Weights [D,M] or per head [H,D,M]; None leaves one as it is."""

    w_q: Tensor | None = None
    w_k: Tensor | None = None
    w_v: Tensor | None = None

    def __call__(self, x: Inputs) -> Inputs:
        if self.w_q is not None:
            x = x.replace(q=projected(x.q, self.w_q, "w_q"))
        if self.w_k is not None:
            x = x.replace(k=projected(x.k, self.w_k, "w_k"))
        if self.w_v is not None and x.v is not None:
            x = x.replace(v=projected(x.v, self.w_v, "w_v"))
        return x


@dataclass(frozen=True, eq=False)
class Temperature:
    """q ← q / T, so that q·k / T: above 1 flatter, below 1 sharper (Hinton 2015, eq. 1)."""

    value: float

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise UserError(f"temperature({self.value}): a temperature is above 0; use hard for its limit at 0")

    def __call__(self, x: Inputs) -> Inputs:
        return x.replace(q=widened(x.q) / self.value)

    def __str__(self) -> str:
        return f"temperature({self.value})"


@dataclass(frozen=True)
class Normalise:
    """q ← q/‖q‖, k ← k/‖k‖ (cosine: Luo 2017; QK-norm: Henry 2020, eq. 4). Zero vectors stay zero."""

    def __call__(self, x: Inputs) -> Inputs:
        q, k = (torch.nn.functional.normalize(widened(t), dim=-1) for t in (x.q, x.k))
        return x.replace(q=q, k=k)

    def __str__(self) -> str:
        return "unit"


@dataclass(frozen=True, eq=False)
class AddPositions:
    """q_i ← q_i + P[p_i], k_j ← k_j + P[p_j]; values too where their width is the same and `values` is set.

    table P: learned [positions, D] (Gehring 2017, section 3.1), or None for sinusoids (Vaswani 2017, section 3.5).
    """

    table: Tensor | None = None
    values: bool = False

    def __call__(self, x: Inputs) -> Inputs:
        require_positions(x, "the position embedding")
        q, k, v = widened(x.q), widened(x.k), x.v
        if self.values and v is not None:
            v = widened(v) + self.of(x.key_positions, widened(v))
        return x.replace(q=q + self.of(x.query_positions, q), k=k + self.of(x.key_positions, k), v=v)

    def of(self, at: Tensor, like: Tensor) -> Tensor:
        """The embeddings of these positions, [B,1,T,D] in the type of `like`."""
        if self.table is None:
            return positions.sinusoidal(at, like.shape[-1])[:, None].to(like.dtype)
        if self.table.shape[1] != like.shape[-1]:
            raise UserError(f"position table {list(self.table.shape)} does not fit tokens of width {like.shape[-1]}")
        if at.numel() and int(at.amax()) >= self.table.shape[0]:
            raise UserError(f"position {int(at.amax())} lies beyond the table's {self.table.shape[0]} positions")
        return self.table[at.clamp(min=0)][:, None].to(like.dtype)

    def __str__(self) -> str:
        if self.table is not None:
            raise UserError("a learned position table holds a tensor and has no text form; build it in Python")
        return "sinusoidal(True)" if self.values else "sinusoidal"


# ---- kernels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EluPlusOne:
    """φ(x) = elu(x) + 1 (Katharopoulos 2020, eq. 7)."""

    def __call__(self, x: Inputs) -> Inputs:
        q, k = (torch.nn.functional.elu(widened(t)) + 1 for t in (x.q, x.k))
        return x.replace(q=q, k=k)

    def __str__(self) -> str:
        return "elu_plus_one"


# ---- fewer keys ------------------------------------------------------------------------------------------------------


def slots(x: Inputs, k: Tensor, v: Tensor | None) -> Inputs:
    """Inputs whose keys are `k`: slots without positions, all of them valid."""
    if x.allowed is not None:
        raise UserError(
            "these keys are slots, each a mixture of tokens, so a mask over tokens (causal, a window or padding) says "
            "nothing about them; use slots where every token sees all others"
        )
    at = torch.full((x.q.shape[0], k.shape[2]), NO_POSITION, device=k.device)
    return x.replace(k=k, v=v, key_positions=at, key_valid=None, per_key={}, key_axis="slots")


@dataclass(frozen=True, eq=False)
class ProjectSequence:
    """K ← E K, V ← F V: n keys become m slots (Linformer: Wang 2020, eq. 7). E, F: [m, n]; padding counts as zeros."""

    e: Tensor
    f: Tensor

    def __call__(self, x: Inputs) -> Inputs:
        for name, weight in (("E", self.e), ("F", self.f)):
            if weight.shape[1] != x.k.shape[2]:
                raise UserError(f"{name} projects {weight.shape[1]} keys to slots, but there are {x.k.shape[2]}")
        v = None if x.v is None else as_wide(self.f, x.v) @ widened(x.v)
        return slots(x, as_wide(self.e, x.k) @ widened(x.k), v)


@dataclass(frozen=True, eq=False)
class Memory:
    """K ← M_K, V ← M_V: the tokens attend to a memory of m slots, not to each other. [G,m,Dk], [G,m,Dv]."""

    keys: Tensor
    values: Tensor

    def __call__(self, x: Inputs) -> Inputs:
        if self.keys.ndim != 3 or self.keys.shape[:2] != self.values.shape[:2]:
            raise UserError(
                f"a memory is [heads, slots, width], got {list(self.keys.shape)}, {list(self.values.shape)}"
            )
        if self.keys.shape[-1] != x.q.shape[-1] or x.q.shape[1] % self.keys.shape[0]:
            raise UserError(f"memory keys {list(self.keys.shape)} do not fit queries {list(x.q.shape)}")
        batch = x.q.shape[0]
        k, v = (t.expand(batch, *t.shape) for t in (self.keys, self.values))
        return slots(x.replace(allowed=None), k, v)


@dataclass(frozen=True, eq=False)
class Latent:
    """k_j = [W_UK c_j ; k^R_j], v_j = W_UV c_j from a shared latent (MLA: DeepSeek-V2, eq. 9-17).

    Keys come as k [B,1,T,r + d_R]: the latent c, then the rotated part. w_uk [H,r,Dn], w_uv [H,r,Dv].
    absorbed=True keeps them so and moves W_UK into the queries; the mix then applies W_UV.
    """

    w_uk: Tensor
    w_uv: Tensor
    absorbed: bool = False

    def __call__(self, x: Inputs) -> Inputs:
        rank, plain = self.w_uk.shape[1:]
        heads = x.q.shape[1]
        if x.k.shape[1] != 1 or self.w_uk.shape[0] != heads or x.q.shape[-1] - plain != x.k.shape[-1] - rank:
            raise UserError(
                f"queries {list(x.q.shape)} and latent keys {list(x.k.shape)} do not fit W_UK {list(self.w_uk.shape)}: "
                "q is [B,H,T,Dn + dR], k [B,1,T,r + dR]"
            )
        w_uk, w_uv = as_wide(self.w_uk, x.k), as_wide(self.w_uv, x.k)
        latent, rotated = widened(x.k[..., :rank]), widened(x.k[..., rank:])
        if self.absorbed:
            q = torch.cat([widened(x.q[..., :plain]) @ w_uk.transpose(1, 2), widened(x.q[..., plain:])], -1)
            return x.replace(q=q, k=torch.cat([latent, rotated], -1), v=latent)
        k = torch.cat([latent @ w_uk, rotated.expand(-1, heads, -1, -1)], -1)
        return x.replace(k=k, v=latent @ w_uv)


# ---- heads -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitHeads:
    """Each head's query and key cut in `parts` along the width: parts · H score heads, the first cuts first."""

    parts: int = 2

    def __call__(self, x: Inputs) -> Inputs:
        if x.q.shape[-1] % self.parts:
            raise UserError(f"a query width of {x.q.shape[-1]} does not divide into {self.parts} parts")
        q, k = (torch.cat(t.chunk(self.parts, -1), 1) for t in (x.q, x.k))
        return x.replace(q=q, k=k)


@dataclass(frozen=True)
class KeyHeads:
    """Requires `count` key-value heads (1: multi-query, Shazeer 2019; between 1 and H: grouped, Ainslie 2023).

    queries: how many query heads, or None for any multiple.
    """

    count: int
    queries: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"attention has at least 1 key-value head, got {self.count}")

    def __call__(self, x: Inputs) -> Inputs:
        if x.k.shape[1] != self.count:
            raise UserError(f"{self.count} key-value heads were asked for, but k {list(x.k.shape)} has {x.k.shape[1]}")
        if self.queries is not None and x.q.shape[1] != self.queries:
            raise UserError(f"{self.queries} query heads were asked for, but q {list(x.q.shape)} has {x.q.shape[1]}")
        return x
