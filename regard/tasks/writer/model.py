"""The writers as transformers models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from regard.errors import UserError
from regard.seq2seq.base import GeneratesInSteps, RecurrentBase
from regard.seq2seq.encoder import RecurrentEncoder
from regard.tasks.writer.config import CaptionConfig, ListenConfig, SummaryConfig, WriterConfig
from regard.tasks.writer.decoder import Progress, Steps, WriterDecoder
from regard.tasks.writer.encoders import Encoded, PictureEncoder, SpeechEncoder


class Writer(PreTrainedModel, GeneratesInSteps, GenerationMixin):  # type: ignore[misc]
    """An encoder, and a recurrent decoder that attends to its states.

    P(w) = softmax(W out); with a pointer P(w) = p_gen softmax(W out)_w + (1 - p_gen) Σ_{j: x_j = w} α_j (See 2017,
    eq. 9), whose logarithms are the logits.
    """

    config_class = WriterConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _init_weights = RecurrentBase._init_weights
    encoder: PreTrainedModel

    def __init__(self, config: WriterConfig) -> None:
        super().__init__(config)
        self.encoder = self._encoder(config)
        self.decoder = WriterDecoder(config)
        self.lm_head = nn.Linear(config.embedding_size, config.vocab_size)
        self.post_init()

    def _encoder(self, config: Any) -> PreTrainedModel:
        raise NotImplementedError

    def get_encoder(self, modality: str | None = None) -> PreTrainedModel:
        return self.encoder

    def get_decoder(self) -> WriterDecoder:
        return self.decoder

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Encoded | None = None,
        past_key_values: Progress | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **inputs: Any,
    ) -> Seq2SeqLMOutput:
        """The encoder's inputs; decoder_input_ids [B,T] -> logits [B,T,vocabulary]; labels of -100 are left out."""
        encoded = self.encode(inputs) if encoder_outputs is None else encoder_outputs
        if decoder_input_ids is None:
            if labels is None:
                raise UserError("a decoder reads decoder_input_ids, or labels to make them of; give one of them")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        steps, past = self.steps(decoder_input_ids, encoded, past_key_values)
        logits = self.logits(steps, past)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past if use_cache is not False else None,  # type: ignore[arg-type]
            encoder_last_hidden_state=encoded.last_hidden_state,
        )

    def encode(self, inputs: dict[str, Any]) -> Encoded:
        """The encoder's states of a batch's inputs."""
        encoded: Encoded = self.encoder(**{name: value for name, value in inputs.items() if value is not None})
        return encoded

    def start(self, encoded: Encoded) -> Progress:
        """Nothing written yet."""
        assert encoded.last_hidden_state is not None
        return self.decoder.start(encoded.last_hidden_state, encoded.mask, encoded.ids)

    def steps(self, words: Tensor, encoded: Encoded, past: Progress | None = None) -> tuple[Steps, Progress]:
        """The decoder's steps over the words before each, [B,T]."""
        steps, after = self.decoder(words, self.start(encoded) if past is None else past)
        return steps, after

    def logits(self, steps: Steps, past: Progress) -> Tensor:
        """[B,T,vocabulary]; with a pointer, log P."""
        logits = self.lm_head(steps.out)
        ids = past.memory.ids
        if steps.copying is None or ids is None:
            return logits
        copying = steps.copying[..., None]
        chances = (1 - copying) * logits.softmax(-1)
        copied = (copying * steps.weights).to(chances.dtype)
        return chances.scatter_add(2, ids[:, None].expand_as(copied), copied).clamp(min=1e-9).log()


class Captioner(Writer):
    """Show, Attend and Tell (Xu 2015): patches of a picture in, a caption out."""

    config_class = CaptionConfig
    main_input_name = "pixel_values"

    def _encoder(self, config: CaptionConfig) -> PreTrainedModel:
        return PictureEncoder(config)


class Listener(Writer):
    """Speech in, a transcript out (Chorowski 2015)."""

    config_class = ListenConfig
    main_input_name = "input_values"

    def _encoder(self, config: ListenConfig) -> PreTrainedModel:
        return SpeechEncoder(config)


class TextEncoder(RecurrentEncoder):
    """The recurrent encoder of a text, which keeps the words for the pointer."""

    config_class = SummaryConfig  # type: ignore[assignment]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **unused: Any) -> Encoded:  # type: ignore[override]
        """input_ids, attention_mask [B,S] -> states [B,S,2 · hidden]."""
        states = super().forward(input_ids, attention_mask).last_hidden_state
        return Encoded(states, None if attention_mask is None else attention_mask.bool(), input_ids)


class Summariser(Writer):
    """A text in, a summary out, words of the text copied by a pointer (See 2017)."""

    config_class = SummaryConfig
    main_input_name = "input_ids"

    def _encoder(self, config: SummaryConfig) -> PreTrainedModel:
        return TextEncoder(config)  # type: ignore[arg-type]


@torch.no_grad()
def written(model: Writer, inputs: dict[str, Tensor], longest: int) -> tuple[list[list[int]], Tensor]:
    """Greedy texts without their end token, and the weights [B,T,S] of every step, the end's among them."""
    encoded = model.encode(inputs)
    past = model.start(encoded)
    rows = past.weights.shape[0]
    words = torch.full((rows, 1), model.config.decoder_start_token_id, device=past.weights.device)
    ids, weights = [], []
    ended = torch.zeros(rows, dtype=torch.bool, device=words.device)
    for _ in range(longest):
        steps, past = model.steps(words, encoded, past)
        words = model.logits(steps, past)[:, -1].argmax(-1, keepdim=True)
        ids.append(words[:, 0])
        weights.append(steps.weights[:, 0])
        ended |= words[:, 0] == model.config.eos_token_id
        if bool(ended.all()):
            break
    found = []
    for row in torch.stack(ids, 1).tolist():
        found.append(row[: row.index(model.config.eos_token_id)] if model.config.eos_token_id in row else row)
    return found, torch.stack(weights, 1)
