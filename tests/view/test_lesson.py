"""The page that teaches: every number that it computes is regard's, on words that it was not made with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard
from regard.explain import example
from regard.explain.build import SENTENCE
from regard.hf.load import Loaded, load
from regard.lesson import models
from regard.lesson.mechanisms import _computed, of_card
from regard.lesson.page import SAMPLES, _body, page
from regard.lesson.record import Decides, recorded
from regard.zoo import CATALOGUE
from tests.view.browser import Open, why_not

needs_browser = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
HOSTILE = '<img src=x onerror=alert(1)> "quoted" \u202e'
READ = "(rows) => rows.map((r) => [...r.querySelectorAll('td[data-value]')].map((c) => Number(c.dataset.value)))"
SENTENCES = ("Time flies like an arrow ,", "</script> ß é")
MADE = [card for card in CATALOGUE.values() if card.factory is not None]


@pytest.fixture(scope="module")
def translator() -> Loaded:
    from regard.seq2seq.translate import opened

    return opened(None)


@pytest.fixture(scope="module")
def language() -> Loaded:
    return load()


@pytest.fixture(scope="module")
def content(language: Loaded, translator: Loaded) -> str:
    return page(language, translator, words=(5, 6))


def test_a_program_that_values_decide_is_refused() -> None:
    with pytest.raises(Decides, match="decides what is computed next"):
        recorded(lambda x: {"y": x * 2 if bool(x.sum() > 0) else x}, {"x": torch.ones(3)})


def test_a_program_holds_only_what_its_outputs_need() -> None:
    def compute(x: Tensor) -> dict[str, Tensor]:
        x.exp()
        made = torch.zeros(3)
        made[1:] = x[:2] * torch.arange(2)
        return {"y": made}

    program = recorded(compute, {"x": torch.rand(4)})
    assert [step[0] for step in program.steps] == ["mul", "copy_"]
    assert len(program.constants) >= 2


@pytest.mark.parametrize("card", MADE, ids=lambda card: card.name)
def test_every_mechanism_can_be_recorded(card: Any) -> None:
    made = of_card(card, 4)
    assert made.refused is None
    assert (made.program is not None and "output" in made.program.outputs) or "weights" in made.program.outputs


@needs_browser
def test_every_mechanism_of_the_catalogue_computes_regards_numbers(opened: Open, content: str) -> None:
    shown = opened(content)
    for sentence in SENTENCES:
        tokens = example.tokens_of(sentence)
        for token in tokens:
            assert shown.evaluate("(t) => regard.embedding(t, 4)", token) == example.embedding(token).tolist()
        assert shown.evaluate("(text) => regard.wordsOf(text)", sentence) == tokens
        for card in MADE:
            made = example.of_card(card, tokens)
            wanted, _ = _computed(made.attention, made.x)
            given = shown.evaluate("([name, words]) => regard.computed(name, words)", [card.name, tokens])
            for name, value in wanted.items():
                numbers = torch.tensor(given[name]["values"]).double()
                assert numbers.numel() == value.numel()
                error = (numbers - value.double().flatten()).abs().nan_to_num(0).max()
                assert error < 1e-6, f"{card.name}: {name} differs by {error}"


@needs_browser
def test_what_the_page_shows_is_what_it_computed(opened: Open, content: str) -> None:
    shown = opened(content)
    shown.fill("#sentence", "one two one two three .")
    shown.select_option("#mechanism", "alibi")
    card = CATALOGUE["alibi"]
    made = example.of_card(card, example.tokens_of("one two one two three ."))
    weights = _computed(made.attention, made.x)[0]["weights"]
    read = shown.eval_on_selector_all(
        "#picked .matrix",
        "(tables) => tables.map((t) => [...t.querySelectorAll('td[tabindex]')].map((c) => c.dataset.value))",
    )
    for head in range(2):
        cells = [0.0 if value is None else float(value) for value in read[head]]
        assert torch.allclose(torch.tensor(cells).double(), weights[0, head].flatten().double(), atol=1e-6)
    shown.focus("#picked td[tabindex='0']")
    shown.keyboard.press("ArrowDown")
    assert "two" in shown.inner_text("#picked .readout >> nth=0")


@needs_browser
def test_the_language_model_in_the_page_gives_regards_weights(opened: Open, content: str, language: Loaded) -> None:
    shown = opened(content)
    text = "The quiet river, it isn't far: 42 miles…"
    shown.fill("#prompt", text)
    trace = regard.see(language.model, language.tokenizer, text, keep="qk")
    count = trace.axes[trace.layers[0].query_axis].axis.length
    shown.wait_for_selector(f"body[data-modelled='{count}']")
    for place, layer in enumerate(trace.layers):
        for head in layer.heads:
            wanted = trace.weights(layer, head)
            given = shown.evaluate(
                "([l, h, n]) => Array.from({length: n * n}, (_, i) => regard.weight(l, h, Math.floor(i / n), i % n))",
                [place, head, count],
            )
            assert torch.allclose(torch.tensor(given).view(count, count), wanted.float(), atol=1e-5)


@needs_browser
def test_the_translator_in_the_page_writes_and_looks_as_regards(opened: Open, content: str, translator: Loaded) -> None:
    from regard.seq2seq.beam import Search
    from regard.seq2seq.translate import translations

    shown = opened(content)
    for wanted in translations(None, SAMPLES, Search(1, 1.0, 40), align=True):
        shown.fill("#source", wanted.source)
        shown.press("#source", "Enter")
        assert shown.get_attribute("body", "data-translated") == wanted.text
        ids = torch.tensor([translator.tokenizer(wanted.source)["input_ids"]])
        written = translator.model.generate(ids, num_beams=1, do_sample=False, max_new_tokens=20)[:, :-1]
        with regard.attach(translator.model, keep="qk") as trace, torch.no_grad():
            translator.model(input_ids=ids, decoder_input_ids=written)
        rows = shown.eval_on_selector_all("#back-matrix tr", READ)[1:]
        assert torch.allclose(torch.tensor(rows), trace.weights(trace.layers[-1], 0).float(), atol=1e-5)


@needs_browser
def test_only_the_last_state_handed_over_is_another_translation(opened: Open, content: str) -> None:
    shown = opened(content)
    whole = shown.inner_text("#wrote")
    shown.click("#handed button >> nth=1")
    assert shown.get_attribute("#wrote", "data-handed") == "last"
    assert shown.inner_text("#wrote") != whole
    assert (
        shown.eval_on_selector_all("#bottleneck .dim", "(x) => x.length")
        == len(shown.query_selector_all("#bottleneck li")) - 1
    )


@needs_browser
def test_states_appear_one_by_one(opened: Open, content: str) -> None:
    shown = opened(content)
    for read in (1, 2, 3):
        assert len(shown.query_selector_all("#reading li")) == read
        shown.click("#read-on")
    shown.click("#read-all")
    assert len(shown.query_selector_all("#reading li")) == len(shown.query_selector_all("#bottleneck li"))


@needs_browser
def test_hostile_words_stay_text(opened: Open, content: str) -> None:
    shown = opened(content, dark=True)
    for box in ("#source", "#sentence", "#prompt"):
        shown.fill(box, HOSTILE)
        shown.press(box, "Enter")
    shown.wait_for_timeout(300)
    assert shown.query_selector("main img, main b") is None
    assert shown.get_attribute("html", "data-theme") == "dark"
    shown.click("#theme")
    assert shown.get_attribute("html", "data-theme") == "light"


def test_a_hostile_sentence_is_escaped(language: Loaded, translator: Loaded) -> None:
    body = _body(language.model, translator.model, '"><b>hi</b>')
    assert "<b>" not in body and "&quot;&gt;&lt;b&gt;" in body


def test_a_sentence_too_long_is_refused(language: Loaded, translator: Loaded) -> None:
    from regard.errors import UserError

    with pytest.raises(UserError, match="1 to 12 words"):
        page(language, translator, "word " * 20)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    from regard.errors import UserError

    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match="byte-pair"):
        models.tokenizer(other)


def test_the_first_sentence_is_the_explainers() -> None:
    assert len(example.tokens_of(SENTENCE)) == 6
