"""What training lowers: the smoothed cross-entropy of a batch, for every model by its own shortest way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, MarianMTModel, PreTrainedModel

from regard.seq2seq.batches import Examples, padded
from regard.seq2seq.loss import smoothed_cross_entropy
from regard.seq2seq.recurrent import RecurrentTranslator

Batch = dict[str, Tensor]


def batch_of(examples: Examples, rows: Sequence[int], pad: int, causal: bool) -> Batch:
    """The tensors of some examples: source, its mask, and labels with -100 for padding. int64 [N, longest]."""
    target = padded([examples.target[row] for row in rows], pad)
    labels = target.masked_fill(_padding(target, [len(examples.target[row]) for row in rows]), -100)
    if causal:
        return {"labels": labels}
    source = padded([examples.source[row] for row in rows], pad)
    empty = _padding(source, [len(examples.source[row]) for row in rows])
    return {"source": source, "mask": (~empty).long(), "labels": labels}


def _padding(ids: Tensor, lengths: list[int]) -> Tensor:
    return torch.arange(ids.shape[1]) >= torch.tensor(lengths)[:, None]


class Objective(nn.Module):
    """Σ over a batch's labels of the cross-entropy with label smoothing ε (Szegedy 2016, section 7).

    It is a module so that accelerate can wrap it for several devices.
    """

    def __init__(self, model: PreTrainedModel, smoothing: float) -> None:
        super().__init__()
        self.model, self.smoothing = model, smoothing

    def forward(self, labels: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """labels [N,T], source and mask [N,S] -> the summed loss, float32."""
        if source is None or mask is None:
            return self._causal(labels)
        known = labels != -100
        model = self.model
        if type(model) is MarianMTModel:
            before = model.prepare_decoder_input_ids_from_labels(labels)
            found = model.model(input_ids=source, attention_mask=mask, decoder_input_ids=before, use_cache=False)
            head = (model.lm_head.weight, model.final_logits_bias[0])
            return smoothed_cross_entropy(found.last_hidden_state[known], *head, labels[known], self.smoothing)
        if isinstance(model, RecurrentTranslator):
            states = model.encoder(input_ids=source, attention_mask=mask).last_hidden_state
            hidden, _ = model.hidden(model.prepare_decoder_input_ids_from_labels(labels), states, mask)
            head = (model.lm_head.weight, model.lm_head.bias)
            return smoothed_cross_entropy(hidden[known], *head, labels[known], self.smoothing)
        logits = model(input_ids=source, attention_mask=mask, labels=labels, use_cache=False).logits[known]
        return cross_entropy(logits.float(), labels[known], label_smoothing=self.smoothing, reduction="sum")

    def _causal(self, labels: Tensor) -> Tensor:
        """Each token from those before it; the first has none."""
        words, after = labels[:, :-1].clamp(min=0), labels[:, 1:]
        known = after != -100
        model = self.model
        if type(model) is LlamaForCausalLM:
            hidden = model.model(input_ids=words, use_cache=False).last_hidden_state[known]
            return smoothed_cross_entropy(hidden, model.lm_head.weight, None, after[known], self.smoothing)
        logits = model(input_ids=words, use_cache=False).logits[known]
        return cross_entropy(logits.float(), after[known], label_smoothing=self.smoothing, reduction="sum")
