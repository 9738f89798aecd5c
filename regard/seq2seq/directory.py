"""A model directory: transformers' files, a card and the metrics, each replaced whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from regard.errors import UserError
from regard.hf.load import Loaded, load
from regard.seq2seq import make_known
from regard.seq2seq.config import RecurrentConfig, TransformerConfig
from regard.seq2seq.recurrent import RecurrentTranslator
from regard.seq2seq.transformer import Transformer

EMBEDDED = Path(__file__).parent.parent / "translator"  # dates and numbers, French and German to English


def register() -> None:
    """Make regard's own model types known to transformers' Auto classes; twice does no harm."""
    for config, model in ((RecurrentConfig, RecurrentTranslator), (TransformerConfig, Transformer)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSeq2SeqLM.register(config, model, exist_ok=True)


def keep(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, about: dict[str, str]) -> None:
    """Write the model beside what the folder holds, then in its stead, the weights last.

    about: further files, by name, such as the card. Raises UserError where the disk is full; what was there stays.
    """
    beside = folder / "training" / "model.new"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        for name, text in about.items():
            (beside / name).write_text(text, encoding="utf-8")
        for path in sorted(beside.iterdir(), key=lambda path: path.suffix == ".safetensors"):
            os.replace(path, folder / path.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write the model to {folder} ({reason}); what was there is whole, make room") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def opened(folder: Path | str | None) -> Loaded:
    """The model and tokenizer of a directory or hub name, regard's own types among them; None: the embedded
    translator of dates and numbers."""
    where = EMBEDDED if folder is None else folder
    make_known(where)
    return load(where)


def metrics_text(metrics: dict[str, Any]) -> str:
    """metrics.json's text."""
    return json.dumps(metrics, indent=1, ensure_ascii=False) + "\n"
