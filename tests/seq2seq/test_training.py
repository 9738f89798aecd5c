"""Training: its loss is torch's, it can be stopped anywhere, and nothing half-written is ever left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from regard.errors import UserError
from regard.seq2seq import checkpoint
from regard.seq2seq.batches import Examples, epoch_batches
from regard.seq2seq.loss import smoothed_cross_entropy
from regard.seq2seq.recipe import Recipe
from regard.seq2seq.training import run
from regard.seq2seq.translate import translate
from tests.seq2seq.toys import RECIPE, write_pairs


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "training" / "checkpoint.safetensors")


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_loss_and_its_gradients_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.seq2seq.loss.CELLS", 50 * 64)  # blocks of 64 rows, the last one short
    make = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=make, dtype=torch.float64) for shape in ((150, 8), (50, 8), (50,))]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    target = torch.randint(50, (150,), generator=make)
    hidden, weight, bias = tensors
    for smoothing in (0.0, 0.1):
        found = smoothed_cross_entropy(hidden, weight, bias, target, smoothing)
        wanted = cross_entropy(hidden @ weight.T + bias, target, label_smoothing=smoothing, reduction="sum")
        assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
        for a, b in zip(torch.autograd.grad(found, tensors), torch.autograd.grad(wanted, tensors)):
            assert torch.allclose(a, b, atol=1e-5)


def test_every_example_comes_once_an_epoch_and_no_batch_is_too_large() -> None:
    lengths = [1 + row % 23 for row in range(500)]
    examples = Examples([[0] * size for size in lengths], [[0] * size for size in reversed(lengths)])
    first, again, second = (epoch_batches(examples, 100, 7, epoch) for epoch in (0, 0, 1))
    assert first == again != second
    assert sorted(row for rows in first for row in rows) == list(range(500))
    assert all(len(rows) * max(map(examples.length, rows)) <= 100 for rows in first)


def test_a_stopped_training_gives_what_an_unstopped_one_does(tmp_path: Path) -> None:
    text = write_pairs(tmp_path)
    run(RECIPE, tmp_path / "whole", text, [], steps=14, note=str)
    for steps in (3, 8, 14):  # an epoch has about 10 batches
        run(RECIPE, tmp_path / "parts", text, [], steps=steps, note=str)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_a_training_killed_without_warning_goes_on_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of writing its second checkpoint, it goes on from the first."""
    text = write_pairs(tmp_path)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from regard.seq2seq import checkpoint\n"
        "from regard.seq2seq.training import run\n"
        "from tests.seq2seq.toys import RECIPE\n"
        "folder, text = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]\n"
        "run(RECIPE, folder, text, [], steps=5, note=str)\n"
        "def dies(path):\n"
        "    path.write_bytes(path.read_bytes()[:1000])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint._settle = dies\n"
        "run(RECIPE, folder, text, [], steps=9, note=str)\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", program, str(tmp_path / "killed"), *map(str, text)]
    assert subprocess.run(arguments, env=where, capture_output=True).returncode == -signal.SIGKILL
    found = checkpoint.load(tmp_path / "killed")
    assert found is not None and found[1].step == 5
    run(RECIPE, tmp_path / "killed", text, [], steps=12, note=str)
    run(RECIPE, tmp_path / "whole", text, [], steps=12, note=str)
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_pairs(tmp_path)
    run(RECIPE, tmp_path / "m", text, [], steps=2, note=str)

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left.*the checkpoint before it is whole"):
        run(RECIPE, tmp_path / "m", text, [], steps=4, note=str)
    assert [path.name for path in (tmp_path / "m" / "training").glob("checkpoint*")] == ["checkpoint.safetensors"]
    found = checkpoint.load(tmp_path / "m")
    assert found is not None and found[1].step == 2


def test_another_recipe_or_architecture_is_refused(tmp_path: Path) -> None:
    text = write_pairs(tmp_path)
    run(RECIPE, tmp_path / "m", text, [], steps=2, note=str)
    with pytest.raises(UserError, match="holds a training with width 32, and now 64 is asked for"):
        run(replace(RECIPE, width=64), tmp_path / "m", text, [], steps=4, note=str)
    (tmp_path / "m" / "training" / "checkpoint.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not a checkpoint of regard train"):
        run(RECIPE, tmp_path / "m", text, [], steps=4, note=str)


def test_the_last_epoch_is_evaluated_and_kept(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    result = run(recipe, tmp_path / "m", write_pairs(tmp_path), [], note=str)
    assert result["ended"] == "1 epochs" and result["last"]["step"] == result["steps"]
    assert (tmp_path / "m" / "model.safetensors").is_file()
    assert run(recipe, tmp_path / "m", write_pairs(tmp_path), [], note=str)["steps"] == result["steps"]


def test_minutes_end_a_training_and_leave_a_checkpoint(tmp_path: Path) -> None:
    result = run(RECIPE, tmp_path / "m", write_pairs(tmp_path), [], minutes=0.001, note=str)
    assert result["steps"] >= 1 and result["ended"].startswith("stopped")
    with pytest.raises(UserError, match="--minutes is above 0"):
        run(RECIPE, tmp_path / "m", write_pairs(tmp_path), [], minutes=0, note=str)


@pytest.mark.parametrize("tokenizer", ["bpe", "unigram"])
def test_a_translator_learns_a_small_language(tmp_path: Path, tokenizer: str) -> None:
    recipe = replace(RECIPE, tokenizer=tokenizer, evaluate=500, dropout=0.0, width=48, epochs=200)
    result = run(recipe, tmp_path / "m", write_pairs(tmp_path), [], steps=500, note=str)
    assert result["last"]["exact"] >= 0.9, result
    assert translate(tmp_path / "m", ["two nine four", "", "one"]) == ["zwei neun vier", "", "eins"]
    assert {"README.md", "metrics.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "m").iterdir()
    }
    further = run(replace(recipe, start=str(tmp_path / "m")), tmp_path / "n", write_pairs(tmp_path), [], steps=1)
    assert further["steps"] == 1


def test_a_language_model_is_trained_from_plain_text(tmp_path: Path) -> None:
    lines = "".join(f"line {number} of a text that says the same again and again\n" for number in range(300))
    (tmp_path / "text.txt").write_text(lines, encoding="utf-8")
    recipe = Recipe(preset="lm", width=32, layers=2, vocabulary=300, limit=64, tokens=1024, warmup=5, evaluate=12)
    result = run(recipe, tmp_path / "m", [tmp_path / "text.txt"], [], steps=12, note=str)
    assert result["last"]["loss"] < 5.5 and result["last"]["bits_per_byte"] < 6
    assert 0 <= result["last"]["induction"] <= 1
    from regard.hf.load import load

    assert load(tmp_path / "m").model.generate is not None


def test_bad_recipes_are_one_sentence() -> None:
    for wrong, said in ({"preset": "nosuch"}, "a preset is one of"), ({"dropout": 1.0}, r"dropout lies in \[0, 1\)"):
        with pytest.raises(UserError, match=said):
            Recipe(**wrong)  # type: ignore[arg-type]
