"""The recurrent decoder of the writers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import PreTrainedModel

from regard.seq2seq.base import RecurrentBase
from regard.seq2seq.cells import Cell, State
from regard.tasks.writer.attention import Look, Memory, WriterAttention
from regard.tasks.writer.config import WriterConfig


@dataclass(eq=False)
class Progress:
    """How far a text is written: the cell's state, the weights of the last step [B,S], the number of steps, the memory.

    transformers' generate carries it as past_key_values and reorders it with its beams.
    """

    state: State
    weights: Tensor
    steps: int
    memory: Memory

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens written so far."""
        return self.steps

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i continues what row beam_idx[i] was."""
        self.state = tuple(part.index_select(0, beam_idx) for part in self.state)
        self.weights = self.weights.index_select(0, beam_idx)
        self.memory = self.memory.of(beam_idx)


@dataclass(frozen=True, eq=False)
class Steps:
    """What steps gave: out [B,T,E], for the output layer; weights [B,T,S]; log_drawn [B,T] of hard attention; copying
    [B,T], 1 - p_gen of a pointer."""

    out: Tensor
    weights: Tensor
    log_drawn: Tensor | None
    copying: Tensor | None


class WriterDecoder(PreTrainedModel):
    """h_t = f(h_{t-1}, y_{t-1}, β_t c_t), c_t = Σ_j α_tj m_j attended with h_{t-1}, β_t = σ(w_β h_{t-1}) or 1;
    out_t = tanh(W [h_t ; β_t c_t ; y_{t-1}]) (Bahdanau 2015, appendix A.2.2; Xu 2015, section 4.2.1).

    A pointer copies with probability 1 - p_gen, p_gen = σ(w [c_t ; h_t ; y_{t-1}]) (See 2017, eq. 8). The first state
    is tanh(W mean_j m_j).
    """

    config_class = WriterConfig
    _supports_sdpa = True
    _init_weights = RecurrentBase._init_weights

    def __init__(self, config: WriterConfig) -> None:
        super().__init__(config)
        hidden, words, memory = config.hidden_size, config.embedding_size, config.memory_size
        self.embed_tokens = nn.Embedding(config.vocab_size, words, config.pad_token_id)
        self.begin = nn.Linear(memory, hidden)
        self.attention = WriterAttention(config)
        self.gate = nn.Linear(hidden, 1) if config.gate else None
        self.cell = Cell(config.cell, words, memory, hidden)
        self.out = nn.Linear(hidden + memory + words, words)
        self.pointer = nn.Linear(memory + hidden + words, 1) if config.pointer else None
        self.post_init()

    def start(self, states: Tensor, valid: Tensor | None, ids: Tensor | None) -> Progress:
        """Nothing written yet."""
        if valid is None:
            mean = states.mean(1)
        else:
            mean = (states * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        first = self.cell.start(torch.tanh(self.begin(mean)))
        return Progress(first, states.new_zeros(states.shape[:2]), 0, self.attention.memory(states, valid, ids))

    def forward(self, input_ids: Tensor, progress: Progress) -> tuple[Steps, Progress]:
        """The words before each step [B,T], from `progress` on."""
        config, memory = self.config, progress.memory
        words = dropout(self.embed_tokens(input_ids), config.dropout, self.training)
        state, before, looks, products = progress.state, progress.weights, [], self.cell.products()
        seen, states = [], []
        for step, gates in enumerate(self.cell.project(words).unbind(1)):
            look = self.attention.look(state[0], memory, before, progress.steps + step)
            context = (look.weights[:, None] @ memory.values)[:, 0]
            if self.gate is not None:
                context = torch.sigmoid(self.gate(state[0])) * context
            state, before = self.cell.step(gates, context, state, products), look.weights
            looks.append(look)
            seen.append(context)
            states.append(state[0])
        self.attention.show(torch.stack([look.scores for look in looks], 1), memory, progress.steps)
        after = replace(progress, state=state, weights=before, steps=progress.steps + len(looks))
        return self._steps(looks, torch.stack(seen, 1), torch.stack(states, 1), words), after

    def _steps(self, looks: list[Look], contexts: Tensor, states: Tensor, words: Tensor) -> Steps:
        drawn = [look.log_drawn for look in looks if look.log_drawn is not None]
        joined = torch.cat([states, contexts, words], -1)
        copying = None
        if self.pointer is not None:
            copying = torch.sigmoid(-self.pointer(torch.cat([contexts, states, words], -1)))[..., 0]
        out = dropout(torch.tanh(self.out(joined)), self.config.dropout, self.training)
        weights = torch.stack([look.weights for look in looks], 1)
        return Steps(out, weights, torch.stack(drawn, 1) if drawn else None, copying)
