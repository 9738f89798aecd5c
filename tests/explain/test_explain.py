"""`regard explain`: the numbers are the engines', every renderer reads the same record, mistakes are one sentence."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from functools import lru_cache
from typing import Any

import pytest
import torch
from matplotlib.mathtext import MathTextParser

from regard import cli
from regard.errors import UserError
from regard.explain import example, listing
from regard.explain import explain as explain_anew
from regard.explain.around import AFTER
from regard.explain.build import work
from regard.explain.image import image
from regard.explain.maths import mathml, mathtext
from regard.explain.page import html
from regard.explain.record import Step
from regard.explain.search import found
from regard.explain.terminal import catalogue, show
from regard.explain.turned import turned
from regard.explain.uses import USES
from regard.mechanism import Mechanism
from regard.run import compose
from regard.zoo import CATALOGUE

explain = lru_cache(explain_anew)
MADE = [name for name, card in CATALOGUE.items() if card.factory is not None]
WORDS = ["The", "cat", "sat", "on", "the", "mat"]


@pytest.mark.parametrize("name", MADE)
def test_last_step_equals_the_engine(name: str) -> None:
    made = example.of_card(CATALOGUE[name], WORDS)
    found = work(made)
    pointing = isinstance(made.attention, Mechanism) and made.attention.mix is None
    wanted = compose.weights(made.attention, made.x) if pointing else compose.attend(made.attention, made.x)
    torch.testing.assert_close(found.last, wanted, atol=1e-12, rtol=1e-12)
    shown = [step for step in explain(name).steps if step.name not in AFTER][-1].panels[0]
    torch.testing.assert_close(torch.tensor(shown.values, dtype=torch.float64), found.last[0, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", MADE)
def test_every_step_has_a_name_an_equation_and_a_matrix_with_labels(name: str) -> None:
    made = explain(name)
    assert made.equation and made.source and made.time and made.memory and made.attends
    assert made.pattern is not None and made.pattern.panels
    for step in made.steps:
        assert step.name and step.equation and step.shape and step.panels, step
        for panel in step.panels:
            assert len(panel.values) == len(panel.rows)
            assert all(len(row) == len(panel.columns) for row in panel.values), step.name
    assert json.loads(json.dumps(made.json(), allow_nan=False))["steps"]


def test_weights_shown_are_those_of_the_engine() -> None:
    made = example.of_card(CATALOGUE["window"], WORDS)
    step = next(s for s in explain("window").steps if s.name == "weights")
    wanted = compose.weights(made.attention, made.x)[0, 0]
    for i, row in enumerate(step.panels[0].values):
        for j, value in enumerate(row):
            assert (value is None) == (not 0 <= i - j < 3)
            assert value is None or value == pytest.approx(float(wanted[i, j]), abs=1e-12)


def test_chain_of_scaled_dot_product_attention() -> None:
    names = [step.name for step in explain("causal").steps]
    inputs = ["tokens", "W_q", "queries", "W_k", "keys", "W_v", "values"]
    assert names == [*inputs, "scores", "scaled", "masked", "weights", "context", *AFTER]


def matrix(step: Step, panel: int = 0) -> torch.Tensor:
    values = [[0.0 if value is None else value for value in row] for row in step.panels[panel].values]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", ["causal", "multi_head", "window", "trainable"])
def test_a_reader_can_compute_every_step_again_from_the_matrices_shown(name: str) -> None:
    steps = {step.name: step for step in explain(name).steps}
    x = matrix(steps["tokens"])
    contexts = []
    for head in range(len(steps["context"].panels)):
        made = {}
        for letter, side in (("q", "queries"), ("k", "keys"), ("v", "values")):
            shown = next(step for title, step in steps.items() if title.startswith(side) and step.panels)
            at = min(head, len(steps[f"W_{letter}"].panels) - 1)
            made[letter] = x @ matrix(steps[f"W_{letter}"], at)
            torch.testing.assert_close(made[letter], matrix(shown, head), atol=1e-12, rtol=0)
        scores = made["q"] @ made["k"].T
        torch.testing.assert_close(scores, matrix(steps["scores"], head), atol=1e-12, rtol=0)
        seen = torch.tensor([[v is not None for v in row] for row in steps["weights"].panels[head].values])
        weights = (scores / made["k"].shape[1] ** 0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        torch.testing.assert_close(weights, matrix(steps["weights"], head), atol=1e-12, rtol=0)
        contexts.append(weights @ made["v"])
    joined = torch.cat(contexts, -1)
    torch.testing.assert_close(joined, matrix(steps["heads joined"]), atol=1e-12, rtol=0)
    torch.testing.assert_close(x + joined @ matrix(steps["W_O"]), matrix(steps["added"]), atol=1e-12, rtol=0)


def test_positions_that_are_added_are_shown() -> None:
    steps = {step.name: step for step in explain("sinusoidal").steps}
    assert matrix(steps["positions"])[0].tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0])


def test_the_other_layout_has_columns_that_sum_to_one() -> None:
    made = turned(explain("causal"))
    weights = next(step for step in made.steps if step.name == "weights").panels[0]
    assert weights.rows == [*WORDS, "sum"] and weights.columns == WORDS
    assert weights.values[-1] == pytest.approx([1.0] * 6)
    assert "keys down, queries across" in html(made)


def test_every_card_says_when_and_by_whom_it_is_used() -> None:
    assert set(USES) == set(CATALOGUE)
    for name, use in USES.items():
        assert use.when.endswith(".") and use.models, name
    shown = explain("grouped_query")
    assert shown.when in html(shown) and "Mistral" in html(shown)


@pytest.mark.parametrize(
    "asked,meant",
    [
        ("bahdanau", {"additive"}),
        ("luong", {"dot", "general", "concat", "local_m", "local_p"}),
        ("titans", {"neural_memory", "memory_as_context", "memory_as_gate", "memory_as_layer"}),
        ("self-attention", {"trainable", "causal", "multi_head"}),
        ("RoPE", {"rotary"}),
        ("Transformers are RNNs", {"linear", "linear_recurrent"}),
        ("sliding window", {"window"}),
        ("nystromformer", {"nystrom"}),
        ("grouped query", {"grouped_query"}),
        ("no such thing", set()),
    ],
)
def test_a_mechanism_is_found_by_what_people_remember_of_it(asked: str, meant: set[str]) -> None:
    cards = {card.name for card in found(asked)}
    assert meant <= cards and (len(meant) != 1 or len(cards) == 1)
    if len(meant) == 1:
        assert explain(asked).name in meant
    elif meant:
        with pytest.raises(UserError, match=f"can mean {len(cards)} mechanisms; say which: "):
            explain(asked)


def test_equations_are_set_as_mathematics() -> None:
    said = mathml("a_ij = e^{s_ij} / Σ_j e^{s_ij}, over the keys that i may see")
    assert "<msup><mi>e</mi><mrow><msub><mi>s</mi>" in said and "over the keys" in re.sub("<[^>]+>", "", said)
    assert mathml("√Dk").count("<msqrt>") == 1 and "<script" not in mathml("<script>")
    assert mathtext("e^{s_ij}") == "$e^{s_{ij}}$"
    parser = MathTextParser("path")
    for card in CATALOGUE.values():
        parser.parse(mathtext(card.equation))  # raises where matplotlib cannot read it


def test_recurrence_shows_its_state_and_signed_weights_or_says_why_not() -> None:
    delta = explain("delta")
    weights = next(step for step in delta.steps if step.name == "effective weights")
    assert weights.panels[0].kind == "signed" and any(step.name == "state" for step in delta.steps)
    titans = explain("neural_memory")
    assert titans.unobservable is not None and "not a weighted sum" in titans.unobservable
    assert not any("weights" in step.name for step in titans.steps)


@pytest.mark.parametrize("name", ["glimpse", "reinforce", "memory_as_gate"])
def test_what_is_no_mechanism_says_why_and_where_it_lives(name: str) -> None:
    made = explain(name)
    assert made.refused and made.home and not made.steps
    assert made.refused in html(made) and made.home in html(made)


@pytest.mark.parametrize("text", ["causal & window(4) | sinks(1)", "entmax(1.3)", "alibi & causal & softcap(5.0)"])
def test_text_forms_are_worked_through(text: str) -> None:
    from regard.text import parse

    made = explain(text)
    x = example.of_attention(parse(text), WORDS).x
    last = [step for step in made.steps if step.name not in AFTER][-1]
    torch.testing.assert_close(matrix(last), compose.attend(parse(text), x)[0, 0], atol=1e-12, rtol=0)


def test_pairs_read_count_what_the_mask_allows() -> None:
    assert explain("causal").pairs == [(n, n * (n + 1) // 2) for n in (32, 128, 512)]
    assert explain("window(4)").pairs == [(n, 4 * n - 6) for n in (32, 128, 512)]


def test_numbers_are_reproducible_and_equal_words_are_alike() -> None:
    assert explain_anew("rotary").json() == explain_anew("rotary").json()
    tokens = explain("scaled_dot").steps[0].panels[0]
    assert tokens.values[0] == tokens.values[4] == [-1.0, 0.7, 2.2, -0.5]


@pytest.mark.parametrize("count", [1, 16])
@pytest.mark.parametrize("name", MADE[::4])
def test_short_and_long_texts(name: str, count: int) -> None:
    assert explain(name, " ".join(f"w{i}" for i in range(count))).steps


# ---- renderers -------------------------------------------------------------------------------------------------------


def console(width: int = 100, **options: Any) -> Any:
    from rich.console import Console

    return Console(file=io.StringIO(), width=width, highlight=False, **options)


@pytest.mark.parametrize("name", ["window", "talking_heads", "gla", "nsa", "nystrom", "glimpse", "per_head"])
@pytest.mark.parametrize("width", [40, 100])
def test_terminal_shows_every_step(name: str, width: int) -> None:
    out, made = console(width), explain(name)
    show(made, out)
    text = out.file.getvalue()
    assert all(step.name.lower() in text.lower() for step in made.steps)
    assert "\x1b" not in text


def test_terminal_colours_and_catalogue() -> None:
    out = console(force_terminal=True, color_system="truecolor", _environ={})
    for name in ("window", "moba", "delta", "nsa", "pointer"):
        show(explain(name), out)
    assert "\x1b[" in out.file.getvalue()
    plain = console()
    catalogue(plain)
    assert all(name in plain.file.getvalue() for _, entries in listing() for name, _ in entries)


def test_page_is_escaped_and_loads_nothing() -> None:
    page = html(explain("causal", "<script>alert(1)</script> & \u202e"))
    assert "<script" not in page and "http://" not in page and "https://" not in page and "style=" not in page
    assert "default-src 'none'" in page and "\u202e" not in page
    assert "&lt;" in page
    assert re.search(r"<td class=\w+ title=", page)


@pytest.mark.parametrize(("name", "kind"), [("moba", "png"), ("glimpse", "svg")])
def test_image_is_reproducible(name: str, kind: str) -> None:
    first = image(explain(name), kind, dpi=40)
    assert first == image(explain(name), kind, dpi=40)
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_unknown_name_offers_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'causal'"):
        explain("causla")


def test_text_form_that_does_not_parse_points_at_the_place() -> None:
    with pytest.raises(UserError) as error:
        explain("causal & & x")
    assert str(error.value).splitlines()[-1].index("^") == 2 + "causal & & x".index("& x")


def test_empty_and_long_texts_are_refused() -> None:
    with pytest.raises(UserError, match="no words"):
        explain("causal", "   ")
    with pytest.raises(UserError, match="at most 16 words, got 17"):
        explain("causal", "a " * 17)


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *given: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["regard", "explain", *given])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out, out.err


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    code, out, _ = command(capsys, monkeypatch)
    assert code == 0 and "scaled_dot" in out and "recurrences" in out
    files = [tmp_path / f"e.{kind}" for kind in ("html", "png", "json")]
    given = [word for file in files for word in ("--out", str(file))]
    code, out, _ = command(capsys, monkeypatch, "window(2)", "a b c", "--json", *given)
    assert code == 0 and json.loads(out)["tokens"] == ["a", "b", "c"]
    assert all(file.stat().st_size > 500 for file in files)
    code, _, err = command(capsys, monkeypatch, "causla")
    assert code == 2 and "did you mean 'causal'" in err and "Traceback" not in err
    code, _, err = command(capsys, monkeypatch, "causal & & x")
    assert code == 2 and err.splitlines()[1:] == ["  causal & & x", "           ^"]
    code, _, err = command(capsys, monkeypatch, "causal", "--out", str(tmp_path / "e.pdf"))
    assert code == 2 and ".html" in err
    code, out, _ = command(capsys, monkeypatch, "--json")
    assert "causal" in json.loads(out)["kinds"]


def test_explaining_and_modules_need_torch_alone() -> None:
    said = "import sys, regard.nn, regard.explain; regard.explain.explain('causal'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rich", "matplotlib", "typer", "transformers"} & set(loaded)
