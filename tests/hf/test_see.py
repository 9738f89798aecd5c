"""regard.see in Python: what it takes, and what it refuses in one sentence."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import regard
from regard.hf.load import Loaded
from regard.hf.media import log_mel, outline, picture_of
from regard.run import native
from regard.seeing.statistics import Maximum
from tests.hf.models import BY_NAME, feed


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return regard.load()


def test_a_batch_of_texts_equals_each_alone(loaded: Loaded) -> None:
    texts = ["Once there was a fox in the forest.", "The end."]
    batch = regard.see(loaded.model, loaded.tokenizer, texts)
    for number, text in enumerate(texts):
        alone = regard.see(loaded.model, loaded.tokenizer, text)
        valid = batch.axes["decoder"].axis.valid[number]
        assert [t for t, seen in zip(batch.axes["decoder"].text[number], valid) if seen] == alone.axes["decoder"].text[
            0
        ]
        for many, one in zip(batch.layers, alone.layers, strict=True):
            for head in one.heads:
                cells = batch.weights(many, head, batch=number)[valid][:, valid]
                assert torch.allclose(cells, alone.weights(one, head), atol=1e-5)
            for label, value in one.summaries.items():
                if label not in ("overview", "received"):
                    assert torch.allclose(many.summaries[label][number], value[0], atol=1e-4), label


def test_generation_up_to_the_last_position_and_not_beyond() -> None:
    case = BY_NAME["gpt2"]
    model = case.build()
    model.generation_config.eos_token_id = None
    ids = feed(case, batch=1, length=120)["input_ids"]
    trace = regard.see(model, None, {"input_ids": ids}, watch=[Maximum()], max_new_tokens=8)
    assert trace.axes["decoder"].axis.length == 127
    with pytest.raises(regard.Unsupported, match="120 tokens and 9 new ones exceed the model's 128 positions"):
        regard.see(model, None, {"input_ids": ids}, max_new_tokens=9)
    with pytest.raises(regard.Unsupported, match="at least 0 new tokens, got"):
        regard.see(model, None, {"input_ids": ids}, max_new_tokens=-1)


def test_a_tokenizer_without_special_tokens() -> None:
    loaded = regard.load()
    for name in ("bos_token", "eos_token", "pad_token"):
        setattr(loaded.tokenizer, name, None)
    trace = regard.see(loaded.model, loaded.tokenizer, "a fox")
    assert trace["special"][0]["rows"].shape[-1] == trace.axes["decoder"].axis.length
    with pytest.raises(regard.Unsupported, match="has no padding token, so give one text at a time"):
        regard.see(loaded.model, loaded.tokenizer, ["a fox", "the dog ran"])


@pytest.mark.parametrize(
    "given,words",
    [
        (None, "an input is a text, an image"),
        (b"abc", "an input is a text, an image"),
        (3, "an input is a text, an image"),
        ([1, 2, 3], "a list of inputs holds texts"),
        ([], "the text is empty"),
        (["a", ""], "the text is empty"),
        ("a \udc80", "not UTF-8"),
    ],
)
def test_inputs_that_mean_nothing_are_refused(given: Any, words: str, loaded: Loaded) -> None:
    with pytest.raises(regard.Unsupported, match=words):
        regard.see(loaded.model, loaded.tokenizer, given)


def test_layers_heads_and_backends_that_do_not_exist_are_refused_before_the_model_runs(loaded: Loaded) -> None:
    for options, words in (
        ({"layers": [4]}, "LlamaForCausalLM has layers 0 to 3; layer 4 was asked for"),
        ({"layers": [-1]}, "has layers 0 to 3; layer -1 was asked for"),
        ({"backend": "cuda"}, "no backend 'cuda'; there are: model, auto, native, triton"),
    ):
        with pytest.raises(ValueError, match=words), regard.attach(loaded.model, **options):
            pytest.fail("the block ran")
    with pytest.raises(regard.Unsupported, match="has heads 0 to 5; head -1 was asked for"):
        regard.see(loaded.model, loaded.tokenizer, "a fox", heads=[-1])


def test_a_tower_with_more_layers_than_the_text_model_can_be_named() -> None:
    model = BY_NAME["whisper"].build()
    assert model.config.decoder_layers == 2
    with regard.attach(model, layers=[1]) as trace, torch.no_grad():
        model(**feed(BY_NAME["whisper"]))
    assert {layer.index for layer in trace.layers} == {1}


# ---- nothing falls back in silence ----------------------------------------------------------------------------------


def made(backend: str, mechanism: str | None, *watch: Any) -> dict[str, Any]:
    case = BY_NAME["gpt2"]
    model, given = case.build(), feed(case, batch=1, length=9)
    with torch.no_grad(), regard.attach(model, watch or None, backend=backend, mechanism=mechanism) as trace:
        model(**given)
    return trace.made


def test_a_backend_that_was_passed_over_is_named_with_its_reason() -> None:
    found = made("auto", "sigmoid")
    assert found["output"] == "strips" and found["watched_by"] == ["strips"]
    said = {(other["what"], other["backend"], other["taken"], other["reason"]) for other in found["passed_over"]}
    expected = "Sigmoid: is not a softmax" if native.available() else native.why_unavailable()
    assert {other[:3] for other in said} == {
        ("output", "native", "strips"),
        ("output", "sdpa", "strips"),
        ("statistics", "native", "strips"),
    }
    assert all(str(expected) in reason or backend == "sdpa" for _, backend, _, reason in said)
    assert all(other["layers"] == ["transformer.h.0.attn", "transformer.h.1.attn"] for other in found["passed_over"])


def test_a_statistic_without_a_core_form_says_that_strips_reduced_it() -> None:
    class Own(Maximum):
        def core(self, view: Any, rows: slice) -> None:  # type: ignore[override]
            return None

    found = made("model", None, Own())
    assert found["output"] == "the model's own attention" and found["watched_by"] == ["strips"]
    [said] = found["passed_over"]
    assert said["reason"] == "max: is a statistic with no form in the core vocabulary"


@pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))
def test_nothing_is_said_where_the_first_backend_was_taken() -> None:
    for backend in ("auto", "native"):
        found = made(backend, None)
        assert (found["output"], found["watched_by"], found["passed_over"]) == ("native", ["native"], [])
    assert made("sdpa", "causal", Maximum())["output"] == "sdpa"


def test_a_name_in_place_of_a_model_is_loaded(loaded: Loaded) -> None:
    from regard.hf.load import DEFAULT

    named = regard.see(str(DEFAULT), "a fox")
    assert named.tokens == regard.see(loaded.model, loaded.tokenizer, "a fox").tokens
    with pytest.raises(regard.Unsupported, match="brings its own tokenizer"):
        regard.see(str(DEFAULT), loaded.tokenizer, "a fox")
    with pytest.raises(regard.Unsupported, match="a model is a transformers model, a directory or a hub name, not"):
        regard.see(loaded, "a fox")  # type: ignore[arg-type]


def test_bytes_of_a_character_read_as_that_character(loaded: Loaded) -> None:
    text = regard.see(loaded.model, loaded.tokenizer, "日 “so” naïve\ufffd.").tokens["decoder"]
    assert text[1:4] == ["日 1/3", "日 2/3", "日 3/3"]
    assert [piece.strip()[0] for piece in text if piece.endswith("/3")][3] == "“"
    assert "ï 1/2" in text and "ï 2/2" in text


def test_generated_tokens_are_told_from_the_prompt(loaded: Loaded, tmp_path: Path) -> None:
    prompt = len(loaded.tokenizer("Once upon a time")["input_ids"])
    trace = regard.see(loaded.model, loaded.tokenizer, "Once upon a time", max_new_tokens=4)
    assert trace.axes["decoder"].prompt == prompt < trace.axes["decoder"].axis.length
    trace.save(tmp_path / "one.safetensors")
    assert regard.Trace.load(tmp_path / "one.safetensors").axes["decoder"].prompt == prompt
    assert regard.see(loaded.model, loaded.tokenizer, "Once upon a time").axes["decoder"].prompt is None


def test_a_picture_and_a_sound_lie_under_their_axes() -> None:
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[:, 0, :, 4:] = 1.0
    processor = SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3, do_normalize=True)
    shown = picture_of(pixels, processor)
    assert shown is not None and shown.shape == (1, 8, 8, 3)
    assert shown[0, 0, 0].tolist() == [128, 128, 128] and shown[0, 0, 7].tolist() == [255, 128, 128]
    wave = outline(torch.tensor([0.0, 1.0, -1.0, 0.5]), 8)
    assert wave.shape == (1, 8, 2) and wave[0, :4, 1].tolist() == [0.0, 1.0, -1.0, 0.5] and not wave[0, 4:].any()


def test_a_spectrogram_has_a_tone_in_its_band_while_it_lasts() -> None:
    rate = 8000
    time = torch.arange(rate) / rate
    tone = torch.sin(2 * torch.pi * 1000 * time) * (time < 0.5)
    drawn = log_mel(tone, rate, 2 * rate)
    assert drawn.dtype is torch.uint8 and drawn.shape == (1, 48, 200)
    mel = 2595 * math.log10(1 + 1000 / 700) / (2595 * math.log10(1 + 4000 / 700))
    assert abs(int(drawn[0, :, 20].argmax()) - 48 * mel) <= 1.5 and int(drawn.max()) == 255
    assert int(drawn[0, :, 70:].max()) == 0
    assert not log_mel(torch.zeros(10), rate, 10).any()
