"""Spatial attention over an image, soft and hard (Show, Attend and Tell), and the estimator that trains the latter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.inputs import inputs
from regard.nn.additive import AdditiveAttention
from regard.parts.normalisers import Gumbel, Hard
from regard.run import reference


@dataclass(frozen=True, eq=False)
class Glance:
    """What was seen: context [B,C], weights over the cells [B,H,W], and for hard attention the log probability [B] of
    the cell drawn and the entropy [B] of the choice (nats); None where nothing was drawn."""

    context: Tensor
    weights: Tensor
    log_prob: Tensor | None = None
    entropy: Tensor | None = None


class SpatialAttention(nn.Module):
    """ẑ = β Σ_i α_i a_i, α = softmax(vᵀ tanh(W_q h + W_k a_i)), β = σ(w_β h + b_β) (Xu 2015, eq. 4-6, 13, 4.2.1).

    channels: of the image's cells a; state_width: of the decoder's state h; hidden: of the network between.
    gated=False leaves β out.
    """

    def __init__(self, channels: int, state_width: int, hidden: int, gated: bool = True) -> None:
        super().__init__()
        self.look = AdditiveAttention(state_width, channels, hidden)
        self.gate = nn.Linear(state_width, 1) if gated else None

    def forward(self, image: Tensor, state: Tensor) -> Glance:
        """image [B,C,H,W], state [B,state width]."""
        context, weights = self.look(state, _cells(image))
        return Glance(self._gated(context, state), weights.unflatten(-1, image.shape[2:]))

    def _gated(self, context: Tensor, state: Tensor) -> Tensor:
        return context if self.gate is None else self.gate(state).sigmoid() * context


class HardSpatialAttention(SpatialAttention):
    """ẑ = β a_j, j ~ α while training, the most probable cell otherwise (Xu 2015, eq. 8-9).

    The draw follows torch's random state. Train it with Reinforce on the glance's log probability: no other gradient
    reaches α.
    """

    def forward(self, image: Tensor, state: Tensor) -> Glance:
        """image [B,C,H,W], state [B,state width]."""
        cells, soft = _cells(image), self.look.attention()
        keys = cells[:, None]
        x = inputs(
            state[:, None, None], keys, keys, query_positions=torch.zeros(1, dtype=torch.int64, device=state.device)
        )
        chance = reference.attend(soft.replace(mix=None), x)[1][:, 0, 0]
        seed = int(torch.randint(2**31 - 1, (), device="cpu")) if self.training else 0
        choose = Gumbel(seed=seed, straight_through=False) if self.training else Hard()
        context, drawn = reference.attend(soft.replace(normaliser=choose), x)
        assert context is not None
        drawn = drawn[:, 0, 0]
        log_chance = chance.clamp(min=torch.finfo(chance.dtype).tiny).log()
        return Glance(
            self._gated(context[:, 0, 0].to(image.dtype), state),
            drawn.unflatten(-1, image.shape[2:]),
            (drawn * log_chance).sum(-1),
            -(chance * log_chance).sum(-1),
        )


class Reinforce(nn.Module):
    """ℓ = -mean((R - b) log p) - λ mean(H): its gradient estimates that of -E[R] - λ H (Williams 1992; Xu 2015, 4.1).

    baseline b: a moving average of rewards, b ← decay · b + (1 - decay) mean(R) after each call while training; it
    lowers the variance and leaves the expectation. entropy λ keeps choices open.
    """

    baseline: Tensor

    def __init__(self, decay: float = 0.9, entropy: float = 0.0) -> None:
        super().__init__()
        self.decay, self.entropy = decay, entropy
        self.register_buffer("baseline", torch.zeros(()))

    def forward(self, log_prob: Tensor, reward: Tensor, entropy: Tensor | None = None) -> Tensor:
        """log_prob, reward, entropy: [...] of one shape -> the loss, a number. Rewards take no gradient."""
        reward = reward.detach()
        loss = -((reward - self.baseline) * log_prob).mean()
        if entropy is not None:
            loss = loss - self.entropy * entropy.mean()
        if self.training:
            self.baseline.mul_(self.decay).add_((1 - self.decay) * reward.mean())
        return loss


def _cells(image: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,H·W,C]."""
    return image.flatten(2).transpose(1, 2)
