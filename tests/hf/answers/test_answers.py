"""The answer of every head is transformers' own; where it has no pipeline, its generate or argmax written out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

import regard
from regard.hf.answers import every, head_of
from regard.hf.load import Loaded
from regard.hf.see import answer, look
from regard.seeing.trace import Trace
from tests.hf.answers.toys import MODELS, PICTURES, SOUNDS, TEXT, model, processor, tokenizer

QUESTION = "where is the cat"


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return Image.fromarray(values)


def sound() -> tuple[Any, int]:
    return np.random.default_rng(0).standard_normal(16000).astype(np.float32), 16000


def loaded(kind: str) -> Loaded:
    return Loaded(model(kind), None if kind in ("image", "audio") else tokenizer(), processor(kind))


def given(kind: str) -> Any:
    return picture() if kind in PICTURES else sound() if kind in SOUNDS else TEXT.replace("red", "[MASK]")


def seen(kind: str, **more: Any) -> Trace:
    return look(loaded(kind), given(kind), watch=(), keep="qk", **more)


def pipeline(task: str, kind: str, **more: Any) -> Any:
    parts = {"tokenizer": tokenizer()} if kind not in PICTURES + SOUNDS else {}
    parts |= {"image_processor": processor(kind)} if kind in PICTURES else {}
    parts |= {"feature_extractor": processor(kind)} if kind in SOUNDS else {}
    return tf.pipeline(task, model=model(kind), **parts, **more)


@pytest.mark.parametrize(
    "kind,task",
    [
        ("sequence", "text-classification"),
        ("causal sequence", "text-classification"),
        ("sequence beside", "text-classification"),
        ("image", "image-classification"),
        ("audio", "audio-classification"),
    ],
)
def test_labels_are_the_pipelines(kind: str, task: str) -> None:
    heard = given(kind)[0] if kind == "audio" else given(kind)
    theirs = pipeline(task, kind)(heard, top_k=3)
    ours = seen(kind).answer
    assert ours is not None and ours.task == task
    assert [choice.text for choice in ours.choices] == [each["label"] for each in theirs]
    for choice, each in zip(ours.choices, theirs, strict=True):
        assert choice.probability == pytest.approx(each["score"], abs=1e-6)
    assert (ours.text, ours.confidence) == (ours.choices[0].text, ours.choices[0].probability)


def test_the_fill_of_a_mask_is_the_pipelines() -> None:
    theirs = pipeline("fill-mask", "masked")(given("masked"))
    ours = seen("masked").answer
    assert ours is not None
    assert [choice.text for choice in ours.choices] == [each["token_str"] for each in theirs]
    assert [choice.probability for choice in ours.choices] == pytest.approx([e["score"] for e in theirs], abs=1e-6)
    assert ours.rows == [7]
    none = look(loaded("masked"), "the cat sat", watch=(), keep="qk").answer
    assert none is not None and "holds no mask to fill; write [MASK]" in none.note and not none.text


def test_the_tags_of_tokens_are_the_pipelines() -> None:
    theirs = pipeline("token-classification", "token")(TEXT)
    ours = look(loaded("token"), TEXT, watch=(), keep="qk").answer
    assert ours is not None and theirs
    assert [(p.text.strip(), p.label, p.slot) for p in ours.pieces] == [
        (each["word"], each["entity"], each["index"]) for each in theirs
    ]
    assert [p.probability for p in ours.pieces] == pytest.approx([each["score"] for each in theirs], abs=1e-6)


def test_a_continuation_is_the_pipelines_and_the_next_token_its_first() -> None:
    theirs = pipeline("text-generation", "causal")(TEXT, max_new_tokens=6, do_sample=False, return_full_text=False)
    ours = look(loaded("causal"), TEXT, max_new_tokens=6, watch=(), keep="qk").answer
    assert ours is not None and ours.text == theirs[0]["generated_text"].strip()
    length = len(tokenizer()(TEXT)["input_ids"])
    assert ours.rows == list(range(length - 1, length - 1 + len(ours.pieces)))
    first = look(loaded("causal"), TEXT, watch=(), keep="qk").answer
    with torch.no_grad():
        logits = model("causal")(**tokenizer()(TEXT, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
    assert first is not None and first.text == tokenizer().decode([int(logits.argmax())])
    assert first.confidence == pytest.approx(float(logits.softmax(-1).max()), abs=1e-6)
    assert first.choices[0].probability == pytest.approx(ours.choices[0].probability or 0.0, abs=1e-5)


def test_the_span_of_a_question_is_the_likeliest() -> None:
    both = tokenizer()(QUESTION, TEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets, inside = both.pop("offset_mapping")[0].tolist(), [which == 1 for which in both.sequence_ids()]
    with torch.no_grad():
        out = model("question")(**both)
    start, end = (
        torch.where(torch.tensor(inside), logits[0], float("-inf")).softmax(-1).double()
        for logits in (out.start_logits, out.end_logits)
    )
    pairs = [
        (float(start[i] * end[j]), i, j)
        for i in range(len(inside))
        for j in range(i, min(i + 30, len(inside)))
        if inside[i] and inside[j]
    ]
    chance, first, last = max(pairs)
    ours = look(loaded("question"), TEXT, question=QUESTION, watch=(), keep="qk").answer
    assert ours is not None and ours.text == TEXT[offsets[first][0] : offsets[last][1]]
    assert ours.confidence == pytest.approx(chance, abs=1e-6)
    assert ours.rows == list(range(first, last + 1))
    silent = look(loaded("question"), TEXT, watch=(), keep="qk").answer
    assert silent is not None and "--question" in silent.note


@pytest.mark.parametrize("kind", ["speech", "caption", "text to text"])
def test_what_is_written_is_generates(kind: str) -> None:
    both = loaded(kind)
    if kind == "text to text":
        inputs = dict(both.tokenizer(given(kind), return_tensors="pt", return_token_type_ids=False))
    elif kind == "caption":
        inputs = dict(both.processor(images=given(kind), return_tensors="pt"))
    else:
        inputs = dict(both.processor(given(kind)[0], sampling_rate=16000, return_tensors="pt"))
    with torch.no_grad():
        ids = both.model.generate(**inputs, max_new_tokens=8, do_sample=False, num_beams=1)
        decoder = ids if int(ids[0, 0]) == 1 else torch.cat([torch.tensor([[1]]), ids], 1)
        chances = both.model(**inputs, decoder_input_ids=decoder[:, :-1]).logits[0].softmax(-1)
    trace = seen(kind, max_new_tokens=8)
    ours = trace.answer
    assert ours is not None and ours.text == both.tokenizer.decode(decoder[0], skip_special_tokens=True).strip()
    each = chances[torch.arange(decoder.shape[1] - 1), decoder[0, 1:]]
    assert ours.confidence == pytest.approx(float(each.log().mean().exp()), rel=1e-4)
    assert ours.rows == list(range(len(ours.pieces)))
    assert ours.axis is not None and trace.axes[ours.axis].axis.length == decoder.shape[1] - 1


def test_a_transcript_of_frames_is_the_pipelines() -> None:
    parts = {"tokenizer": tokenizer(), "feature_extractor": processor("frames")}
    theirs = tf.pipeline("automatic-speech-recognition", model=model("frames"), **parts)(sound()[0].copy())
    ours = seen("frames").answer
    assert ours is not None and ours.text == theirs["text"] and ours.text


def test_a_target_that_was_given_has_the_models_confidence() -> None:
    ours = look(loaded("text to text"), TEXT, target="the dog ran", watch=(), keep="qk").answer
    assert ours is not None and ours.text == "the dog ran" and ours.note and ours.confidence is not None
    assert 0 < ours.confidence < 1


def test_an_unknown_head_says_so_and_shows_its_attention() -> None:
    trace = seen("no head")
    assert trace.answer is not None and trace.answer.task == ""
    assert trace.answer.note == "BertModel has no head whose answer is known; its attention is shown alone"
    assert len(trace.layers) == 2


@pytest.mark.parametrize("kind", MODELS)
def test_unwatched_it_answers_the_same(kind: str) -> None:
    question = QUESTION if kind == "question" else None
    watched, plain = seen(kind, question=question).answer, answer(loaded(kind), given(kind), question=question)
    assert watched is not None and (watched.text, watched.note) == (plain.text, plain.note)
    assert watched.confidence == pytest.approx(plain.confidence, abs=1e-6)


def test_every_head_is_told_from_the_others() -> None:
    found = {kind: head.task for kind in MODELS if (head := head_of(model(kind))) is not None}
    assert "no head" not in found and set(found.values()) == {head.task for head in every()}


def test_several_texts_have_an_answer_each() -> None:
    texts = [TEXT, "the dog ran"]
    both = look(loaded("sequence"), texts, watch=(), keep="qk").answers
    alone = [answer(loaded("sequence"), text) for text in texts]
    assert [each.text for each in both] == [each.text for each in alone]
    assert [each.confidence for each in both] == pytest.approx([each.confidence for each in alone], abs=1e-5)


def test_an_answer_is_saved_with_its_trace(tmp_path: Any) -> None:
    trace = seen("token")
    trace.save(tmp_path / "a.safetensors")
    assert Trace.load(tmp_path / "a.safetensors").answer == trace.answer


@pytest.mark.parametrize(
    "kind,text,question,words",
    [
        ("sequence", TEXT, QUESTION, "does not answer questions on a text; leave --question out"),
        ("question", " ", QUESTION, "a question is asked about a text; give the text as INPUT"),
        ("question", TEXT, " ", "the question is empty"),
        ("question", "cat " * 70, QUESTION, "question and text have .* positions for 64; shorten them"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(kind: str, text: str, question: str, words: str) -> None:
    with pytest.raises(regard.Unsupported, match=words):
        look(loaded(kind), text, question=question, watch=(), keep="qk")


def test_a_label_that_the_config_lacks_is_named() -> None:
    both = loaded("sequence")
    del both.model.config.id2label[1]
    with pytest.raises(regard.Unsupported, match=r"names no label 1 .it names 2.; add it to id2label"):
        look(both, TEXT, watch=(), keep="qk")
