"""A memory under decay and momentum, unrolled: what each token's gradient adds to the memory at every later one.

    S_t = η_t S_{t-1} - θ_t u_t,   M_t = κ_t M_{t-1} + S_t
    M_t = kept_t M_0 + carried_t S_0 - Σ_{i<=t} added_ti u_i

(Titans: Behrouz 2025, section 3.2, where momentum and decay are scans.) Gradients are outer products u_i = a_iᵀ g_i,
so a memory at every token is read without being formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Unrolled:
    """kept, carried [B,H,T,1] and added [B,H,T,T] (lower triangular) for M; S_T = speed S_0 - Σ_i pushed_i u_i, with
    speed [B,H,1,1] and pushed [B,H,1,T]."""

    kept: Tensor
    carried: Tensor
    added: Tensor
    speed: Tensor
    pushed: Tensor

    def read(self, w: Tensor, s: Tensor, slope: tuple[Tensor, Tensor], q: Tensor) -> Tensor:
        """q_t M_t for every token; M_0 = w and S_0 = s [B,H,in,out], q [B,H,T,in] -> [B,H,T,out]."""
        a, g = slope
        return self.kept * (q @ w) + self.carried * (q @ s) - (self.added * (q @ a.mT)) @ g

    def end(self, w: Tensor, s: Tensor, slope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """M_T and S_T."""
        a, g = slope
        last = slice(-1, None)
        memory = self.kept[:, :, last] * w + self.carried[:, :, last] * s - (a.mT * self.added[:, :, last]) @ g
        return memory, self.speed * s - (a.mT * self.pushed) @ g

    def slope(self, w: Tensor, s: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of ‖k_t M_{t-1} - v_t‖², g_t = 2 (k_t M_{t-1} - v_t): those before enter M_{t-1} linearly, so
        they are the solution of a lower triangular system."""
        kept, carried, added = _later(self.kept, 1.0), _later(self.carried, 0.0), _later(self.added, 0.0)
        system = 2 * added * (k @ k.mT) + torch.eye(k.shape[2], dtype=k.dtype, device=k.device)
        known = 2 * (kept * (k @ w) + carried * (k @ s) - v)
        return k, torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)


def unrolled(kappa: Tensor, eta: Tensor, theta: Tensor, valid: Tensor) -> Unrolled:
    """From decays κ, momenta η, rates θ [B,H,T] and valid bool [B,1,T]: an invalid token changes nothing."""
    kappa, eta, theta = (torch.where(valid, gate, idle) for gate, idle in ((kappa, 1.0), (eta, 1.0), (theta, 0.0)))
    aged, moving = _products(kappa), _products(eta)
    joined = (aged * valid[..., None, :]) @ moving
    first = eta[..., :1, None]
    return Unrolled(
        kept=aged[..., :1] * kappa[..., :1, None],
        carried=joined[..., :1] * first,
        added=joined * theta[..., None, :],
        speed=moving[..., -1:, :1] * first,
        pushed=moving[..., -1:, :] * theta[..., None, :],
    )


def _products(rate: Tensor) -> Tensor:
    """Π_{s<r<=t} rate_r for s <= t, 0 elsewhere, [...,T,T]: the inverse of a bidiagonal matrix, so that a rate of 0 is
    no special case, as it would be with logarithms."""
    one = torch.eye(rate.shape[-1], dtype=rate.dtype, device=rate.device)
    system = one - torch.diag_embed(rate[..., 1:], offset=-1)
    return torch.linalg.solve_triangular(system, one.expand_as(system), upper=False, unitriangular=True)


def _later(rows: Tensor, first: float) -> Tensor:
    """Row t of the result is row t - 1; the first one holds `first`."""
    return torch.cat([torch.full_like(rows[:, :, :1], first), rows[:, :, :-1]], 2)
