"""regard swap and regard.compare: the numbers are what a plain computation gives, and mistakes are one sentence."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import regard
from regard import cli
from regard.errors import UserError
from regard.hf.attach import attach
from regard.hf.load import Loaded
from regard.hf.plan import plan_of, read_plan
from regard.swap.compare import compare
from regard.swap.page import html
from regard.swap.plot import picture
from regard.swap.records import Comparison
from regard.swap.report import lines

TEXT = "The cat sat on the mat and looked at the other cat, which sat on another mat. " * 12
CONTEXT = 96


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return regard.load()


@pytest.fixture(scope="module")
def comparison(loaded: Loaded) -> Comparison:
    plans = ("causal", "window(8)", "linear_recurrent", "0: window(8); 1.0-1: window(4) | sinks(2); *: own")
    return compare(loaded, plans, TEXT, context=CONTEXT, blocks=2)


def logits_of(loaded: Loaded, mechanism: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    ids = loaded.tokenizer(TEXT, return_tensors="pt")["input_ids"][:, : 2 * CONTEXT].reshape(2, CONTEXT)
    with torch.no_grad():
        if mechanism is None:
            return loaded.model(ids).logits, ids
        with attach(loaded.model, watch=(), mechanism=mechanism):
            return loaded.model(ids).logits, ids


def test_quality_is_that_of_a_plain_computation(loaded: Loaded, comparison: Comparison) -> None:
    own, ids = logits_of(loaded, None)
    for row in comparison.rows:
        logits = own if row.name == "own" else logits_of(loaded, row.name)[0]
        nats = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        assert row.quality.bits_per_token == pytest.approx(float(nats) / math.log(2), abs=1e-4)
        p, q = (t[:, :-1].log_softmax(-1) for t in (own, logits))
        assert row.quality.kl_bits == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()) / math.log(2), abs=1e-4)
        same = (own.argmax(-1) == logits.argmax(-1))[:, :-1].float().mean()
        assert row.quality.equal_first == pytest.approx(float(same), abs=1e-6)


def test_layers_that_nothing_changes_before_have_no_error(comparison: Comparison) -> None:
    own, causal, window, _, plan = comparison.rows
    assert set(own.quality.layer_error) == {0.0} and max(causal.quality.layer_error) < 1e-5
    assert window.quality.layer_error[0] > 0.01
    assert plan.quality.layer_error[0] == pytest.approx(window.quality.layer_error[0], rel=1e-4)


def test_pairs_and_caches_are_counted(loaded: Loaded, comparison: Comparison) -> None:
    own, causal, window, state, plan = (row.cost for row in comparison.rows)
    config = loaded.model.config
    layers, heads, groups = config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads
    triangle = CONTEXT * (CONTEXT + 1) // 2
    near = sum(min(n + 1, 8) for n in range(CONTEXT))
    assert own.pairs == causal.pairs == layers * heads * triangle
    assert window.pairs == layers * heads * near and window.pairs_share == pytest.approx(near / triangle)
    sinks = sum(min(n + 1, 6) for n in range(CONTEXT))
    assert plan.pairs == heads * near + 2 * sinks + (layers * heads - heads - 2) * triangle
    size = config.hidden_size // heads * 4 * 2
    assert own.cache_bytes_per_token == layers * groups * size
    assert window.cache_bytes_per_token == layers * groups * size * 8 / CONTEXT
    assert plan.cache_bytes_per_token == (8 + 6 + (groups - 1 + (layers - 2) * groups) * CONTEXT + 8 * (groups - 1)) * (
        size / CONTEXT
    )
    width = config.hidden_size // heads
    assert state.pairs is None and state.cache_bytes_per_token == layers * heads * width * (width + 1) * 4 / CONTEXT


def test_speed_and_memory_are_measured(comparison: Comparison) -> None:
    for row in comparison.rows:
        assert row.speed is not None
        assert row.speed.prefill_tokens_per_second > 0 and row.speed.decode_tokens_per_second > 0


def test_table_page_and_picture_hold_every_row(comparison: Comparison) -> None:
    text, page = "\n".join(lines(comparison)), html(comparison)
    for row in comparison.rows:
        assert row.name in text and row.name in page
    assert "state" in text and page.count("<svg") == 1 and "<script" not in page and "<link" not in page
    assert picture(comparison, "png").startswith(b"\x89PNG")
    assert json.loads(json.dumps(comparison.json()))["rows"][0]["name"] == "own"


@pytest.mark.parametrize(
    ("mechanisms", "options", "said"),
    [
        ([], {}, "needs a mechanism"),
        (["window(96)"], {}, "hides nothing of 96 tokens"),
        (["9: causal"], {}, "layers 0 to 3; layer 9"),
        (["0.9: causal"], {}, "heads 0 to 5; head 9"),
        (["causal"], {"layers": [7]}, "layers 0 to 3; layer 7"),
        (["gla"], {}, "needs the gate 'log_decay'"),
        (["linformer"], {}, "linformer needs e"),
        (["nystrom(4, 4)"], {}, "cannot take the mask"),
        (["nosuch"], {}, "no mask, part or mechanism is called 'nosuch'"),
        (["causal &"], {}, "expected"),
        (["0: causal; :window(3)"], {}, "a plan names layers"),
        (["3-1: causal"], {}, "ends before it begins"),
        (["0: causal;"], {}, "lacks a mechanism"),
        (["0: causal"], {"layers": [1]}, "says its own layers"),
        (["causal"], {"context": 5000}, "a context of 5000 tokens"),
        (["causal"], {"text": "too short"}, "tokens, and a context of"),
        (["causal"], {"text": " "}, "the text is empty"),
    ],
)
def test_a_mistake_is_one_sentence(
    loaded: Loaded, mechanisms: Sequence[str], options: dict[str, Any], said: str
) -> None:
    given = {"text": TEXT, "context": CONTEXT, "blocks": 1, "time": False} | options
    with pytest.raises(UserError, match=said) as caught:
        compare(loaded, mechanisms, **given)
    assert "Traceback" not in str(caught.value)


def test_a_plan_reads_what_it_writes() -> None:
    text = "0-2,5: causal; 3.1: own; *: window(256) | sinks(4)"
    assert str(read_plan(text)) == text
    plan = read_plan("0,1: window(3); 2.1-2: own; *: causal")
    names = {(n, h): None if (a := plan.of_head(n, h)) is None else a.name for n in range(4) for h in range(3)}
    assert names[0, 0] == "window" and names[2, 0] == "causal" and names[2, 1] is None and names[3, 2] == "causal"
    assert str(plan_of("window(3)", [0, 1])) == "0-1: window(3)"


def test_the_command_prints_the_table_and_refuses_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    page = tmp_path / "page.html"

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regard", "swap", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    given = ("--text", str(tmp_path / "text.txt"), "--context", "64", "--blocks", "1")
    code, out, _ = run("-", "window(8)", *given, "--out", str(page), "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)["rows"]] == ["own", "window(8)"]
    assert page.read_text().startswith("<!doctype html>")
    for words, said in (
        (("-", "window(64)", *given), "hides nothing"),
        (("-", "causal"), "give --text FILE"),
        (("-", "causal", "--text", str(tmp_path / "none.txt")), "there is no file"),
        (("-", "causal", *given, "--layers", "8"), "layer 8 was asked for"),
    ):
        code, out, err = run(*words)
        assert code == 2 and out == "" and said in err.splitlines()[-1] and "Traceback" not in err
