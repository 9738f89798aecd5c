"""answer and summarise: spans of SQuAD's format on a pretrained encoder, and a pointer that copies names."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from regard.errors import UserError
from regard.hf.see import look
from regard.seq2seq.directory import opened
from regard.tasks.found import kind
from regard.tasks.recipe import recipe_of
from regard.tasks.run import run
from tests.hf.answers.toys import IDS, SHAPE, SPECIAL, WORDS, tokenizer

ANIMALS, PLACES = ("cat", "dog"), ("mat", "rain", "sun", "moon", "sky")


def silent(line: str) -> None:
    pass


def squad(folder: Path, count: int = 24) -> Path:
    """Where an animal sat, asked of sentences of few words."""
    draw, paragraphs = random.Random(0), []
    for number in range(count):
        animal, place = draw.choice(ANIMALS), draw.choice(PLACES)
        text = f"the {animal} sat in the big {place} and ran"
        answers = [{"text": place, "answer_start": text.index(place)}]
        qa = {"id": str(number), "question": f"where is the {animal}", "answers": answers}
        paragraphs.append({"context": text, "qas": [qa]})
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    size = len(WORDS) + len(SPECIAL)
    tf.BertModel(tf.BertConfig(**SHAPE, **IDS, vocab_size=size, max_position_embeddings=64)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_answer_goes_on_from_an_encoder(encoder: Path, tmp_path: Path) -> None:
    data = squad(tmp_path)
    asked = {"start": str(encoder), "tokens": 256, "rate": 0.005, "warmup": 10, "limit": 40, "epochs": 100}
    recipe = recipe_of("answer", {**asked, "evaluate": 80})
    result = run(recipe, tmp_path / "run", [data], [data], [data], steps=80, note=silent)
    assert result["test"]["exact"] >= 0.9, result
    trace = look(opened(tmp_path / "run"), "the cat sat in the big moon and ran", question="where is the cat")
    assert trace.answer is not None and trace.answer.text == "moon"


@pytest.mark.parametrize(
    "text,words",
    [
        ("no json", "is not of SQuAD's format"),
        ('{"data": [{}]}', "is not of SQuAD's format"),
        ('{"data": []}', "holds no questions"),
        (
            '{"data": [{"paragraphs": [{"context": "", "qas": [{"id": "7", "question": "who", "answers": '
            '[{"text": "", "answer_start": 0}]}]}]}]}',
            "question 7 of .* lacks its text",
        ),
        (
            '{"data": [{"paragraphs": [{"context": "a cat", "qas": [{"id": "7", "question": "who", "answers": '
            '[{"text": "dog", "answer_start": 2}]}]}]}]}',
            "question 7 of .*: 'dog' does not stand at its answer_start",
        ),
    ],
)
def test_bad_squad_files_are_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=words):
        kind("answer").read([tmp_path / "bad.json"])


def test_answer_needs_a_pretrained_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answer goes on from a pretrained encoder; name its directory with --from"):
        run(recipe_of("answer", {}), tmp_path / "run", [squad(tmp_path)], [squad(tmp_path)], note=silent)


def test_a_summariser_copies_names_that_it_never_saw(tmp_path: Path) -> None:
    """Names of letters in any order: only copying can write those of the test part."""
    draw = random.Random(0)

    def line() -> str:
        name = "".join(draw.choice("abcdefgh") for _ in range(3))
        return f"so {name} won it\t{name} won\n"

    for part, count in (("train", 300), ("test", 40)):
        (tmp_path / f"{part}.tsv").write_text("".join(line() for _ in range(count)))
    asked: dict[str, Any] = {"width": 24, "vocabulary": 64, "tokens": 256, "rate": 0.01, "warmup": 10, "dropout": 0.0}
    recipe = recipe_of("summarise", {**asked, "average": 0.9, "evaluate": 250, "epochs": 100})
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    result = run(recipe, tmp_path / "run", [train], [test], [test], steps=250, note=silent)
    assert result["test"]["exact"] >= 0.8, result
    text = test.read_text().splitlines()[0].split("\t")[0]
    trace = look(opened(tmp_path / "run"), text)
    assert trace.answer is not None and trace.layers[-1].kind == "cross"
    assert trace.axes[trace.layers[-1].key_axis].kind == "text"


def test_summarise_refuses_a_model_that_does_not_write(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "data.tsv").write_text("a b\tb\nb a\ta\n")
    with pytest.raises(UserError, match="is no encoder–decoder with a tokenizer; --from takes one for summarise"):
        data = [tmp_path / "data.tsv"]
        run(recipe_of("summarise", {"start": str(encoder)}), tmp_path / "run", data, data, note=silent)
