"""What later queries are expected to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard.errors import UserError
from regard.parts.scores import Dot
from regard.swap.policies.policy import Policy, Prompt


@dataclass(frozen=True)
class ExpectedAttention(Policy):
    """The tokens that later queries weigh most on average, were those drawn as the prompt's (Devoto 2025, section 3).

    Queries before their rotation are taken as normal with mean μ and covariance Σ; R̄ is the mean rotation of the next
    `future` positions. The score, times ‖v_j‖, of a softmax over keys: E[q·k] + Var[q·k] / 2. The first `sinks` stay.
    """

    name: ClassVar[str] = "expected"
    source: ClassVar[str] = "Devoto et al. 2025, Expected Attention, section 3"
    formula: ClassVar[str] = "softmax_j(c k_jᵀR̄μ + c² k_jᵀR̄ΣR̄ᵀk_j / 2) ‖v_j‖"

    budget: float | int
    future: int = 512
    sinks: int = 4

    def scores(self, prompt: Prompt) -> Tensor:
        if prompt.length <= self.sinks:
            raise UserError(
                f"{self.name} keeps the first {self.sinks} tokens, and the prompt has no more; give sinks=0"
            )
        dot = prompt.mechanism.score[0]
        scale = dot.scale if isinstance(dot, Dot) and dot.scale is not None else prompt.q.shape[-1] ** -0.5
        mean, spread = self._queries(prompt)
        k = prompt.k[:, self.sinks :].float().repeat_interleave(prompt.q.shape[0] // prompt.groups, 0)
        expected = torch.einsum("hjd,hd->hj", k, mean) * scale
        expected = expected + torch.einsum("hjd,hde,hje->hj", k, spread, k) * scale**2 / 2
        found = prompt.per_group(expected.softmax(-1)) * prompt.v[:, self.sinks :].float().norm(dim=-1)
        return pad(found, (self.sinks, 0), value=float(found.amax()) + 1)

    def _queries(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Mean [H,Dk] and covariance [H,Dk,Dk] of queries at later positions."""
        q = prompt.q.float()
        if prompt.rotary is not None:
            q = prompt.rotary.back(q)
        q = q[:, self.sinks :]
        mean = q.mean(1)
        apart = q - mean[:, None]
        spread = apart.mT @ apart / q.shape[1]
        if prompt.rotary is not None:
            turn = prompt.rotary.ahead(prompt.length, self.future)
            mean, spread = mean @ turn.T, turn @ spread @ turn.T
        return mean, spread
