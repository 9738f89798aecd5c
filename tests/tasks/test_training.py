"""regard train --task: each learns its tiny data, twice the same, goes on where it stopped, and says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from regard.cli.reading import read_input
from regard.errors import UserError
from regard.hf.see import look
from regard.seq2seq.directory import opened
from regard.tasks.found import every, kind
from regard.tasks.metrics import accuracy, macro_f1, token_f1, word_error_rate
from regard.tasks.recipe import recipe_of
from regard.tasks.run import run
from regard.tasks.words import word_tokenizer
from tests.tasks.toys import pictures, sentences, sounds, write_wav

DATA = {"classify": sentences, "look": pictures, "caption": pictures, "listen": sounds}
SMALL: dict[str, dict[str, Any]] = {
    "classify": {"width": 16, "tokens": 256, "rate": 0.02, "warmup": 5, "average": 0.5, "mask": 0.0, "dropout": 0.0},
    "look": {"width": 16, "layers": 1, "heads": 2, "tokens": 16, "rate": 0.01, "warmup": 5, "average": 0.5},
    "caption": {"width": 16, "tokens": 16, "rate": 0.02, "warmup": 5, "average": 0.5},
    "listen": {"width": 24, "tokens": 600, "rate": 0.01, "warmup": 5, "average": 0.5, "mask": 0.0, "dropout": 0.0},
}
STEPS = {"listen": 250}
GOOD = {"classify": 0.95, "look": 0.95, "caption": 0.95, "listen": -0.1}


def silent(line: str) -> None:
    pass


def trained(task: str, folder: Path, data: Path, steps: int, **more: Any) -> dict[str, Any]:
    recipe = recipe_of(task, {**SMALL[task], "evaluate": 10**6, "epochs": 1000, **more})
    return run(recipe, folder, [data], [data], [data], steps=steps, note=silent)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, dict[str, Any]]]:
    """Every task once: the model's directory, its data, what came of it."""
    found = {}
    for task, write in DATA.items():
        root = tmp_path_factory.mktemp(task)
        data = write(root)
        steps = STEPS.get(task, 60)
        recipe = recipe_of(task, {**SMALL[task], "evaluate": steps, "epochs": 1000})
        found[task] = root / "run", data, run(recipe, root / "run", [data], [data], [data], steps=steps, note=silent)
    return found


@pytest.mark.parametrize("task", DATA)
def test_it_learns_and_its_directory_answers(task: str, made: Any) -> None:
    folder, data, result = made[task]
    assert result["test"]["score"] >= GOOD[task], result
    assert {"config.json", "model.safetensors", "README.md", "metrics.json"} <= {p.name for p in folder.iterdir()}
    assert f"regard train --task {task}" in (folder / "README.md").read_text()
    first, wanted = data.read_text().splitlines()[0].split("\t")
    given = first if task == "classify" else read_input(str(data.parent / first))
    trace = look(opened(folder), given)
    assert trace.answer is not None and trace.answer.text == wanted
    assert trace.layers and trace.answer.confidence is not None and trace.answer.confidence > 0.5


@pytest.mark.parametrize("task", DATA)
def test_stopped_and_gone_on_with_it_is_the_unbroken_training(task: str, made: Any, tmp_path: Path) -> None:
    data = made[task][1]
    whole = trained(task, tmp_path / "whole", data, 6)
    trained(task, tmp_path / "parts", data, 3)
    parts = trained(task, tmp_path / "parts", data, 6)
    assert whole["steps"] == parts["steps"] == 6
    bytes_of = [(tmp_path / name / "training" / "checkpoint.safetensors").read_bytes() for name in ("whole", "parts")]
    assert _tensors(bytes_of[0]) == _tensors(bytes_of[1])


