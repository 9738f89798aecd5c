"""The answer in what `regard see` prints and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regard import cli
from regard.view.image import image
from regard.view.page import html
from regard.view.scene import scene
from tests.hf.answers.toys import TEXT, saved

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def once(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regard", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return once


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toys")
    for kind in ("sequence", "question", "image", "no head"):
        saved(kind, root / kind.replace(" ", "-"))
    return root


def test_the_terminal_shows_the_answer_and_what_it_looked_at(run: Run, toys: Path) -> None:
    code, out, _ = run("see", str(toys / "question"), TEXT, "--question", "where is the cat")
    assert code == 0 and "answer  " in out and "what the answer looked at" in out
    code, out, _ = run("see", str(toys / "no-head"), TEXT)
    assert code == 0 and "BertModel has no head whose answer is known" in out


def test_json_page_picture_and_trace_hold_the_answer(run: Run, toys: Path) -> None:
    import regard

    code, out, _ = run("see", str(toys / "sequence"), TEXT, "--json", "--out", "a.safetensors")
    told = json.loads(out)["answer"]
    trace = regard.Trace.load("a.safetensors")
    assert code == 0 and trace.answer is not None and trace.answer.text == told["text"]
    drawn = scene(trace)
    assert drawn["answer"]["text"] == told["text"] and drawn["answer"]["rows"] == [0]
    assert f'"text":"{told["text"]}"' in html(trace)
    assert told["text"] in image(trace, "svg").decode()


def test_a_file_of_inputs_is_answered_line_by_line(run: Run, toys: Path) -> None:
    texts = [TEXT, "the dog ran", "the sky was blue"]
    Path("in.txt").write_text("\n".join([texts[0], "", *texts[1:]]) + "\n")
    for name in ("out.jsonl", "out.json", "out.tsv"):
        code, out, _ = run("see", str(toys / "sequence"), "--batch", "in.txt", "--out", name)
        assert code == 0 and out == f"{name}: 3 answers\n"
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["input"] for row in rows] == texts and rows == json.loads(Path("out.json").read_text())
    one = json.loads(run("see", str(toys / "sequence"), texts[1], "--json")[1])["answer"]
    assert (rows[1]["text"], rows[1]["confidence"]) == (one["text"], pytest.approx(one["confidence"], abs=1e-6))
    cells = [line.split("\t") for line in Path("out.tsv").read_text().splitlines()]
    assert [cell[:2] for cell in cells] == [[row["input"], row["text"]] for row in rows]


def test_a_file_of_pictures_and_one_of_questions(run: Run, toys: Path) -> None:
    Path("pictures").mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (20, 20), colour).save(Path("pictures") / name)
    Path("pictures/list.txt").write_text("a.png\nb.png\n")
    assert run("see", str(toys / "image"), "--batch", "pictures/list.txt", "--out", "o.jsonl")[0] == 0
    assert [json.loads(line)["input"] for line in Path("o.jsonl").read_text().splitlines()] == ["a.png", "b.png"]
    Path("asked.tsv").write_text(f"where is the cat\t{TEXT}\n")
    assert run("see", str(toys / "question"), "--batch", "asked.tsv", "--out", "q.jsonl")[0] == 0
    assert json.loads(Path("q.jsonl").read_text())["text"] in TEXT


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("sequence", "--batch", "in.txt"), "--batch takes its inputs from a file"),
        (("sequence", TEXT, "--batch", "in.txt", "--out", "o.jsonl"), "--batch takes its inputs from a file"),
        (("sequence", "--batch", "in.txt", "--out", "o.html"), "its name must end in .jsonl, .json, .tsv"),
        (("sequence", "--batch", "empty.txt", "--out", "o.jsonl"), "empty.txt holds no inputs"),
        (("sequence", "--batch", "none.txt", "--out", "o.jsonl"), "there is no file none.txt"),
        (("image", "--batch", "in.txt", "--out", "o.jsonl"), "line 1 of in.txt: ViTForImageClassification"),
        (("image", "--batch", "paths.txt", "--out", "o.jsonl"), "line 1 of paths.txt: there is no file missing.png"),
        (("question", "--question", "where is the cat"), "--question asks about a text"),
        (("sequence", TEXT, "--question", "where is it"), "does not answer questions on a text"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(run: Run, toys: Path, arguments: Any, words: str) -> None:
    Path("in.txt").write_text(f"{TEXT}\n")
    Path("empty.txt").write_text("\n")
    Path("paths.txt").write_text("missing.png\n")
    code, out, err = run("see", str(toys / arguments[0]), *arguments[1:])
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert not list(Path.cwd().glob("o.*"))
