"""A tiny random model of every head, with what turns inputs into its tensors, saved as a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "dog",
    "ran",
    "in",
    "rain",
    "who",
    "what",
    "where",
    "is",
    "was",
    "big",
    "small",
    "red",
    "blue",
    "sun",
    "moon",
    "sky",
    "of",
)
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
TEXT = "the cat sat on a big red mat and the dog ran"
LABELS = {0: "bad", 1: "fair", 2: "good"}
NAMES = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
TAGS = {"id2label": {0: "O", 1: "B-THING", 2: "I-THING"}, "label2id": {"O": 0, "B-THING": 1, "I-THING": 2}}
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = {**SHAPE, "image_size": 20, "patch_size": 4}
SIDES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 1,
}


def tokenizer() -> Any:
    """Words as tokens, with BERT's special ones."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **names)


def _text(config: Any, **more: Any) -> Any:
    size = len(WORDS) + len(SPECIAL)
    return config(**SHAPE, **IDS, vocab_size=size, max_position_embeddings=64, **more)


def _whisper() -> Any:
    sizes = {**SIDES, "max_source_positions": 50, "max_target_positions": 40, "num_mel_bins": 8}
    no = {"begin_suppress_tokens": None, "suppress_tokens": None}
    made = tf.WhisperForConditionalGeneration(tf.WhisperConfig(**sizes, **IDS, **no, vocab_size=30))
    made.generation_config = tf.GenerationConfig(**IDS, decoder_start_token_id=1)
    return made


def _captioner() -> Any:
    encoder = tf.ViTConfig(**VISION)
    decoder = tf.GPT2Config(
        n_layer=2, n_head=4, n_embd=32, vocab_size=30, n_positions=64, is_decoder=True, add_cross_attention=True, **IDS
    )
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    made = tf.VisionEncoderDecoderModel(config)
    made.generation_config = tf.GenerationConfig(**IDS, decoder_start_token_id=1)
    return made


def _wav2vec2(kind: Any, **more: Any) -> Any:
    convolutions = {"conv_dim": (16, 16), "conv_stride": (40, 4), "conv_kernel": (80, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    return kind(_text(tf.Wav2Vec2Config, **convolutions, **positions, **more))


MODELS: dict[str, Callable[[], Any]] = {
    "causal": lambda: tf.LlamaForCausalLM(_text(tf.LlamaConfig)),
    "masked": lambda: tf.BertForMaskedLM(_text(tf.BertConfig)),
    "sequence": lambda: tf.BertForSequenceClassification(_text(tf.BertConfig, **NAMES)),
    "causal sequence": lambda: tf.LlamaForSequenceClassification(_text(tf.LlamaConfig, **NAMES)),
    "token": lambda: tf.BertForTokenClassification(_text(tf.BertConfig, **TAGS)),
    "question": lambda: tf.BertForQuestionAnswering(_text(tf.BertConfig)),
    "image": lambda: tf.ViTForImageClassification(tf.ViTConfig(**VISION, **NAMES)),
    "audio": lambda: _wav2vec2(tf.Wav2Vec2ForSequenceClassification, **NAMES),
    "speech": _whisper,
    "frames": lambda: _wav2vec2(tf.Wav2Vec2ForCTC),
    "caption": _captioner,
    "text to text": lambda: tf.MarianMTModel(
        tf.MarianConfig(**SIDES, **IDS, vocab_size=29, max_position_embeddings=64, forced_eos_token_id=None)
    ),
    "sequence beside": lambda: tf.BartForSequenceClassification(
        tf.BartConfig(**SIDES, **IDS, **NAMES, vocab_size=29, max_position_embeddings=64)
    ),
    "no head": lambda: tf.BertModel(_text(tf.BertConfig)),
}
PICTURES, SOUNDS = ("image", "caption"), ("audio", "speech", "frames")


def model(kind: str) -> Any:
    """The model of a kind, with weights large enough that it prefers some answers."""
    torch.manual_seed(4)
    made = MODELS[kind]().eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def processor(kind: str) -> Any:
    """What makes tensors of a picture or a sound; None for texts."""
    if kind in PICTURES:
        return tf.ViTImageProcessorPil(size={"height": 20, "width": 20})
    if kind == "speech":
        return tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    return tf.Wav2Vec2FeatureExtractor(return_attention_mask=False) if kind in SOUNDS else None


def saved(kind: str, folder: Path) -> Path:
    """The model's directory."""
    model(kind).save_pretrained(folder)
    made = processor(kind)
    if made is not None:
        made.save_pretrained(folder)
    if kind not in ("image", "audio"):
        tokenizer().save_pretrained(folder)
    return folder
