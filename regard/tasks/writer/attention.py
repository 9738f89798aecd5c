"""The attention of a writer's decoder to what its encoder made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from regard.hf.seam import show
from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.scores import Dot
from regard.tasks.writer.config import WriterConfig

NEVER = -1e4  # a score whose weight is 0 in float32, and finite
SOURCE = "Bahdanau 2015, appendix A.1.2; Chorowski 2015, eq. 8-9; Luong 2015, section 3.2; Xu 2015, section 4"


@dataclass(frozen=True, eq=False)
class Memory:
    """What every step attends to: keys [B,S,A], values [B,S,V], valid bool [B,S] or None, ids [B,S] of a text."""

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    ids: Tensor | None

    def of(self, rows: Tensor) -> Memory:
        """Some of its sequences."""
        parts = (self.keys, self.values, self.valid, self.ids)
        return Memory(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Look:
    """One step's attention: scores and weights [B,S]; log_drawn [B]: log p of the state that hard attention drew."""

    scores: Tensor
    weights: Tensor
    log_drawn: Tensor | None = None


class WriterAttention(nn.Module):
    """α_t = softmax_j(e_tj) with e_tj = vᵀ tanh(W h_{t-1} + V m_j + U f_tj).

    f_t = F ∗ α_{t-1}, convolutions of the weights before, for "location" alone (Chorowski 2015, eq. 8-9). Once trained,
    its states outside m - back … m + ahead have weight 0, m being the median of α_{t-1}: his windowing. "local_m":
    states farther than `reach` from pace · (t + ½) have weight 0. "hard": one state is drawn from α_t while training,
    and the likeliest is taken afterwards (Xu 2015, section 4.1).
    """

    is_cross_attention = True
    is_causal = False
    layer_idx = 0

    def __init__(self, config: WriterConfig) -> None:
        super().__init__()
        self.config = config
        size = config.attention_size
        self.query = nn.Linear(config.hidden_size, size, bias=False)
        self.key = nn.Linear(config.memory_size, size)
        self.score = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))
        located = config.attention == "location"
        self.filters = nn.Parameter(torch.empty(config.filters, 1, config.filter_width)) if located else None
        self.feature = nn.Linear(config.filters, size, bias=False) if located else None
        if self.filters is not None:
            nn.init.normal_(self.filters, std=config.filter_width**-0.5)

    def memory(self, states: Tensor, valid: Tensor | None, ids: Tensor | None) -> Memory:
        """states [B,S,V] and what of them is no padding."""
        return Memory(self.key(states), states, valid, ids)

    def scores(self, state: Tensor, memory: Memory, before: Tensor, step: int) -> Tensor:
        """e_t [B,S] of the state [B,H], the weights before [B,S] and the number of the step."""
        inner = memory.keys + self.query(state)[:, None]
        if self.filters is not None and self.feature is not None:
            features = conv1d(before[:, None], self.filters, padding=self.config.filter_width // 2)
            inner = inner + self.feature(features.transpose(1, 2))
        scores = torch.tanh(inner) @ self.score
        if self.config.attention == "local_m":
            places = torch.arange(scores.shape[1], device=scores.device)
            away = (places - self.config.pace * (step + 0.5)).abs()
            scores = scores.masked_fill(away > self.config.reach, NEVER)
        if self.config.attention == "location" and step and not self.training:
            median = (before.cumsum(1) < 0.5).sum(1, keepdim=True)
            away = torch.arange(scores.shape[1], device=scores.device) - median
            scores = scores.masked_fill((away < -self.config.back) | (away > self.config.ahead), NEVER)
        return scores

    def look(self, state: Tensor, memory: Memory, before: Tensor, step: int) -> Look:
        """One step's attention."""
        scores = self.scores(state, memory, before, step)
        seen = scores if memory.valid is None else scores.masked_fill(~memory.valid, float("-inf"))
        weights = seen.softmax(-1)
        if self.config.attention != "hard":
            return Look(scores, weights)
        if self.training:
            at = torch.multinomial(weights, 1)
            drawn = torch.zeros_like(weights).scatter_(1, at, 1.0)
            return Look(scores, drawn, weights.gather(1, at)[:, 0].clamp(min=1e-12).log())
        at = weights.argmax(-1, keepdim=True)
        return Look(torch.full_like(scores, NEVER).scatter_(1, at, 0.0), torch.zeros_like(weights).scatter_(1, at, 1.0))

    def mechanism(self) -> Mechanism:
        """The record that reads scores which are made: each query holds its row of them, each key is a unit vector."""
        return mechanism_with(self.config.attention, SOURCE, score=(Dot(1.0),))

    def show(self, scores: Tensor, memory: Memory, first: int) -> None:
        """Let whoever watches read these steps: scores [B,T,S] as they were made."""
        size = scores.shape[-1]
        units = torch.eye(size, dtype=scores.dtype, device=scores.device).expand(scores.shape[0], 1, -1, -1)
        show(self, self.mechanism(), scores[:, None], units, memory.values[:, None], memory.valid, first)
