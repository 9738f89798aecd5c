"""The attention of a recurrent decoder to the encoder's states: the core's mechanisms, with this module's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.hf.seam import show
from regard.inputs import inputs
from regard.mechanism import Mechanism, Score
from regard.parts.adjusts import LocalGaussian
from regard.parts.masks import And, Full, near
from regard.parts.prepare import Project
from regard.parts.scores import Additive, Dot
from regard.parts.select import PredictCentre
from regard.run import compose
from regard.run.compose import resolved
from regard.seq2seq.config import RecurrentConfig
from regard.seq2seq.unrolled import SharedLinear, SharedMemory

NETWORKS = ("additive", "concat")


@dataclass(frozen=True, eq=False)
class Memory:
    """The encoder's states as keys [B,1,S,M], projected once, and values [B,1,S,V]; valid bool [B,S] or None.

    Padding holds zeros. allowed: the valid keys as ranges of one row.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    allowed: Ranges | None

    def of(self, sentences: Tensor) -> Memory:
        """Some of its sentences."""
        valid = None if self.valid is None else self.valid[sentences]
        return remembered(self.keys[sentences], self.values[sentences], valid)

    def seen_by(self, rows: int) -> Ranges | None:
        """What each of so many queries may attend; None for everything."""
        if self.allowed is None or rows == 1:
            return self.allowed
        start, stop = (bound.expand(-1, -1, rows, -1) for bound in (self.allowed.start, self.allowed.stop))
        return Ranges(start, stop, self.allowed.num_keys)


def remembered(keys: Tensor, values: Tensor, valid: Tensor | None) -> Memory:
    """A Memory, from keys [B,1,S,M] and values [B,1,S,V]; whatever padding holds is left out."""
    if valid is None or bool(valid.all()):
        return Memory(keys, values, None, None)
    there = valid[:, None, :, None]
    keys, values = torch.where(there, keys, 0), torch.where(there, values, 0)
    return Memory(keys, values, valid, ranges.from_key_flags(valid, 1))


class AlignmentAttention(nn.Module):
    """c_t = Σ_j a_tj h_j with a_t = softmax(score(s_t, h_j)); the scores are config.attention's.

    additive: vᵀ tanh(W_q s + W_k h) (Bahdanau 2015, appendix A.1.2); concat: the same with its matrices side by side
    (Luong 2015, eq. 8); dot: sᵀ (h→ + h←); general: sᵀ W h; local_m, local_p: general within a window of
    `reach` tokens at the query's own or a predicted position (Luong 2015, section 3.2, eq. 9-10).
    """

    is_cross_attention = True
    is_causal = False
    layer_idx = 0

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = 2 * config.hidden_size, config.hidden_size
        network = config.attention in NETWORKS
        self.key = None if config.attention == "dot" else nn.Linear(width, self._key_width(), bias=False)
        self.query = nn.Linear(hidden, config.attention_size, bias=False) if network else None
        self.score = nn.Parameter(torch.empty(config.attention_size)) if network else None
        local = config.attention == "local_p"
        self.centre = nn.Linear(hidden, config.attention_size, bias=False) if local else None
        self.centre_score = nn.Parameter(torch.empty(config.attention_size)) if local else None
        for vector in (self.score, self.centre_score):
            if vector is not None:
                nn.init.uniform_(vector, -(config.attention_size**-0.5), config.attention_size**-0.5)
        around = resolved(config.mechanism)
        if not isinstance(around, Mechanism):
            raise UserError(f"{config.mechanism} has no row of scores to align with; give a single mechanism")
        self.around = around

    def _key_width(self) -> int:
        config = self.config
        return config.attention_size if config.attention in NETWORKS else config.hidden_size

    def memory(self, states: Tensor, valid: Tensor | None) -> Memory:
        """What every step attends to. states [B,S,2 · hidden], valid bool [B,S]."""
        if self.key is not None:
            keys = self.key(states)
        else:
            forward, backward = states.chunk(2, -1)
            keys = forward + backward
        return remembered(keys[:, None], states[:, None], valid)

    def mechanism(self) -> Mechanism:
        """The record of this forward, for queries as they are and keys of `memory`."""
        around, config = self.around, self.config
        prepare, score, mask, adjust = around.prepare, around.score, around.mask, around.adjust
        if self.query is not None and self.score is not None:
            prepare, score = (Project(self.query.weight.T), *prepare), _scored(Additive(self.score))
        else:
            score = _scored(Dot(1.0))
        if config.attention == "local_m":
            window = near(config.reach, config.reach)
            mask = window if isinstance(mask, Full) else And(window, mask)
        if self.centre is not None and self.centre_score is not None:
            prepare = (PredictCentre(self.centre.weight.T, self.centre_score, config.reach), *prepare)
            adjust = (LocalGaussian(config.reach / 2), *adjust)
        return around.replace(name=config.attention, prepare=prepare, score=score, mask=mask, adjust=adjust)

    def forward(self, query: Tensor, memory: Memory, steps: Tensor, mechanism: Mechanism | None = None) -> Tensor:
        """query [B,T,hidden], the decoder's states at these steps [T] -> context [B,T,2 · hidden]."""
        made = self.mechanism() if mechanism is None else mechanism
        # Zeroing padding once and saying what may be seen as ranges saves a copy of the memory per step.
        valid = memory.valid if self.centre is not None else None
        seen = memory.seen_by(query.shape[1]) if valid is None else None
        x = inputs(query[:, None], memory.keys, memory.values, query_positions=steps, key_valid=valid, allowed=seen)
        # While training, steps are few rows each: the dense form, whose graph torch keeps, beats walking them twice.
        backend = "reference" if torch.is_grad_enabled() and query.requires_grad else "auto"
        return compose.attend(made, x, backend)[:, 0]

    def shared(self, memory: Memory) -> Callable[[Tensor], Tensor] | None:
        """The same for a training's loop over steps, its gradients taken once: a state [B,hidden] -> c [B,2 · hidden].

        None where a mechanism or a window surrounds the score.
        """
        if self.config.mechanism != "scaled_dot" or self.config.attention.startswith("local"):
            return None
        attend = SharedMemory(memory.keys[:, 0], memory.values[:, 0], memory.valid, self.score)
        if self.query is None:
            return attend
        project = SharedLinear(self.query.weight)
        return lambda state: attend(project(state))

    def show(self, queries: Tensor, memory: Memory, first: int) -> None:
        """Let whoever watches read these steps: queries [B,T,hidden] as they attended."""
        show(self, self.mechanism(), queries[:, None], memory.keys, memory.values, memory.valid, first)


def _scored(score: Score) -> tuple[Score, ...]:
    return (score,)
