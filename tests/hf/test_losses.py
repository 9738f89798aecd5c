"""The loss of each token in a Trace: what cross entropy gives, NaN where nothing was predicted, kept in the file."""

from __future__ import annotations

from pathlib import Path

import torch

import regard
from regard.hf.load import load
from regard.seeing.trace import Trace


def test_losses_are_the_models_own_and_survive_the_file(tmp_path: Path) -> None:
    loaded = load()
    trace = regard.see(loaded.model, loaded.tokenizer, ["A fluffy blue creature roamed the forest.", "A blue one"])
    (tokens,) = trace.axes.values()
    assert tokens.loss is not None
    for sequence, text in enumerate(["A fluffy blue creature roamed the forest.", "A blue one"]):
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            whole = loaded.model(input_ids=ids, labels=ids).loss
        mine = tokens.loss[sequence][tokens.axis.valid[sequence]]
        assert torch.isnan(mine[0]) and not torch.isnan(mine[1:]).any()
        assert torch.allclose(mine[1:].mean(), whole, atol=1e-5)
    assert torch.isnan(tokens.loss[~tokens.axis.valid]).all()
    trace.save(tmp_path / "a.safetensors")
    (again,) = Trace.load(tmp_path / "a.safetensors").axes.values()
    assert again.loss is not None and torch.equal(again.loss.nan_to_num(-1), tokens.loss.nan_to_num(-1))
