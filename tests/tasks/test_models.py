"""The tasks' own models: their attention is the papers', watching changes nothing, generation has one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import conv1d

import regard
from regard.hf.answers import head_of
from regard.seq2seq.directory import opened
from regard.tasks.known import register
from regard.tasks.writer.model import written
from tests.tasks.toys import KINDS, inputs, pooled, writer

WORDS = torch.tensor([[2, 7, 9, 5, 11]])


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def dense(model: Any, encoded: Any, words: torch.Tensor) -> torch.Tensor:
    """The weights [T,S] of one example, as the papers write them, word by word."""
    decoder, attention, config = model.decoder, model.decoder.attention, model.config
    memory = encoded.last_hidden_state[0]
    h = torch.tanh(decoder.begin(memory.mean(0)))
    before, rows = torch.zeros(len(memory)), []
    for step, word in enumerate(words[0]):
        inner = attention.query.weight @ h + memory @ attention.key.weight.T + attention.key.bias
        if config.attention == "location":
            features = conv1d(before[None, None], attention.filters, padding=config.filter_width // 2)[0].T
            inner = inner + features @ attention.feature.weight.T
        scores = torch.tanh(inner) @ attention.score
        if config.attention == "local_m":
            away = (torch.arange(len(memory)) - config.pace * (step + 0.5)).abs()
            scores = torch.where(away <= config.reach, scores, -torch.inf)
        if config.attention == "location" and step:
            median = next(j for j in range(len(before)) if float(before[: j + 1].sum()) >= 0.5)
            away = torch.arange(len(memory)) - median
            scores = torch.where((away >= -config.back) & (away <= config.ahead), scores, -torch.inf)
        before = torch.softmax(scores, 0)
        if config.attention == "hard":
            before = torch.nn.functional.one_hot(before.argmax(), len(memory)).float()
        rows.append(before)
        context = before @ memory
        if config.gate:
            context = torch.sigmoid(decoder.gate(h)) * context
        word_gates = decoder.cell.project(decoder.embed_tokens(word))[None]
        h = decoder.cell.step(word_gates, context[None], (h[None],), decoder.cell.products())[0][0]
    return torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_watched_weights_are_the_papers(kind: str) -> None:
    model = writer(kind)
    with regard.attach(model, watch=(), keep="qk") as trace:
        model(**inputs(kind), decoder_input_ids=WORDS)
    wanted = dense(model, model.encode(inputs(kind)), WORDS)
    assert float((trace.weights(trace.layers[-1], 0) - wanted).abs().max()) < 1e-6


def test_the_window_leaves_out_what_lies_far_from_the_last_look() -> None:
    model = writer("location")
    encoded = model.encode(inputs("location"))
    weights = model.steps(WORDS, encoded)[0].weights[0]
    assert (weights[0] > 0).all() and (weights[1:] == 0).any(1).all()
    assert (model.train().steps(WORDS, encoded)[0].weights > 0).all()


def test_pooled_weights_are_the_papers() -> None:
    model, words = pooled(), torch.randint(2, 50, (1, 8))
    with regard.attach(model, watch=(), keep="qk") as trace:
        watched = model(input_ids=words).logits
    states = model.encoder(input_ids=words).last_hidden_state[0]
    u = torch.tanh(states @ model.pooling.key.weight.T + model.pooling.key.bias)
    weights = torch.softmax(u @ model.pooling.context, 0)
    assert float((trace.weights(trace.layers[0], 0)[0] - weights).abs().max()) < 1e-6
    logits = model.classifier.weight @ (weights @ states) + model.classifier.bias
    assert torch.allclose(watched[0], logits, atol=1e-6) and torch.equal(watched, model(input_ids=words).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_the_same_watched_and_not_and_as_the_steps_say(kind: str) -> None:
    model = writer(kind)
    asked = {**inputs(kind), "max_new_tokens": 7, "do_sample": False, "num_beams": 1}
    plain = model.generate(**asked)
    with regard.attach(model) as trace:
        watched = model.generate(**asked)
    assert torch.equal(plain, watched) and any(layer.kind == "cross" for layer in trace.layers)
    texts, weights = written(model, inputs(kind), 7)
    assert [n for n in plain[0, 1:].tolist() if n != 3] == texts[0]
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_reorder_the_memory_and_the_weights(kind: str) -> None:
    found = writer(kind).generate(**inputs(kind, 2), max_new_tokens=6, num_beams=3, do_sample=False)
    alone = writer(kind).generate(**{n: x[:1] for n, x in inputs(kind, 2).items()}, max_new_tokens=6, num_beams=3)
    assert found[0, : alone.shape[1]].tolist() == alone[0].tolist()


@pytest.mark.parametrize("kind", ["content", "location", "pointer"])
def test_padding_changes_nothing(kind: str) -> None:
    model = writer(kind)
    if kind == "pointer":
        ids = inputs(kind)["input_ids"]
        short = {"input_ids": ids}
        padded = {"input_ids": torch.cat([ids, ids.new_zeros(1, 4)], 1), "attention_mask": torch.ones(1, 13).long()}
        padded["attention_mask"][0, 9:] = 0
    else:
        make = torch.randn(1, 40, 12, generator=torch.Generator().manual_seed(0))
        short = {"input_features": make, "lengths": torch.tensor([40])}
        padded = {"input_features": torch.cat([make, torch.zeros(1, 16, 12)], 1), "lengths": torch.tensor([40])}
    one, other = (model(**each, decoder_input_ids=WORDS).logits for each in (short, padded))
    assert torch.allclose(one, other, atol=1e-5)


def test_a_pointer_mixes_generating_and_copying() -> None:
    """P(w) = p_gen softmax(W out)_w + (1 - p_gen) Σ_{j: x_j = w} α_j, summed over every word in turn."""
    model, ids = writer("pointer"), inputs("pointer")["input_ids"]
    encoded = model.encode({"input_ids": ids})
    steps, past = model.steps(WORDS, encoded)
    wanted = (1 - steps.copying[0, :, None]) * model.lm_head(steps.out)[0].softmax(-1)
    for step in range(WORDS.shape[1]):
        for slot, word in enumerate(ids[0].tolist()):
            wanted[step, word] += steps.copying[0, step] * steps.weights[0, step, slot]
    found = model.logits(steps, past)[0].exp()
    assert torch.allclose(found, wanted, atol=1e-6) and torch.allclose(found.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_writer_is_loaded_as_it_was_and_its_head_is_known(kind: str, tmp_path: Path) -> None:
    register()
    model = writer(kind)
    model.save_pretrained(tmp_path)
    again = opened(tmp_path).model
    one, other = (each(**inputs(kind), decoder_input_ids=WORDS).logits for each in (model, again))
    assert torch.equal(one, other) and type(again) is type(model)
    head = head_of(again)
    assert head is not None and head.task in ("image-to-text", "automatic-speech-recognition", "text2text-generation")
