"""The recurrent encoder–decoder as a transformers model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from regard.errors import UserError
from regard.seq2seq.base import GeneratesInSteps, RecurrentBase
from regard.seq2seq.config import RecurrentConfig
from regard.seq2seq.decoder import Progress, RecurrentDecoder
from regard.seq2seq.encoder import RecurrentEncoder


class RecurrentTranslator(RecurrentBase, GeneratesInSteps, GenerationMixin):  # type: ignore[misc]
    """A recurrent encoder–decoder with or without attention (Cho 2014, Bahdanau 2015, Luong 2015), by its config.

    Encoder, decoder and output share one table of words where config.tie_word_embeddings.
    """

    _tied_weights_keys = {  # noqa: RUF012  (transformers' own form)
        "encoder.embed_tokens.weight": "lm_head.weight",
        "decoder.embed_tokens.weight": "lm_head.weight",
    }

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.encoder = RecurrentEncoder(config)
        self.decoder = RecurrentDecoder(config)
        self.lm_head = nn.Linear(config.embedding_size, config.vocab_size)
        nn.init.zeros_(self.lm_head.bias)
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> RecurrentEncoder:
        return self.encoder

    def get_decoder(self) -> RecurrentDecoder:
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor] | None = None,
        past_key_values: Progress | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> Seq2SeqLMOutput:
        """input_ids, attention_mask [B,S]; decoder_input_ids [B,T] -> logits [B,T,vocabulary]; -100 in labels is left
        out of the loss."""
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states = encoder_outputs[0]
        if decoder_input_ids is None:
            if labels is None:
                raise UserError("a decoder reads decoder_input_ids, or labels to make them of; give one of them")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        hidden, past = self.hidden(decoder_input_ids, states, attention_mask, past_key_values)
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past if use_cache is not False else None,  # type: ignore[arg-type]
            encoder_last_hidden_state=states,
        )

    def hidden(
        self, decoder_input_ids: Tensor, states: Tensor, attention_mask: Tensor | None, past: Progress | None = None
    ) -> tuple[Tensor, Progress]:
        """What the output layer reads, [B,T,E]: forward without its last product."""
        if past is None:
            past = self.decoder.start(states, attention_mask)
        return self.decoder(decoder_input_ids, past)
