"""Attention by exponential features as a state: what causal Performer carries from token to token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs
from regard.mechanism import Prepare
from regard.parts.features import log_features
from regard.parts.scores import widened
from regard.recurrent.ages import Ages, averaged, decayed_sums, shares, with_ones
from regard.recurrent.recurrence import Recurrence, State, per_head


@dataclass(frozen=True, eq=False)
class FeatureSum(Recurrence):
    """S_t = S_{t-1} + φ(k_t) [v_t, 1]ᵀ, o_t = φ(q_t)ᵀ S_t, its last column dividing the others (FAVOR+: Choromanski
    2021, eq. 7 and section 2.4).

    φ is an exponential, which over- and underflows. So the state keeps, per feature, the largest exponent of any key
    so far, and its sums relative to e to that power, as an online softmax does; a query's features take it back, less
    their own largest. All of it cancels in the quotient. State: the sums [B,H,m,Dv+1] and the exponents [B,H,1,m].
    """

    name: str
    source: str
    count: int = 256
    seed: int = 0
    prepare: tuple[Prepare, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"{self.name}: at least 1 random feature, got {self.count}")

    def start(self, x: Inputs) -> State:
        assert x.v is not None
        empty = widened(x.q).new_zeros(*x.q.shape[:2], self.count, x.v.shape[-1] + 1)
        return empty, torch.full_like(empty[..., :1].mT, -torch.inf)

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        assert x.v is not None
        sums, before = state
        q, k = self._exponents(x)
        most = torch.maximum(before, k.detach())
        sums = sums * _fading(before, most).exp().mT + _relative(k, most).mT @ with_ones(per_head(x, x.v))
        return (sums, most), averaged(_relative_query(q, most) @ sums)

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        assert x.v is not None
        sums, before = state
        q, k, log_decay, most = self._parts(x, before)
        sums, out = decayed_sums(sums, q, k, with_ones(per_head(x, x.v)), log_decay)
        return (sums, most), averaged(out)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        q, k, log_decay, _ = self._parts(x, self.start(x)[1])
        return shares(Ages.of(log_decay).products(q, k, rows))[..., keys]

    def _parts(self, x: Inputs, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """φ(q), φ(k) and the state's log decay relative to the running exponents, and the last of those."""
        q, k = self._exponents(x)
        most = torch.cat([before, k.detach()], 2).cummax(2).values
        now = most[:, :, 1:]
        return _relative_query(q, now), _relative(k, now), _fading(most[:, :, :-1], now), most[:, :, -1:]

    def _exponents(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """log φ of queries and keys [B,H,T,m]; -inf for a key that is padding."""
        q, k = log_features(x.q, self.count, self.seed), log_features(per_head(x, x.k), self.count, self.seed)
        if x.key_valid is not None:
            k = k.masked_fill(~x.key_valid[:, None, :, None], -torch.inf)
        return q, k


def _finite(exponent: Tensor) -> Tensor:
    """An exponent of no key yet counts as 0: the sums that it belongs to are 0."""
    return exponent.masked_fill(exponent == -torch.inf, 0.0)


def _relative(k: Tensor, most: Tensor) -> Tensor:
    return (k - _finite(most)).exp()


def _relative_query(q: Tensor, most: Tensor) -> Tensor:
    q = q + _finite(most)
    return (q - q.detach().amax(-1, keepdim=True)).exp()


def _fading(before: Tensor, now: Tensor) -> Tensor:
    """The log of how much the sums shrink; nothing shrinks before the first key."""
    return torch.where(before == -torch.inf, 0.0, before - _finite(now))
