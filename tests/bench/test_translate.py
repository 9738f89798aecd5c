"""`regard bench translate`: what is timed side by side computes the same, and what it asks for is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regard.bench.translate_speed import speed
from regard.bench.translate_training import contestants, training
from regard.seq2seq.batches import Examples
from regard.seq2seq.beam import Search
from regard.seq2seq.corpus import pairs
from regard.seq2seq.objective import batch_of
from regard.seq2seq.recipe import Recipe, model_of
from regard.seq2seq.vocabulary import trained
from tests.seq2seq.toys import RECIPE, SOURCE, write_pairs


def test_a_training_step_is_the_plain_loops() -> None:
    """Without dropout: the same loss before the first step, and after Adam's steps along the same gradients."""
    torch.manual_seed(0)
    runs = contestants(replace(RECIPE, dropout=0.0), 50)
    examples = Examples([[5, 9, 7, 3], [8, 3], [6, 6, 3]], [[7, 5, 3], [9, 4, 11, 30, 3], [12, 3]])
    batch = batch_of(examples, [0, 1, 2], 0, False)
    losses = {who: [run(batch) for _ in range(4)] for who, run in runs.items()}
    assert losses["regard"] == pytest.approx(losses["torch"], rel=1e-4)
    assert losses["regard bf16"] == pytest.approx(losses["torch"], rel=2e-2)
    assert losses["torch"][-1] < losses["torch"][0]


def test_the_search_is_timed_beside_transformers_on_the_same_batches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = trained(SOURCE * 4, 64)
    model_of(Recipe(width=32, layers=1, limit=32), len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = speed(str(tmp_path), ["one two three", "four", "nine eight"], Search(2, longest=6), batch=2, turns=1)
    assert found["sentences"] == 3
    assert found["same_translations"]["regard"] == 1.0
    assert found["regard_is_faster"]["transformers"] > 0


def test_training_steps_are_timed_side_by_side(tmp_path: Path) -> None:
    found = training(pairs(list(write_pairs(tmp_path, 60))), RECIPE, steps=2, turns=1)
    assert set(found["seconds_a_step"]) == {"regard", "regard bf16", "torch"}
    assert all(seconds > 0 for seconds in found["seconds_a_step"].values())
