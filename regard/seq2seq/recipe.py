"""All that decides what a training gives, and the models that presets name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, MarianConfig, MarianMTModel, PreTrainedModel

from regard.errors import UserError
from regard.seq2seq.config import RecurrentConfig, TransformerConfig
from regard.seq2seq.recurrent import RecurrentTranslator
from regard.seq2seq.transformer import Transformer

LUONG = {"order": "luong", "attention": "general", "input_feeding": True}
RECURRENT: dict[str, dict[str, Any]] = {
    "rnn": {"attention": "none"},
    "bahdanau": {"attention": "additive"},
    "luong": LUONG,
}
PRESETS = (*RECURRENT, "transformer", "lm")
RATES = {"lm": 2e-3}


@dataclass(frozen=True)
class Recipe:
    """How a model is made and trained; two trainings with the same recipe and text give the same weights.

    preset: one of PRESETS; start: a directory to go on from instead. attention, cell, mechanism: of a recurrent
    preset, the last also of a Transformer's cross-attention. width, layers (0: the preset's), heads, feed_forward
    (0: twice the width): of the model. dropout. vocabulary, tokenizer: pieces and kind. tokens: padded tokens of a
    batch's longer side. rate: Adam's peak (0: the preset's), after `warmup` steps, then falling as 1/√step.
    smoothing: of labels. clip: largest norm of the gradient. average: decay of the running mean of the weights that
    is evaluated and kept, 0 for none. evaluate: steps between evaluations, 0 for every epoch; patience: evaluations
    without a better score before it ends; epochs: at most. limit: tokens of a sentence, longer ones are cut; of a row
    of plain text. precision: "no" (float32) or "bf16". repeats: share of a language model's rows that say a passage
    twice.
    """

    preset: str = "transformer"
    start: str | None = None
    mechanism: str | None = None
    attention: str | None = None
    cell: str = "gru"
    width: int = 256
    layers: int = 0
    heads: int = 4
    feed_forward: int = 0
    dropout: float = 0.3
    vocabulary: int = 8000
    tokenizer: str = "bpe"
    tokens: int = 4096
    rate: float = 0.0
    warmup: int = 800
    smoothing: float = 0.1
    clip: float = 1.0
    average: float = 0.998
    evaluate: int = 0
    patience: int = 8
    epochs: int = 60
    limit: int = 256
    seed: int = 1
    precision: str = "no"
    repeats: float = 0.25

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(f"a preset is one of {', '.join(PRESETS)}, not {self.preset!r}")
        self.check_numbers()

    def check_numbers(self) -> None:
        """Raise UserError for a number that no training can have."""
        for name in ("width", "heads", "vocabulary", "tokens", "warmup", "patience", "epochs", "limit"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is at least 1, got {getattr(self, name)}")
        for name in ("dropout", "smoothing", "average", "repeats"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} lies in [0, 1), got {getattr(self, name)}")

    @property
    def depth(self) -> int:
        """Layers of the model."""
        return self.layers or (1 if self.preset in RECURRENT else 3)

    @property
    def peak(self) -> float:
        """Adam's highest rate."""
        return self.rate or RATES.get(self.preset, 1e-3)

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from 1: r min(step / warmup, √(warmup / step)) (Vaswani 2017, eq. 3's shape)."""
        return self.peak * min(step / self.warmup, (self.warmup / step) ** 0.5)

    def json(self) -> str:
        """The recipe as JSON."""
        return json.dumps(asdict(self), indent=1)

    def check_same(self, kept: str, where: Path) -> None:
        """Raise UserError where a training under way was begun with another recipe."""
        before = json.loads(kept)
        for field in fields(self):
            if field.name == "precision":  # how it is computed; it may change from one call to the next
                continue
            was, now = before.get(field.name, field.default), getattr(self, field.name)
            if was != now:
                raise UserError(
                    f"{where} holds a training with {field.name} {was}, and now {now} is asked for; give the same, or "
                    "another directory"
                )


def model_of(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    """The preset's model with random weights, for a vocabulary of so many pieces (pad 0, unk 1, start 2, end 3)."""
    if recipe.preset in RECURRENT:
        return _recurrent(recipe, vocabulary)
    if recipe.preset == "lm":
        return _language_model(recipe, vocabulary)
    return _transformer(recipe, vocabulary)


def _recurrent(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    chosen = RECURRENT[recipe.preset] | ({"attention": recipe.attention} if recipe.attention else {})
    config = RecurrentConfig(
        vocab_size=vocabulary,
        embedding_size=recipe.width,
        hidden_size=recipe.width,
        attention_size=recipe.width,
        encoder_layers=recipe.depth,
        cell=recipe.cell,
        mechanism=recipe.mechanism or "scaled_dot",
        dropout=recipe.dropout,
        max_position_embeddings=recipe.limit,
        **chosen,
    )
    return RecurrentTranslator(config)


def _transformer(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    inner = recipe.feed_forward or 2 * recipe.width
    shape: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", recipe.depth), ("attention_heads", recipe.heads), ("ffn_dim", inner))
    }
    shape |= {"vocab_size": vocabulary, "d_model": recipe.width, "max_position_embeddings": recipe.limit}
    shape |= {"dropout": recipe.dropout, "attention_dropout": 0.0, "activation_dropout": 0.0}
    shape |= {"activation_function": "relu", "scale_embedding": True, "init_std": recipe.width**-0.5}
    shape |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    shape |= {"forced_eos_token_id": None}
    if recipe.width % recipe.heads:
        raise UserError(f"a width of {recipe.width} does not divide into {recipe.heads} heads; choose a divisor")
    if recipe.mechanism:
        return Transformer(TransformerConfig(cross_mechanism=recipe.mechanism, **shape))
    return MarianMTModel(MarianConfig(**shape))


def _language_model(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward or 2 * recipe.width,
        num_hidden_layers=recipe.depth,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.limit,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config)
