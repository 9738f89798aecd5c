"""Healing: starts near softmax, transfer that trains attention alone, resuming that changes nothing, one table."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import regard
from regard import cli
from regard.errors import UserError
from regard.hf.plan import plan_of
from regard.swap.healing.compare import compare_healed
from regard.swap.healing.recipe import Recipe
from regard.swap.healing.run import heal
from regard.swap.healing.starts import start_near
from regard.swap.healing.transfer import errors
from regard.swap.staying import NAME, plan_held
from tests.hf.models import BY_NAME, feed

TEXT = "The cat sat on the mat and looked at the other cat, which sat on another mat. " * 12
QUICK = Recipe(steps=6, tokens=64, context=32, rank=4)


def swapped(form: str) -> tuple[Any, Tensor]:
    model = BY_NAME["llama"].build(std=0.12)
    return regard.swap(model, form), feed(BY_NAME["llama"], length=14)["input_ids"]


@pytest.mark.parametrize("form", ["linear", "linear_recurrent", "gla"])
def test_feature_maps_start_nearer_to_softmax_than_they_are(form: str) -> None:
    model, ids = swapped(form)
    plan = plan_held(model)
    before = errors(model, plan, ids, learning=False)
    near = start_near(model, plan, getattr(model, NAME), ids)
    assert set(near) == set(before) == {0, 1}
    assert all(near[layer] < 0.9 * float(before[layer]) for layer in near)
    after = errors(model, plan, ids, learning=False)
    assert all(float(after[layer]) == pytest.approx(near[layer], rel=1e-5) for layer in near)


def test_transfer_measures_each_layer_on_what_the_old_attention_hands_on() -> None:
    model, ids = swapped("linear")
    outputs: list[Tensor] = []
    with torch.no_grad():
        for mechanism in ("own", "1: linear; *: own"):
            with regard.attach(model, watch=(), mechanism=mechanism):
                hook = model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(
                    lambda module, args: outputs.append(args[0])
                )
                model(ids)
                hook.remove()
    expected = (outputs[1] - outputs[0]).square().sum() / outputs[0].square().sum()
    assert float(errors(model, plan_held(model), ids)[1].detach()) == pytest.approx(float(expected), rel=1e-4)


def test_a_layer_that_stays_its_own_is_not_taught() -> None:
    model, ids = swapped("0: own; *: linear")
    assert set(errors(model, plan_held(model), ids)) == {1}


def test_transfer_alone_leaves_the_models_own_weights_and_lowers_the_error() -> None:
    loaded = regard.load()
    own = copy.deepcopy(loaded.model.state_dict())
    regard.swap(loaded.model, "linear")
    plan, ids = plan_held(loaded.model), loaded.tokenizer(TEXT, return_tensors="pt")["input_ids"][:, :64]
    before = sum(float(error) for error in errors(loaded.model, plan, ids, learning=False).values())
    heal(loaded.model, TEXT, tokenizer=loaded.tokenizer, recipe=Recipe(steps=20, transfer=1.0, tokens=64, context=32))
    after = sum(float(error) for error in errors(loaded.model, plan, ids, learning=False).values())
    assert after < 0.75 * before  # the start alone reaches 0.83
    assert all(torch.equal(value, own[name]) for name, value in loaded.model.state_dict().items() if name in own)


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_healing_that_was_stopped_ends_where_one_in_one_go_does(stop: int, tmp_path: Path) -> None:
    states = []
    for parts in ((None,), (stop, None)):
        folder = tmp_path / str(len(parts))
        for until in parts:
            loaded = regard.load()
            regard.swap(loaded.model, "linear")
            heal(loaded.model, TEXT, tokenizer=loaded.tokenizer, recipe=QUICK, folder=folder, until=until)
        states.append(loaded.model.state_dict())
    assert states[0].keys() == states[1].keys() and not any("lora" in name for name in states[0])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    with pytest.raises(UserError, match="another plan, text or recipe"):
        heal(loaded.model, TEXT + TEXT, tokenizer=loaded.tokenizer, recipe=QUICK, folder=folder)


def test_the_table_shows_before_and_after_and_the_healed_model_comes_back(tmp_path: Path) -> None:
    held_out = "Another day the cat looked at the mat, and the mat was no more than a mat to it. " * 8
    recipe = Recipe(steps=10, tokens=128, context=32, rank=4)
    found = compare_healed(
        None, ["window(3)", "gla"], held_out, TEXT, recipe, context=32, blocks=2, folder=tmp_path, time=False
    )
    names = [row.name for row in found.rows]
    assert names == ["own", "window(3)", "window(3), healed", "gla", "gla, healed"]
    bits = [row.quality.bits_per_token for row in found.rows]
    assert bits[2] < bits[1] and bits[4] < bits[3]
    loaded = regard.load(tmp_path / "gla")
    ids = loaded.tokenizer(held_out, return_tensors="pt")["input_ids"][0, :64].reshape(2, 32)
    with torch.no_grad():
        rows = [loaded.model(row[None], labels=row[None]).loss for row in ids]
    assert float(sum(rows)) / 2 / 0.6931472 == pytest.approx(bits[4], abs=1e-3)
    assert str(plan_of(loaded.model.config.regard_swap)) == "gla"


def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    text, other = tmp_path / "a.txt", tmp_path / "b.txt"
    text.write_text(TEXT)
    other.write_text("Quite another text about dogs. " * 20)
    for words, said in (
        (["gla", "--heal", "3"], "--heal-text"),
        (["gla", "--heal-text", str(other)], "give --heal with a number"),
        (["gla", "--heal", "0", "--heal-text", str(other)], "at least 1"),
        (["gla", "--heal", "3", "--heal-text", str(text)], "held out"),
        (["linformer(4, 64)", "--heal", "3", "--heal-text", str(other)], "slots"),
    ):
        monkeypatch.setattr(sys, "argv", ["regard", "swap", "-", *words, "--text", str(text), "--context", "32"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2 and said in error and "Traceback" not in error, error
    with pytest.raises(UserError, match="was not swapped"):
        heal(regard.load().model, TEXT, tokenizer=regard.load().tokenizer, recipe=QUICK)
    assert json.loads(QUICK.json())["steps"] == 6
