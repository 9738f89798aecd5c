"""Configurations of the encoder–decoders that regard trains."""

from __future__ import annotations

from transformers import MarianConfig, PreTrainedConfig

from regard.errors import UserError

SCORES = ("none", "additive", "dot", "general", "concat", "local_m", "local_p")
CELLS = ("gru", "lstm")
ORDERS = ("bahdanau", "luong")


class RecurrentConfig(PreTrainedConfig):
    """A recurrent encoder–decoder.

    attention: the score between decoder state and encoder states, one of SCORES ("none": the last encoder state
    alone). order: "bahdanau" attends with the state before a step and feeds the context into it; "luong" attends with
    the state after it. input_feeding: Luong's h̃ goes into the next step. mechanism: text form of what surrounds the
    score, such as "entmax(1.5)". reach: tokens to either side of a local window. Widths: embedding_size of words,
    hidden_size of one direction of the encoder and of the decoder, attention_size between query and key.
    """

    model_type = "regard_recurrent"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  (transformers' own form)
    attribute_map = {"num_hidden_layers": "encoder_layers"}  # noqa: RUF012

    vocab_size: int = 8000
    embedding_size: int = 256
    hidden_size: int = 256
    attention_size: int = 256
    encoder_layers: int = 1
    cell: str = "gru"
    attention: str = "additive"
    order: str = "bahdanau"
    input_feeding: bool = False
    mechanism: str = "scaled_dot"
    reach: int = 5
    dropout: float = 0.2
    max_position_embeddings: int = 1024
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    decoder_start_token_id: int = 2
    use_cache: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        for name, known in (("attention", SCORES), ("cell", CELLS), ("order", ORDERS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.input_feeding and self.order != "luong":
            raise UserError("input feeding belongs to order='luong'; Bahdanau's decoder feeds the context instead")


class TransformerConfig(MarianConfig):
    """Marian's configuration, and the mechanisms of its three attentions as text forms.

    self_mechanism: of the encoder; causal_mechanism: of the decoder, ANDed with causal; cross_mechanism: of the
    decoder's attention to the encoder.
    """

    model_type = "regard_transformer"

    self_mechanism: str = "scaled_dot"
    causal_mechanism: str = "scaled_dot"
    cross_mechanism: str = "scaled_dot"
