"""Configurations of the writers."""

from __future__ import annotations

from transformers import PreTrainedConfig

from regard.errors import UserError

SCORES = ("content", "location", "local_m", "soft", "hard")


class WriterConfig(PreTrainedConfig):
    """An encoder and a recurrent decoder that attends to it.

    attention: "content" or "soft" scores states alone (Bahdanau 2015), "location" also features of the weights before
    (Chorowski 2015) and, once trained, looks from `back` states before to `ahead` states after the median of the
    weights before (his windowing, for sounds longer than those of the training). "local_m" looks within `reach` states
    of `pace` times the step (after Luong 2015), "hard" at one state (Xu 2015). gate: the context is weighed by σ(w h)
    (Xu 2015, section 4.2.1). pointer: words may be copied from the source (See 2017). filters, filter_width: of the
    location features. memory_size: width of the encoder's states.
    """

    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  (transformers' own form)

    vocab_size: int = 64
    embedding_size: int = 64
    hidden_size: int = 96
    attention_size: int = 64
    memory_size: int = 96
    attention: str = "content"
    gate: bool = False
    pointer: bool = False
    filters: int = 8
    filter_width: int = 31
    back: int = 5
    ahead: int = 30
    pace: float = 12.0
    reach: int = 30
    cell: str = "gru"
    dropout: float = 0.2
    max_position_embeddings: int = 512
    max_target_positions: int = 64
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = 0
    unk_token_id: int = 1
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    decoder_start_token_id: int = 2
    use_cache: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        if self.attention not in SCORES:
            raise UserError(f"attention is one of {', '.join(SCORES)}, not {self.attention!r}")


class CaptionConfig(WriterConfig):
    """A captioner: convolutions cut a picture of image_size into patches of patch_size, a power of 2."""

    model_type = "regard_captioner"

    image_size: int = 48
    patch_size: int = 8
    channels: int = 32


class ListenConfig(WriterConfig):
    """A listener: log-mel bands of `window` samples every `hop`, two convolutions with stride 2, a recurrent encoder of
    encoder_size units a direction."""

    model_type = "regard_listener"

    sampling_rate: int = 8000
    window: int = 200
    hop: int = 80
    bands: int = 40
    channels: int = 64
    encoder_size: int = 96
    hidden_bands: float = 0.0


class SummaryConfig(WriterConfig):
    """A summariser: words in, a recurrent encoder, words out or copied."""

    model_type = "regard_summariser"

    encoder_layers: int = 1
