"""The recurrent encoder: words to states, read in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers.modeling_outputs import BaseModelOutput

from regard.seq2seq.base import RecurrentBase
from regard.seq2seq.config import RecurrentConfig
from regard.seq2seq.unrolled import both_directions, trains


class RecurrentEncoder(RecurrentBase):
    """h_j = [h→_j ; h←_j], a bidirectional GRU or LSTM over the words (Bahdanau 2015, section 3.2)."""

    main_input_name = "input_ids"

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size, config.pad_token_id)
        kind = nn.GRU if config.cell == "gru" else nn.LSTM
        self.rnn = kind(
            config.embedding_size,
            config.hidden_size,
            config.encoder_layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.encoder_layers > 1 else 0.0,
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **unused: Any) -> BaseModelOutput:
        """input_ids [B,S], attention_mask [B,S] (1 for words, padding on the right) -> states [B,S,2 · hidden]."""
        words = dropout(self.embed_tokens(input_ids), self.config.dropout, self.training)
        if attention_mask is None:
            states = self.rnn(words)[0]
        elif self._loops():
            states = both_directions(self.rnn, words, attention_mask.sum(1).clamp(min=1))
        else:
            lengths = attention_mask.sum(1).clamp(min=1).cpu()
            packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=input_ids.shape[1])
        return BaseModelOutput(last_hidden_state=dropout(states, self.config.dropout, self.training))

    def _loops(self) -> bool:
        """Whether a training on a processor takes the loop whose weights' gradients are taken once."""
        plain = self.config.cell == "gru" and self.config.encoder_layers == 1
        return plain and trains(self) and self.embed_tokens.weight.device.type == "cpu"


def last_states(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """[h→ at the last word ; h← at the first]: what a reader of the whole sentence remembers. [B,2 · hidden]."""
    width = states.shape[-1] // 2
    if attention_mask is None:
        return torch.cat([states[:, -1, :width], states[:, 0, width:]], -1)
    last = (attention_mask.sum(1) - 1).clamp(min=0)
    rows = torch.arange(states.shape[0], device=states.device)
    return torch.cat([states[rows, last, :width], states[:, 0, width:]], -1)
