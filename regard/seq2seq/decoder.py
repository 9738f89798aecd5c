"""The recurrent decoder: without attention, as Bahdanau's, or as Luong's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from regard.mechanism import Mechanism
from regard.seq2seq.alignment import AlignmentAttention, Memory
from regard.seq2seq.base import RecurrentBase
from regard.seq2seq.cells import Cell, State
from regard.seq2seq.config import RecurrentConfig
from regard.seq2seq.encoder import last_states
from regard.seq2seq.unrolled import SharedLinear, trains


@dataclass(eq=False)
class Progress:
    """How far a sentence has been written: the cell's state, h̃ to feed [B,E], the number of steps, the memory.

    transformers' generate carries it as past_key_values and reorders it with its beams.
    """

    state: State
    fed: Tensor | None
    steps: int
    memory: Memory | None
    summary: Tensor

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens written so far."""
        return self.steps

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i continues what row beam_idx[i] was; beams stay within their sentence, so the memory needs no move."""
        self.state = tuple(part.index_select(0, beam_idx) for part in self.state)
        self.fed = None if self.fed is None else self.fed.index_select(0, beam_idx)


class RecurrentDecoder(RecurrentBase):
    """p(y_t | y_<t, x) through s_t = f(s_{t-1}, y_{t-1}, c_t).

    order "bahdanau": c_t attends with s_{t-1}; out_t = tanh(W [s_t ; c_t ; y_{t-1}]) (2015, appendix A.2.2, with tanh
    for maxout). order "luong": c_t attends with s_t; out_t = h̃_t = tanh(W [c_t ; s_t]), fed into the next step with
    input feeding (2015, eq. 5 and section 3.3). attention "none": c_t is the encoder's last state at every step (Cho
    2014). Logits are out_t W_Eᵀ.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        hidden, words = config.hidden_size, config.embedding_size
        self.bahdanau = config.order == "bahdanau"
        self.embed_tokens = nn.Embedding(config.vocab_size, words, config.pad_token_id)
        self.begin = nn.Linear(2 * hidden, hidden)
        self.attention = None if config.attention == "none" else AlignmentAttention(config)
        extra = 2 * hidden if self.bahdanau else words if config.input_feeding else 0
        self.cell = Cell(config.cell, words, extra, hidden)
        self.out = nn.Linear(3 * hidden + (words if self.bahdanau else 0), words)
        self.post_init()

    def start(self, states: Tensor, attention_mask: Tensor | None) -> Progress:
        """Nothing written yet: s_0 = tanh(W [h→_S ; h←_1]). states: the encoder's [B,S,2 · hidden]."""
        summary = last_states(states, attention_mask)
        memory = None
        if self.attention is not None:
            valid = None if attention_mask is None else attention_mask.bool()
            memory = self.attention.memory(states, valid)
        fed = None
        if self.config.input_feeding:
            fed = states.new_zeros(states.shape[0], self.config.embedding_size)
        return Progress(self.cell.start(torch.tanh(self.begin(summary))), fed, 0, memory, summary)

    def forward(self, input_ids: Tensor, progress: Progress) -> tuple[Tensor, Progress]:
        """The words before each step [B,T], from `progress` on -> out [B,T,E], and how far that leads."""
        words = dropout(self.embed_tokens(input_ids), self.config.dropout, self.training)
        run = self._bahdanau if self.bahdanau else self._luong
        out, queries, progress = run(words, progress)
        if self.attention is not None and progress.memory is not None:
            self.attention.show(queries, progress.memory, progress.steps - input_ids.shape[1])
        return dropout(out, self.config.dropout, self.training), progress

    def written(self, tokens: Tensor, progress: Progress, beams: int) -> tuple[Tensor, Progress]:
        """One step of N = sentences · beams rows whose memory is one per sentence: tokens [N] -> out [N,E]."""
        words = self.embed_tokens(tokens)
        gates, state, mechanism = self.cell.project(words), progress.state, self._mechanism()
        products = self.cell.products()

        def context(h: Tensor) -> Tensor:
            rows = h.view(-1, beams, h.shape[-1])
            shaped = replace(progress, summary=progress.summary.view(rows.shape[0], beams, -1))
            return self._context(rows, shaped, progress.steps, mechanism, together=True).reshape(h.shape[0], -1)

        fed = progress.fed
        if self.bahdanau:
            seen = context(state[0])
            state = self.cell.step(gates, seen, state, products)
            out = torch.tanh(self.out(torch.cat([state[0], seen, words], -1)))
        else:
            state = self.cell.step(gates, fed, state, products)
            out = torch.tanh(self.out(torch.cat([context(state[0]), state[0]], -1)))
            fed = None if fed is None else out
        return out, replace(progress, state=state, fed=fed, steps=progress.steps + 1)

    def _bahdanau(self, words: Tensor, progress: Progress) -> tuple[Tensor, Tensor, Progress]:
        projected = self.cell.project(words).unbind(1)
        state, attend, products = progress.state, self._attending(progress), self.cell.products()
        queries, contexts, states = [], [], []
        for step, gates in enumerate(projected):
            queries.append(state[0])
            context = attend(state[0], progress.steps + step)
            state = self.cell.step(gates, context, state, products)
            contexts.append(context)
            states.append(state[0])
        seen = torch.cat([torch.stack(states, 1), torch.stack(contexts, 1), words], -1)
        after = replace(progress, state=state, steps=progress.steps + len(projected))
        return torch.tanh(self.out(seen)), torch.stack(queries, 1), after

    def _luong(self, words: Tensor, progress: Progress) -> tuple[Tensor, Tensor, Progress]:
        projected = self.cell.project(words).unbind(1)
        state, fed, products = progress.state, progress.fed, self.cell.products()
        attend = self._attending(progress)
        join = SharedLinear(self.out.weight, self.out.bias) if trains(self) else self.out
        states, outs = [], []
        for step, gates in enumerate(projected):
            state = self.cell.step(gates, fed, state, products)
            states.append(state[0])
            if fed is not None:
                context = attend(state[0], progress.steps + step)
                fed = torch.tanh(join(torch.cat([context, state[0]], -1)))
                outs.append(fed)
        queries = torch.stack(states, 1)
        out = torch.stack(outs, 1) if outs else self._attended(queries, progress, progress.steps)
        return out, queries, replace(progress, state=state, fed=fed, steps=progress.steps + len(projected))

    def _attended(self, queries: Tensor, progress: Progress, first: int) -> Tensor:
        """h̃ = tanh(W [c ; s]) of all steps at once: [B,T,hidden] -> [B,T,E]."""
        context = self._context(queries, progress, first, self._mechanism())
        return torch.tanh(self.out(torch.cat([context, queries], -1)))

    def _attending(self, progress: Progress) -> Callable[[Tensor, int], Tensor]:
        """What a loop over steps calls: a state [B,hidden] and the number of its step -> c [B,2 · hidden]."""
        if self.attention is not None and progress.memory is not None and trains(self):
            shared = self.attention.shared(progress.memory)
            if shared is not None:
                return lambda state, step: shared(state)
        mechanism = self._mechanism()
        return lambda state, step: self._context(state[:, None], progress, step, mechanism)[:, 0]

    def _context(
        self, queries: Tensor, progress: Progress, first: int, mechanism: Mechanism | None, together: bool = False
    ) -> Tensor:
        """c of queries [B,T,hidden] of the steps from `first` on; together: they are rows of one step."""
        if self.attention is None or progress.memory is None:
            return progress.summary if together else progress.summary[:, None].expand(-1, queries.shape[1], -1)
        steps = torch.arange(queries.shape[1], device=queries.device) * (0 if together else 1) + first
        return self.attention(queries, progress.memory, steps, mechanism)

    def _mechanism(self) -> Mechanism | None:
        return None if self.attention is None else self.attention.mechanism()