def _tensors(content: bytes) -> bytes:
    """A safetensors file without its header, which holds the time."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_the_captioner_looks_by_patches_and_the_listener_by_seconds(made: Any) -> None:
    folder, data, _ = made["caption"]
    trace = look(opened(folder), read_input(str(data.parent / "0.png")))
    keys = trace.axes[trace.layers[-1].key_axis]
    assert keys.kind == "patches" and keys.grid == (2, 2) and keys.picture is not None
    folder, data, _ = made["listen"]
    trace = look(opened(folder), read_input(str(data.parent / "0.wav")))
    keys = trace.axes[trace.layers[-1].key_axis]
    assert keys.kind == "frames" and keys.seconds is not None and keys.wave is not None
    assert trace.layers[-1].query_axis == trace.answer.axis  # type: ignore[union-attr]


def test_hard_attention_learns_by_its_draws(made: Any, tmp_path: Path) -> None:
    result = trained("caption", tmp_path / "hard", made["caption"][1], 60, attention="hard", evaluate=60)
    assert result["test"]["score"] >= 0.9


def test_a_training_goes_on_from_another_model(made: Any, tmp_path: Path) -> None:
    folder, data, result = made["caption"]
    again = trained("caption", tmp_path / "on", data, 5, start=str(folder), evaluate=5, rate=1e-4)
    assert again["test"]["score"] >= result["test"]["score"] - 0.1
    with pytest.raises(UserError, match="is no captioner of regard; --from takes one for caption"):
        trained("caption", tmp_path / "no", data, 5, start=str(made["look"][0]))


def test_a_sound_of_another_rate_is_resampled_and_that_is_said(made: Any, tmp_path: Path) -> None:
    folder, data, _ = made["listen"]
    shutil.copytree(data.parent, tmp_path / "sounds", ignore=shutil.ignore_patterns("run"))
    write_wav(tmp_path / "sounds" / "0.wav", [0.1] * 16000, 16000)
    told: list[str] = []
    kind("listen").items(
        _tools(folder), kind("listen").read([tmp_path / "sounds" / "sounds.tsv"]), recipe_of("listen", {}), told
    )
    assert told == ["1 sounds were resampled to 8000 samples a second"]


def _tools(folder: Path) -> Any:
    from regard.tasks.kind import Tools

    loaded = opened(folder)
    return Tools(loaded.model, loaded.tokenizer, loaded.processor)


BAD = {
    "columns": ("classify", "good film\n", "line 1 of data.tsv has 1 columns; a line is text, tab, label"),
    "empty side": ("classify", "good\t1\n\t0\n", "line 2 of data.tsv has an empty text or label"),
    "one label": ("classify", "good\t1\nfine\t1\n", "every example has the label '1'"),
    "nothing": ("classify", "", "data.tsv is empty"),
    "missing picture": ("look", "no.png\tred\n", "line 1 of data.tsv names no.png, and there is no such file"),
    "no picture": (
        "look",
        "data.tsv\tred\ndata.tsv\tblue\n",
        "line 1 of data.tsv names data.tsv, which is not an image",
    ),
    "missing wav": ("listen", "no.wav\tlow\n", "line 1 of data.tsv names no.wav, and there is no such file"),
    "no wav": ("listen", "data.tsv\tlow\n", "line 1 of data.tsv names data.tsv, which is not a PCM wav file"),
    "silence": ("listen", "silent.wav\tlow\n", "names silent.wav, which holds no sound"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, text, words = BAD[name]
    monkeypatch.chdir(tmp_path)
    Path("data.tsv").write_text(text)
    write_wav(Path("silent.wav"), [], 8000)
    with pytest.raises(UserError) as error:
        run(recipe_of(task, SMALL[task]), Path("run"), [Path("data.tsv")], [Path("data.tsv")], note=silent)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_label_that_training_did_not_have_is_named(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.tsv"
    path.write_text("good\t7\n")
    recipe = recipe_of("classify", {**SMALL["classify"], "epochs": 1})
    with pytest.raises(UserError, match="the model has no label '7'; it has '0', '1'"):
        run(recipe, tmp_path / "run", [made["classify"][1]], [path], note=silent)


@pytest.mark.parametrize(
    "task,asked,words",
    [
        ("sing", {}, "--task is one of translate, "),
        ("listen", {"attention": "hard"}, "--attention of listen is one of content, local_m, location"),
        ("caption", {"attention": "content"}, "--attention of caption is one of soft, hard"),
        ("classify", {"mask": 1.5}, "mask lies in"),
        ("classify", {"width": 0}, "width is at least 1, got 0"),
    ],
)
def test_recipes_that_cannot_be_are_refused(task: str, asked: Any, words: str, made: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        data = made[task][1] if task in made else tmp_path
        run(recipe_of(task, asked), tmp_path / "run", [data], [data], note=silent)


def test_jsonl_is_read_as_tsv_is(tmp_path: Path) -> None:
    rows = [{"text": "good", "label": "1"}, {"text": "bad", "label": "0"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert kind("classify").read([tmp_path / "a.jsonl"]) == [("good", "1"), ("bad", "0")]
    (tmp_path / "b.jsonl").write_text('{"text": "good"}\n')
    with pytest.raises(UserError, match=r"line 1 of .*b.jsonl is no JSON object with 'text' and 'label'"):
        kind("classify").read([tmp_path / "b.jsonl"])


def test_metrics_are_the_fields() -> None:
    assert accuracy(["a", "b"], ["a", "a"]) == 0.5
    assert macro_f1(["a", "b", "b"], ["a", "a", "b"]) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert word_error_rate(["one three", "two"], ["one two three", "two"]) == pytest.approx(1 / 4)
    assert token_f1("the red cat", "red cat") == pytest.approx(0.8)


def test_every_task_has_a_test_here() -> None:
    assert set(every()) >= set(DATA)


def test_words_are_written_with_spaces_between_them() -> None:
    tokenizer = word_tokenizer(["red circle, blue square"], 50, 20)
    ids = tokenizer("blue circle, red square")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",") == "blue circle, red square"
    with pytest.raises(UserError, match="the texts hold 5 words and marks; --vocabulary takes more than 8"):
        word_tokenizer(["red circle, blue square"], 8, 20)
