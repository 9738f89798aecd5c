"""Writing token by token, many sentences and several beams of each at a time, without a copy of the source per beam."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import MarianMTModel, PreTrainedModel

from regard.seq2seq.decoder import Progress
from regard.seq2seq.recurrent import RecurrentTranslator


class Writer(Protocol):
    """A decoder under way. Rows are sentences × beams, the beams of a sentence side by side."""

    def step(self, tokens: Tensor) -> Tensor:
        """The token written last in each row [N] -> logits of the next [N,V], float32."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row rows[i] was; rows stay within their sentence."""
        ...

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences alone, all beams of each."""
        ...


def writer(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, beams: int) -> Writer | None:
    """What writes with this model, the source already read; None for models whose own generate has to."""
    if isinstance(model, RecurrentTranslator):
        return RecurrentWriter(model, input_ids, attention_mask, beams)
    if type(model) is MarianMTModel:
        return TransformerWriter(model, input_ids, attention_mask, beams)
    return None


class RecurrentWriter:
    """The steps of a RecurrentTranslator; the beams of a sentence are the query rows of one attention call."""

    def __init__(self, model: RecurrentTranslator, input_ids: Tensor, attention_mask: Tensor, beams: int) -> None:
        self.model, self.decoder, self.beams = model, model.decoder, beams
        states = model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        begun = self.decoder.start(states, attention_mask)
        spread = lambda part: part.repeat_interleave(beams, 0)  # noqa: E731
        self.past = Progress(
            tuple(spread(part) for part in begun.state),
            None if begun.fed is None else spread(begun.fed),
            0,
            begun.memory,
            spread(begun.summary),
        )

    def step(self, tokens: Tensor) -> Tensor:
        hidden, self.past = self.decoder.written(tokens, self.past, self.beams)
        return self.model.lm_head(hidden).float()

    def reorder(self, rows: Tensor) -> None:
        self.past.reorder_cache(rows)

    def keep(self, sentences: Tensor) -> None:
        rows = _rows(sentences, self.beams)
        self.past.reorder_cache(rows)
        self.past.summary = self.past.summary.index_select(0, rows)
        if self.past.memory is not None:
            self.past.memory = self.past.memory.of(sentences)


def _rows(sentences: Tensor, beams: int) -> Tensor:
    return (sentences[:, None] * beams + torch.arange(beams, device=sentences.device)).flatten()


class TransformerWriter:
    """The steps of a Marian-shaped Transformer: one product for queries, keys and values, caches that grow in place.

    Keys and values of the source are made once per sentence; its beams are query rows of one attention call.
    """

    def __init__(self, model: MarianMTModel, input_ids: Tensor, attention_mask: Tensor, beams: int) -> None:
        self.model, self.decoder, self.beams = model, model.model.decoder, beams
        self.heads = model.config.decoder_attention_heads
        states = model.model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        self.layers = list(self.decoder.layers)
        self.joint = [_joined(layer.self_attn) for layer in self.layers]
        self.context = [_source(layer.encoder_attn, states, self.heads) for layer in self.layers]
        full = bool(attention_mask.all())
        self.allowed = None if full else attention_mask.bool()[:, None, None]
        self.steps, self.rows = 0, input_ids.shape[0] * beams
        self.cache: list[Tensor] = []
        self.head = (model.lm_head.weight, model.final_logits_bias[0])

    def step(self, tokens: Tensor) -> Tensor:
        self._grow()
        decoder = self.decoder
        x = decoder.embed_tokens(tokens) * decoder.embed_scale + decoder.embed_positions.weight[self.steps]
        for number, layer in enumerate(self.layers):
            x = layer.self_attn_layer_norm(x + self._own(number, x))
            x = layer.encoder_attn_layer_norm(x + self._other(number, x))
            x = layer.final_layer_norm(x + layer.fc2(layer.activation_fn(layer.fc1(x))))
        self.steps += 1
        weight, bias = self.head
        return (linear(x, weight) + bias).float()

    def _own(self, number: int, x: Tensor) -> Tensor:
        weight, bias = self.joint[number]
        made = linear(x, weight, bias).view(x.shape[0], 3, self.heads, -1)
        cache = self.cache[number]
        cache[:, :, :, self.steps] = made[:, 1:]
        k, v = cache[:, 0, :, : self.steps + 1], cache[:, 1, :, : self.steps + 1]
        out = scaled_dot_product_attention(made[:, 0, :, None], k, v)
        return self.layers[number].self_attn.out_proj(out.flatten(1))

    def _other(self, number: int, x: Tensor) -> Tensor:
        attention, (k, v) = self.layers[number].encoder_attn, self.context[number]
        q = attention.q_proj(x).view(-1, self.beams, self.heads, k.shape[-1]).transpose(1, 2)
        out = scaled_dot_product_attention(q, k, v, self.allowed)
        return attention.out_proj(out.transpose(1, 2).reshape(x.shape[0], -1))

    def _grow(self) -> None:
        """Room for another step: caches [N,2,heads,length,width] double when they are full."""
        if self.cache and self.steps < self.cache[0].shape[3]:
            return
        weight = self.joint[0][0]
        width = weight.shape[1] // self.heads
        length = max(32, 2 * self.steps)
        larger = [weight.new_zeros(self.rows, 2, self.heads, length, width) for _ in self.layers]
        for old, new in zip(self.cache, larger):
            new[:, :, :, : self.steps] = old[:, :, :, : self.steps]
        self.cache = larger

    def reorder(self, rows: Tensor) -> None:
        for cache in self.cache:
            cache[:, :, :, : self.steps] = cache[:, :, :, : self.steps].index_select(0, rows)

    def keep(self, sentences: Tensor) -> None:
        rows = _rows(sentences, self.beams)
        self.rows = rows.shape[0]
        self.cache = [cache.index_select(0, rows) for cache in self.cache]
        self.context = [(k[sentences], v[sentences]) for k, v in self.context]
        self.allowed = None if self.allowed is None else self.allowed[sentences]


def _joined(attention: nn.Module) -> tuple[Tensor, Tensor]:
    parts = [getattr(attention, name) for name in ("q_proj", "k_proj", "v_proj")]
    return torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])


def _source(attention: nn.Module, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    k, v = (
        getattr(attention, name)(states).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("k_proj", "v_proj")
    )
    return k.contiguous(), v.contiguous()
