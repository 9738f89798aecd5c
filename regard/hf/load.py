"""Loading a model by directory or hub name: safetensors only, no remote code, nothing fetched that was not named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers as tf
from safetensors import SafetensorError

from regard.hf.errors import Unsupported

DEFAULT = Path(__file__).parent.parent / "default"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
EMBEDDED = "regard's default model"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in eval mode and what turns inputs into its tensors: a tokenizer, an image or a sound processor."""

    model: tf.PreTrainedModel
    tokenizer: Any = None
    processor: Any = None


def load(name: str | Path | None = None) -> Loaded:
    """The model of a directory or hub name, by default the embedded one; in float32 unless its files say otherwise.

    Raises Unsupported, naming the thing and the remedy, for a directory that is missing or incomplete, weights that
    are not whole safetensors, and models that need code of their own.
    """
    where = str(DEFAULT if name is None else name)
    _check_directory(where)
    try:
        config = tf.AutoConfig.from_pretrained(where, trust_remote_code=False)
        model, about = _class_of(config).from_pretrained(
            where, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except SafetensorError as error:
        raise Unsupported(
            f"the weights of {where} are not a whole safetensors file ({error}); fetch them again"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise Unsupported(_why_not(where, error)) from None
    missing = sorted(name for name in about["missing_keys"] if _matters(name))
    if missing:
        raise Unsupported(
            f"the weights of {where} lack {missing[0]} ({len(missing)} in all), which would be random; fetch them again"
        )
    if name is None:
        model.config.name_or_path = EMBEDDED
    if getattr(config, "regard_swap", None):
        from regard.swap.staying import restored  # a swapped model computes with what swapped it

        restored(model, Path(where))
    return Loaded(model.eval(), _tokenizer(where, model), _processor(where, model))


def _why_not(where: str, error: BaseException) -> str:
    """Why a model cannot be loaded, in a sentence that is true of the cause and says what to do."""
    said = str(error)
    if "couldn't connect" in said or "offline mode" in said.casefold() or "OfflineModeIsEnabled" in said:
        return (
            f"{where} is no directory here and was not fetched before, and the hub cannot be reached; "
            "give a model's directory, or try again with a network"
        )
    if "trust_remote_code" in said:
        return f"{where} needs code of its own, which regard never runs; use a model whose code transformers has"
    if "not a valid model identifier" in said or "Repository Not Found" in said:
        return f"there is no model {where} on the hub that you may read, and no such directory here; check the name"
    if "mismatch" in said:
        return f"the weights of {where} have other shapes than its config.json says; fetch both again"
    return f"cannot load a model from {where!r}: {_first_sentence(error)}"


def _matters(name: str) -> bool:
    """Whether a missing weight would change attention: those of layers and embeddings do, a head on top does not."""
    return any(part.isdigit() or "embed" in part for part in name.split("."))


def _check_directory(where: str) -> None:
    path = Path(where)
    try:
        there = path.is_dir()
    except OSError:
        raise Unsupported(
            f"{where[:40]}… is too long for the name of a model; give a directory or a hub name"
        ) from None
    if path.is_file():
        raise Unsupported(f"{where} is a file; give the directory that holds config.json, or a hub name")
    if there:
        if not (path / "config.json").is_file():
            raise Unsupported(f"{where} holds no config.json; give the directory of a transformers model")
        if not any(path.glob("*.safetensors")):
            raise Unsupported(f"{where} holds no *.safetensors weights, and regard reads no other kind; convert them")
    elif where.startswith((".", "/", "~")) or where.count("/") > 1 or "\\" in where:
        raise Unsupported(f"there is no directory {where}; give a directory with config.json, or a hub name")


def _class_of(config: tf.PreTrainedConfig) -> Any:
    for name in config.architectures or ():
        found = getattr(tf, name, None)
        if isinstance(found, type) and issubclass(found, tf.PreTrainedModel):
            return found
    # a type that was registered, not one of transformers' own
    for auto in (tf.AutoModelForSeq2SeqLM, tf.AutoModelForSequenceClassification):
        if type(config) in auto._model_mapping._extra_content:
            return auto
    return tf.AutoModel


def _tokenizer(where: str, model: tf.PreTrainedModel) -> Any:
    """The tokenizer, or None where there is none. Raises Unsupported for files that are there and cannot be read.

    Readers of tokenizers raise errors of every class, bare Exception among them.
    """
    try:
        return tf.AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except Exception as error:
        if model.main_input_name == "input_ids" and any((Path(where) / name).is_file() for name in TOKENIZER_FILES):
            reason = _first_sentence(error)
            raise Unsupported(f"the tokenizer of {where} cannot be read ({reason}); fetch its files again") from None
        return None


def _processor(where: str, model: tf.PreTrainedModel) -> Any:
    kind: Any = {
        "pixel_values": tf.AutoImageProcessor,
        "input_features": tf.AutoFeatureExtractor,
        "input_values": tf.AutoFeatureExtractor,
    }.get(model.main_input_name)
    if kind is None and not hasattr(model.config, "vision_config"):
        return None
    try:
        return (kind or tf.AutoImageProcessor).from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, json.JSONDecodeError):
        return None


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
