"""A recurrent encoder with attention pooling, as a transformers model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from regard.hf.seam import show
from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.scores import Dot
from regard.seq2seq.base import RecurrentBase
from regard.seq2seq.encoder import RecurrentEncoder

SOURCE = "Yang et al. 2016, Hierarchical Attention Networks, eq. 5-7"


class PooledConfig(PreTrainedConfig):
    """Widths: embedding_size of words, hidden_size of one direction, attention_size of u. hidden_words: share of words
    that training replaces by the unknown one."""

    model_type = "regard_pooled"

    vocab_size: int = 8000
    embedding_size: int = 128
    hidden_size: int = 96
    attention_size: int = 96
    encoder_layers: int = 1
    cell: str = "gru"
    dropout: float = 0.5
    hidden_words: float = 0.0
    unk_token_id: int = 1
    max_position_embeddings: int = 512
    pad_token_id: int | None = 0


class PooledAttention(nn.Module):
    """α = softmax_i(u_wᵀ tanh(W h_i + b)), s = Σ_i α_i h_i (Yang 2016, eq. 5-7)."""

    is_cross_attention = True
    is_causal = False
    layer_idx = 0

    def __init__(self, width: int, attention: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, attention)
        self.context = nn.Parameter(torch.empty(attention))
        nn.init.normal_(self.context, std=attention**-0.5)

    def mechanism(self) -> Mechanism:
        """The record that reads it: dot products of u_w with tanh(W h + b), unscaled."""
        return mechanism_with("attention pooling", SOURCE, score=(Dot(1.0),))

    def pool(self, states: Tensor, valid: Tensor | None) -> Tensor:
        """states [B,S,V], valid bool [B,S] -> [B,V]."""
        keys = torch.tanh(self.key(states))
        scores = keys @ self.context
        weights = (scores if valid is None else scores.masked_fill(~valid, float("-inf"))).softmax(-1)
        query = self.context.expand(states.shape[0], 1, 1, -1)
        show(self, self.mechanism(), query, keys[:, None], states[:, None], valid)
        return (weights[:, None] @ states)[:, 0]


class PooledClassifier(PreTrainedModel):
    """p(label | text) = softmax(W s + b), s pooled by attention over a bidirectional GRU or LSTM (Yang 2016)."""

    config_class = PooledConfig
    _supports_sdpa = True

    def __init__(self, config: PooledConfig) -> None:
        super().__init__(config)
        self.encoder = RecurrentEncoder(config)  # type: ignore[arg-type]
        self.pooling = PooledAttention(2 * config.hidden_size, config.attention_size)
        self.classifier = nn.Linear(2 * config.hidden_size, int(config.num_labels or 0))
        self.post_init()

    _init_weights = RecurrentBase._init_weights

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **unused: Any,
    ) -> SequenceClassifierOutput:
        """input_ids, attention_mask [B,S] -> logits [B,labels]."""
        config = self.config
        if self.training and config.hidden_words:
            hide = torch.rand(input_ids.shape, device=input_ids.device) < config.hidden_words
            input_ids = input_ids.masked_fill(hide & (input_ids != config.pad_token_id), config.unk_token_id)
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        valid = None if attention_mask is None else attention_mask.bool()
        pooled = dropout(self.pooling.pool(states, valid), config.dropout, self.training)
        logits = self.classifier(pooled)
        loss = None if labels is None else cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
