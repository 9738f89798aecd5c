"""Vocabularies of whole words, for texts of few words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from regard.errors import UserError
from regard.seq2seq.vocabulary import END, SPECIAL, UNKNOWN


def word_tokenizer(texts: Sequence[str], size: int, limit: int) -> PreTrainedTokenizerFast:
    """Every word and mark of the texts a token; a text ends with </s>. Raises UserError for more than `size`."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    if len(words) + len(SPECIAL) > size:
        raise UserError(f"the texts hold {len(words)} words and marks; --vocabulary takes more than {size}")
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*SPECIAL, *words])}, unk_token=UNKNOWN))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = split
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=None, special_tokens=[(END, SPECIAL.index(END))]
    )
    pad, unknown, start, end = SPECIAL
    tokens = {"pad_token": pad, "unk_token": unknown, "bos_token": start, "eos_token": end}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=limit, padding_side="right", **tokens)


def labels_from(ids: Sequence[Sequence[int]]) -> Tensor:
    """Token ids as labels [N, longest], -100 behind the end."""
    longest = max(map(len, ids))
    return torch.tensor([[*each, *[-100] * (longest - len(each))] for each in ids])
