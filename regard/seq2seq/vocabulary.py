"""Subword vocabularies, trained with the tokenizers library and saved as a transformers tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from regard.errors import UserError

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIAL = [PAD, UNKNOWN, START, END]
KINDS = ("bpe", "unigram")


def trained(text: Iterable[str], size: int, kind: str = "bpe", limit: int = 256) -> PreTrainedTokenizerFast:
    """A vocabulary of at most `size` pieces of one text or of both sides together; each sequence ends with </s>.

    kind: "bpe" (Sennrich 2016) or "unigram" (Kudo 2018). Characters that the text does not hold become <unk>.
    """
    if kind not in KINDS:
        raise UserError(f"a tokenizer is one of {', '.join(KINDS)}, not {kind!r}")
    if size < 64:
        raise UserError(f"a vocabulary holds at least 64 pieces, got {size}")
    if kind == "bpe":
        made = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True))
        trainer: Any = trainers.BpeTrainer(
            vocab_size=size, special_tokens=SPECIAL, min_frequency=2, show_progress=False
        )
    else:
        made = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=SPECIAL, unk_token=UNKNOWN, show_progress=False
        )
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")])
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(text, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=None, special_tokens=[(END, SPECIAL.index(END))]
    )
    return _wrapped(made, limit)


def trained_bytes(text: Iterable[str], size: int, limit: int = 256) -> PreTrainedTokenizerFast:
    """A byte-level BPE for plain text: anything can be encoded, and each text begins with <s>."""
    if size < len(SPECIAL) + 256:
        raise UserError(f"a vocabulary of bytes holds at least {len(SPECIAL) + 256} pieces, got {size}")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(text, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=None, special_tokens=[(START, SPECIAL.index(START))]
    )
    return _wrapped(made, limit)


def _wrapped(made: Tokenizer, limit: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_max_length=limit,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
