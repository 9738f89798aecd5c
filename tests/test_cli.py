"""The command: a mistake is one sentence, exit code 2 and nothing written; every good path prints and writes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import regard
from regard import cli
from regard.hf.load import DEFAULT
from regard.seeing.trace import Trace

TEXT = "the cat sat on the mat"
LLAMA = {
    "vocab_size": 2048,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
}


class Ran:
    """What one run of the command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def once(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["regard", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Ran(left.value.code, said.out, said.err)

    return once


def refused(run: Run, *arguments: str, **more: Any) -> str:
    """The one sentence of a refusal; checks that it is one, that nothing was printed and nothing was written."""
    before = sorted(str(p) for p in Path.cwd().rglob("*"))
    ran = run("see", *arguments, **more)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.startswith("regard: ") and ran.err.endswith("\n") and ran.err.count("\n") == 1
    assert "Traceback" not in ran.err and ran.err[:-1].isprintable() and len(ran.err) < 600
    assert sorted(str(p) for p in Path.cwd().rglob("*")) == before
    return ran.err.removeprefix("regard: ")[:-1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of small models, whole and broken in every way."""
    logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)

    def saved(name: str, model: Any, tokenizer: bool = True) -> Path:
        model.save_pretrained(root / name)
        for file in ("tokenizer.json", "tokenizer_config.json") if tokenizer else ():
            shutil.copy(DEFAULT / file, root / name)
        return root / name

    def broken(name: str) -> Path:
        shutil.copytree(root / "llama", root / name)
        return root / name

    saved("llama", tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA)))
    fnet = tf.FNetConfig(vocab_size=2048, hidden_size=16, num_hidden_layers=1, intermediate_size=16)
    saved("fnet", tf.FNetForMaskedLM(fnet))
    settings = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    saved("vit", tf.ViTModel(tf.ViTConfig(**settings, image_size=20, patch_size=4)), tokenizer=False)
    tf.ViTImageProcessorPil(size={"height": 20, "width": 20}).save_pretrained(root / "vit")
    sizes = {f"{side}_{what}": 16 for side in ("encoder", "decoder") for what in ("ffn_dim",)}
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    sizes |= {"encoder_layers": 2, "decoder_layers": 1, "max_source_positions": 50, "max_target_positions": 20}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    nothing = {"begin_suppress_tokens": None, "suppress_tokens": None}
    config = tf.WhisperConfig(vocab_size=99, d_model=16, num_mel_bins=8, **sizes, **ids, **nothing)
    whisper = tf.WhisperForConditionalGeneration(config)
    whisper.generation_config = tf.GenerationConfig(**ids)
    saved("whisper", whisper, tokenizer=False)
    tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(root / "whisper")

    weights = root / "llama" / "model.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    (broken("without config") / "config.json").unlink()
    (broken("without weights") / "model.safetensors").unlink()
    (broken("pickle only") / "model.safetensors").rename(root / "pickle only" / "pytorch_model.bin")
    (broken("cut short") / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (broken("empty file") / "model.safetensors").write_bytes(b"")
    (broken("no json") / "config.json").write_text("{not json")
    (broken("unknown kind") / "config.json").write_text('{"model_type": "of my own"}')
    (broken("without tokenizer") / "tokenizer.json").unlink()
    (root / "without tokenizer" / "tokenizer_config.json").unlink()
    name = "model.layers.1.self_attn.q_proj.weight"
    save_file(
        {k: v for k, v in tensors.items() if k != name}, broken("lacking") / "model.safetensors", {"format": "pt"}
    )
    poisoned = tensors | {name: torch.full_like(tensors[name], float("nan"))}
    save_file(poisoned, broken("poisoned") / "model.safetensors", {"format": "pt"})
    short = tensors | {name: tensors[name][:3].clone()}
    save_file(short, broken("other shape") / "model.safetensors", {"format": "pt"})
    return root


def a_wav(path: Path, rate: int = 16_000, width: int = 2, frames: int = 8_000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(
            bytes(range(256)) * (frames * width * channels // 256) + bytes(frames * width * channels % 256)
        )
    return path


def an_image(path: Path) -> Path:
    Image.new("RGB", (24, 24), (200, 10, 10)).save(path)
    return path


# ---- mistakes: one sentence, exit code 2, nothing written -----------------------------------------------------------


def test_check_says_what_of_a_model_can_be_seen_without_an_input(models: Path, run: Run) -> None:
    assert "LlamaAttention" in run("see", str(models / "llama"), "--check").out
    assert "has no attention modules" in run("see", str(models / "fnet"), "--check").out


@pytest.mark.parametrize(
    "name,words",
    [
        ("not there", "there is no directory .*not there; give a directory with config.json, or a hub name"),
        ("llama/config.json", "config.json is a file; give the directory that holds config.json"),
        ("without config", "without config holds no config.json; give the directory of a transformers model"),
        ("without weights", r"holds no \*.safetensors weights, and regard reads no other kind; convert them"),
        ("pickle only", r"holds no \*.safetensors weights, and regard reads no other kind; convert them"),
        ("cut short", "the weights of .*cut short are not a whole safetensors file .*; fetch them again"),
        ("empty file", "are not a whole safetensors file .*; fetch them again"),
        ("no json", "cannot load a model from .*not a valid JSON file"),
        ("unknown kind", "cannot load a model from .*of my own"),
        ("without tokenizer", "LlamaForCausalLM has no tokenizer in its directory; add its tokenizer files"),
        ("lacking", r"lack model.layers.1.self_attn.q_proj.weight \(1 in all\), which would be random; fetch"),
        ("poisoned", "layer model.layers.1.self_attn has NaN or infinite queries or keys; check the model's weights"),
        ("other shape", "the weights of .*other shape have other shapes than its config.json says; fetch both again"),
        ("fnet", r"FNetForMaskedLM \(fnet\) has no attention that regard knows"),
    ],
)
def test_a_directory_that_is_no_whole_model(name: str, words: str, models: Path, run: Run) -> None:
    said = refused(run, str(models / name), TEXT)
    assert re.search(words, said), said


def test_texts_that_do_not_fit(models: Path, run: Run) -> None:
    llama = str(models / "llama")
    for arguments in (("",), (" \n",), (llama, ""), (llama, "\t"), (llama, TEXT, "")):
        assert refused(run, *arguments) == "the text is empty; give at least one word"
    assert "has positions for 48; give a shorter text, or --truncate" in refused(run, llama, "word " * 80)
    assert "give a shorter text, or --truncate" in refused(run, llama, "x" * 5000)
    assert run("see", llama, "word " * 80, "--truncate").code == 0
    assert "not UTF-8; convert it first" in refused(run, llama, "a \udcff\udcfe")
    assert "exceed the model's 48 positions" in refused(run, llama, TEXT, "--new-tokens", "45")
    assert "at least 0, got -1" in refused(run, llama, TEXT, "--new-tokens", "-1")
    assert "takes no target" in refused(run, llama, TEXT, "--target", "x")


def test_a_name_that_is_too_long_or_moves_the_cursor(run: Run) -> None:
    assert "too long for the name of a model" in refused(run, "x" * 3000, TEXT)
    assert "too long for the name of a model" in refused(run, "x" * 3000)
    assert r"there is no directory ./no\x1b[31m \xdcff;" in refused(run, "./no\x1b[31m\n\udcff", TEXT)


@pytest.mark.parametrize(
    "options,words",
    [
        (("--layers", "2"), "has layers 0 to 1; layer 2 was asked for"),
        (("--layers", "0-99999"), "has layers 0 to 1; layer 2 was asked for"),
        (("--layers", "x"), "--layers takes numbers and ranges such as 0,3-5, not 'x'"),
        (("--layers", "-1"), "--layers takes numbers and ranges"),
        (("--layers", "1-0"), "--layers takes numbers and ranges"),
        (("--layers", "²"), "--layers takes numbers and ranges"),
        (("--layers", "0-99999999999"), "--layers takes numbers and ranges"),
        (("--layers", "0,,1"), "--layers takes numbers and ranges"),
        (("--heads", "2"), "has heads 0 to 1; head 2 was asked for"),
        (("--heads", ""), "--heads takes numbers and ranges"),
        (("--head", "9.0"), "layer 9 of --head was not watched; watched: 0, 1"),
        (("--head", "0.9"), "head 9 of layer 'decoder 0' was not watched; watched: 0, 1"),
        (("--head", "0"), "--head takes layer.head such as 3.1, not '0'"),
        (("--head", "0.²"), "--head takes layer.head such as 3.1"),
        (("--head", "0.9", "--json"), "head 9 of layer 'decoder 0' was not watched"),
        (("--stat", "colour"), "'colour' was not watched; watched: entropy, span, max"),
        (("--stat", "colour", "--json"), "'colour' was not watched; watched: entropy"),
        (("--resolution", "0"), "--resolution and --top are at least 1, got 0; give a larger number"),
        (("--top", "-4"), "--resolution and --top are at least 1, got -4"),
        (("--resolution", "many"), "--resolution"),
        (("--backend", "cuda"), "no backend 'cuda'; there are: model, auto, native, triton, sdpa, strips, reference"),
        (("--colour", "red"), "No such option: --colour"),
    ],
)
def test_options_that_mean_nothing(options: tuple[str, ...], words: str, models: Path, run: Run) -> None:
    assert words in refused(run, str(models / "llama"), TEXT, *options, "--out", "one.json")


@pytest.mark.parametrize(
    "path,words",
    [
        (
            "one.txt",
            "cannot tell what to write to one.txt: its name must end in .html, .png, .svg, .pdf, .csv, .json, .md, "
            ".safetensors",
        ),
        (".html", "cannot tell what to write to .html"),
        ("", "cannot tell what to write"),
        ("nowhere/one.html", "there is no directory nowhere to write one.html to; make it first"),
        ("file/one.html", "there is no directory file to write one.html to; make it first"),
        ("directory.html", "cannot write directory.html: it is read-only or a directory; choose another path"),
        ("x" * 300 + ".html", "File name too long; choose another path"),
    ],
)
def test_paths_that_cannot_be_written_are_refused_before_anything_runs(path: str, words: str, run: Run) -> None:
    Path("file").write_text("kept")
    Path("directory.html").mkdir()
    assert words in refused(run, "/no/such/model", TEXT, "--out", path)
    assert Path("file").read_text() == "kept"


def test_a_path_that_fails_late_leaves_nothing_either(models: Path, run: Run) -> None:
    ran = run("see", str(models / "llama"), TEXT, "--json", "--out", "/proc/one.html")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "regard: cannot write /proc/one.html: No such file or directory; choose another path\n"


def test_inputs_of_another_kind_than_the_model_takes(models: Path, run: Run) -> None:
    image, sound = str(an_image(Path("one.png"))), str(a_wav(Path("one.wav")))
    for model, given, words in (
        ("llama", image, "LlamaForCausalLM takes no image .*; give it a text"),
        ("llama", sound, "LlamaForCausalLM takes no sound .*; give it a text"),
        ("vit", TEXT, "ViTModel has no tokenizer in its directory"),
        ("vit", sound, "ViTModel takes no sound"),
        ("whisper", image, "WhisperForConditionalGeneration takes no image"),
        ("whisper", TEXT, "WhisperForConditionalGeneration"),
    ):
        said = refused(run, str(models / model), given)
        assert re.search(words, said), said


def test_files_of_images_and_sounds_that_cannot_be_read(models: Path, run: Run) -> None:
    whole = an_image(Path("whole.png")).read_bytes()
    Path("cut.png").write_bytes(whole[:60])
    Path("other.png").write_bytes(b"no image")
    Path("changed.png").write_bytes(whole[:45] + bytes([whole[45] ^ 255]) + whole[46:])
    Path("directory.png").mkdir()
    for name in ("cut.png", "other.png", "changed.png", "directory.png", "missing.png"):
        assert name in refused(run, str(models / "vit"), name)
    a_wav(Path("long.wav"), rate=8_000, frames=12_000)
    a_wav(Path("deep.wav"), width=3)
    a_wav(Path("silent.wav"), frames=0)
    Path("cut.wav").write_bytes(a_wav(Path("whole.wav")).read_bytes()[:30])
    Path("other.wav").write_bytes(b"RIFFxxxx")
    for name, words in (
        ("long.wav", "the sound lasts 1.5 s and WhisperForConditionalGeneration hears 1 s; cut it, or --truncate"),
        ("deep.wav", "deep.wav has 24-bit samples; convert it to 16-bit PCM"),
        ("silent.wav", "silent.wav holds no sound"),
        ("cut.wav", "cut.wav is not a PCM wav file (cut short)"),
        ("other.wav", "other.wav is not a PCM wav file (not a WAVE file)"),
        ("missing.wav", "there is no file missing.wav"),
    ):
        assert words in refused(run, str(models / "whisper"), name)
    assert "exceed the model's 16 positions" in refused(run, str(models / "whisper"), "whole.wav", "--new-tokens", "60")


def test_files_of_texts_that_cannot_be_read(models: Path, run: Run) -> None:
    Path("binary.txt").write_bytes(bytes(range(256)))
    Path("empty.txt").write_bytes(b"")
    llama = str(models / "llama")
    for model in ((), (llama,)):
        assert "there is no file missing.txt" in refused(run, *model, "@missing.txt")
        assert "binary.txt is not UTF-8 text; convert it first" in refused(run, *model, "@binary.txt")
        assert "cannot read .: Is a directory" in refused(run, *model, "@.")
        assert "standard input is not UTF-8 text" in refused(run, *model, "-", stdin=b"\xff\xfe")
    assert "the text is empty" in refused(run, llama, "@empty.txt")
    assert "the text is empty" in refused(run, llama, "-")


def test_the_bare_name_of_a_file_is_never_read_as_words(models: Path, run: Run) -> None:
    Path("long.txt").write_text(TEXT)
    llama = str(models / "llama")
    for arguments in ((llama, "long.txt"), ("long.txt",), (llama, TEXT, "long.txt")):
        assert refused(run, *arguments).startswith("long.txt is a file; give @long.txt to read the text in it")
    said = refused(run, llama, str(models / "vit"))
    assert "is a model; give the INPUT first, then the second model" in said


def test_saved_traces_that_cannot_be_shown(models: Path, run: Run) -> None:
    assert run("see", str(models / "llama"), TEXT, "--json", "--out", "one.safetensors").code == 0
    whole = Path("one.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-100])
    assert "cut.safetensors is not a whole Trace file" in refused(run, "cut.safetensors")
    assert "there is no Trace file missing.safetensors" in refused(run, "missing.safetensors")
    assert "no Trace of this version" in refused(run, str(models / "llama" / "model.safetensors"))
    assert "is a saved Trace, which only" in refused(run, "one.safetensors", "--layers", "0")
    assert "was not watched" in refused(run, "one.safetensors", "--stat", "colour")


@pytest.mark.parametrize("missing", ["rich", "matplotlib"])
def test_a_missing_extra_of_pictures_gives_the_line_that_installs_it(
    missing: str, models: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    ran = run("see", str(models / "llama"), TEXT, "--out", "one.png")
    assert ran.code == 2 and ran.err.endswith(f" needs {missing}: pip install 'regard[view]'\n")
    assert ran.err.count("\n") == 1 and ran.out == ""
    assert missing == "rich" or not Path("one.png").exists()


def test_without_transformers_the_line_that_installs_it_is_given(tmp_path: Path) -> None:
    """A real process in which the package cannot be imported."""
    program = (
        "import sys\n"
        "sys.modules['transformers'] = None\n"
        "from regard.cli import main\n"
        f"sys.argv = ['regard', 'see', {TEXT!r}, '--out', 'one.png']\n"
        "main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "regard: this needs transformers: pip install 'regard[all]'\n"
    assert list(tmp_path.iterdir()) == []


# ---- good paths ------------------------------------------------------------------------------------------------------


def test_the_default_run_shows_heads_and_links() -> None:
    """A real process, without arguments."""
    program = "import sys; from regard.cli import main; sys.argv = ['regard', 'see']; main()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "head " in ran.stdout and "strongest links" in ran.stdout and " ← " in ran.stdout
    assert "\x1b" not in ran.stdout


def test_json_holds_the_numbers_of_the_trace(models: Path, run: Run) -> None:
    ran = run("see", str(models / "llama"), TEXT, "--json", "--out", "one.safetensors")
    assert ran.code == 0 and ran.err == "one.safetensors\n"
    trace, told = Trace.load("one.safetensors"), ran.json
    assert told["model"] == trace.model == "llama"
    assert told["tokens"] == {name: tokens.text for name, tokens in trace.axes.items()}
    assert [(h["layer"], h["head"]) for h in told["heads"]] == [(f"decoder {i}", h) for i in (0, 1) for h in (0, 1)]
    for place, head in enumerate(told["heads"]):
        summaries = trace.layers[place // 2].summaries
        assert summaries.keys() == head.keys() - {"layer", "module", "head"}
        for label, value in summaries.items():
            assert abs(head[label] - float(value[0, place % 2])) <= 5e-7
    for link in told["links"]:
        layer = next(layer for layer in trace.layers if layer.title == link["layer"])
        exact = trace.weights(layer, link["head"])[link["row"], link["column"]]
        assert abs(float(exact) - link["weight"]) <= 1e-6
        assert link["query"] == told["tokens"]["decoder"][0][link["row"]]
    assert [link["weight"] for link in told["links"]] == sorted(
        (link["weight"] for link in told["links"]), reverse=True
    )


def test_every_kind_of_file_is_written_printed_and_read_again(models: Path, run: Run) -> None:
    names = ["one.html", "one.json", "one.safetensors", "one.svg", "one.png"]
    ran = run("see", str(models / "llama"), TEXT, *(word for name in names for word in ("--out", name)))
    assert ran.code == 0 and ran.out.splitlines()[-5:] == names
    assert sorted(p.name for p in Path.cwd().iterdir()) == sorted(names)
    assert Path("one.html").read_text().lstrip().lower().startswith("<!doctype html")
    assert json.loads(Path("one.json").read_text())["model"] == "llama"
    assert "<svg" in Path("one.svg").read_text()[:1000]
    with Image.open("one.png") as image:
        image.load()
    again = run("see", "one.safetensors")
    assert again.code == 0 and again.out == ran.out.rsplit("\n", 6)[0] + "\n"
    assert run("see", "one.safetensors", "--json").json["heads"]
    assert run("see", "one.safetensors", "--head", "1.0", "--out", "two.html").code == 0
    assert Path("two.html").exists()


def test_a_second_text_compares(models: Path, run: Run) -> None:
    ran = run("see", str(models / "llama"), TEXT, "the dog sat on the mat", "--json", "--out", "one.safetensors")
    assert ran.code == 0 and len(ran.json) == 2
    assert ran.err.splitlines() == ["one.safetensors", "one-2.safetensors"]
    assert Trace.load("one-2.safetensors").axes["decoder"].text == ran.json[1]["tokens"]["decoder"]
    page = run("see", str(models / "llama"), TEXT, "the dog sat on the mat", "--out", "both.html", "--out", "both.json")
    assert page.code == 0 and page.out.splitlines()[-2:] == ["both.html", "both.json"]
    assert Path("both.html").exists() and json.loads(Path("both.json").read_text())


def test_a_second_model_or_a_trace_compares(models: Path, run: Run) -> None:
    llama = str(models / "llama")
    ran = run("see", llama, TEXT, llama, "--json", "--out", "one.safetensors")
    assert ran.code == 0 and len(ran.json) == 2 and ran.json[0]["heads"] == ran.json[1]["heads"]
    for arguments in ((llama, TEXT, "one-2.safetensors"), ("one.safetensors", "one-2.safetensors")):
        both = run("see", *arguments, "--json", "--out", "both.html").json
        assert [each["heads"] for each in both] == [ran.json[0]["heads"]] * 2
    assert "is a saved Trace and takes no INPUT" in refused(run, "one.safetensors", TEXT)


def test_what_a_name_ends_in_is_read_in_either_case(models: Path, run: Run) -> None:
    ran = run("see", str(models / "llama"), TEXT, "--out", "ONE.HTML", "--out", "ONE.Png")
    assert ran.code == 0 and Path("ONE.HTML").read_text().startswith("<!doctype html>")
    assert Path("ONE.Png").read_bytes().startswith(b"\x89PNG")


def test_images_and_sounds(models: Path, run: Run) -> None:
    image, sound = str(an_image(Path("one.png"))), str(a_wav(Path("one.wav"), channels=2))
    seen = run("see", str(models / "vit"), image, "--json").json
    assert seen["tokens"]["vision"][0][:3] == ["[cls]", "0,0", "0,1"] and len(seen["heads"]) == 4
    heard = run("see", str(models / "whisper"), sound, "--json").json
    titles = [head["layer"] for head in heard["heads"]]
    assert {"encoder 0", "encoder 1", "decoder 0", "decoder 0 cross"} <= set(titles)
    assert run("see", str(models / "vit"), image, "--out", "page.html").code == 0


def test_texts_from_files_and_standard_input(models: Path, run: Run) -> None:
    llama = str(models / "llama")
    Path("one.txt").write_text(TEXT)
    expected = run("see", llama, TEXT, "--json").out
    assert run("see", llama, "@one.txt", "--json").out == expected
    assert run("see", llama, "-", "--json", stdin=TEXT.encode()).out == expected


def test_layers_heads_and_new_tokens(models: Path, run: Run) -> None:
    llama = str(models / "llama")
    told = run("see", llama, TEXT, "--layers", "1,1,1", "--heads", "1", "--json").json
    assert [(h["layer"], h["head"]) for h in told["heads"]] == [("decoder 1", 1)]
    shown = run("see", llama, TEXT, "--layers", "1", "--head", "1.0")
    assert shown.code == 0 and "head 1.0" in shown.out
    more = run("see", llama, TEXT, "--new-tokens", "3", "--json").json
    few = run("see", llama, TEXT, "--json").json
    assert len(more["tokens"]["decoder"][0]) - len(few["tokens"]["decoder"][0]) == 2


def test_huge_and_tiny_sizes_are_taken_as_far_as_the_text_goes(models: Path, run: Run) -> None:
    llama = str(models / "llama")
    plain = run("see", llama, TEXT).out
    assert run("see", llama, TEXT, "--resolution", "1000000000", "--top", "100000").out == plain
    for resolution in ("1", "3"):
        assert run("see", llama, TEXT, "--resolution", resolution, "--top", "1").code == 0


def test_tokens_that_would_move_the_cursor_are_shown_not_obeyed(run: Run) -> None:
    hostile = "\x1b[31mred\x1b[0m \x07bell \x00nul \x9b31m \u202eabc"
    for more in ((), ("--json",), ("--verbose",)):
        ran = run("see", hostile, *more)
        assert ran.code == 0
        assert not set("\x1b\x07\x00\x9b\u202e") & set(ran.out)


def test_every_backend_shows_the_same_heads(models: Path, run: Run) -> None:
    llama = str(models / "llama")
    plain = run("see", llama, TEXT, "--json").json["heads"]
    for backend in ("auto", "strips", "sdpa", "reference"):
        for a, b in zip(run("see", llama, TEXT, "--backend", backend, "--json").json["heads"], plain, strict=True):
            assert all(a[k] == pytest.approx(b[k], abs=1e-4) for k in a if k not in ("layer", "module"))


def test_help_needs_nothing_but_the_command(tmp_path: Path) -> None:
    program = "import sys; from regard.cli import main; sys.argv = ['regard', 'see', '--help']; main()"
    environment = os.environ | {"COLUMNS": "200"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert ran.returncode == 0 and "--resolution" in ran.stdout and ran.stderr == ""


def test_the_version_and_the_list_of_verbs_that_exist() -> None:
    for program in ([sys.executable, "-m", "regard"],):
        ran = subprocess.run([*program, "--version"], capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"regard {regard.__version__}\n", "")
    told = subprocess.run([sys.executable, "-m", "regard", "--help"], capture_output=True, text=True, timeout=60).stdout
    verbs = Path(cli.__file__).parent / "verbs"
    for path in verbs.glob("*"):
        assert path.name.startswith("_") or f" {path.stem} " in told
    assert "serve" not in told or (verbs / "serve.py").exists()


@pytest.mark.parametrize("verb", ["memory", "recall"])
def test_an_unknown_mechanism_of_a_benchmark_is_one_sentence(verb: str, run: Run) -> None:
    ran = run("bench", verb, "--mechanisms", "nosuch")
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith("regard: no") and "nosuch" in ran.err
    assert "Traceback" not in ran.err and not list(Path.cwd().iterdir())


def test_an_unknown_case_of_the_benchmark_lists_the_known_ones(run: Run) -> None:
    ran = run("bench", "attention", "--cases", "causal-512,nosuch", "--plot", "sweep.png")
    assert (ran.code, ran.out) == (2, "") and not Path("sweep.png").exists()
    assert ran.err.startswith("regard: there is no case 'nosuch'; there are: all, causal-512, causal-1024")
    assert run("bench", "attention", "--cases", "documents", "--plot", "sweep.png").err == (
        "regard: a plot needs two lengths of one kind; give such as --cases causal-512,causal-1024\n"
    )


def test_verbose_says_who_computed_and_who_was_passed_over_and_why(
    models: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = str(models / "llama")
    shown = run("see", llama, TEXT, "--backend", "strips", "--verbose").out
    assert "output by strips; statistics by " in shown
    monkeypatch.setattr("regard.run.native.limits.why_unavailable", lambda: "the native core is not here")
    shown = run("see", llama, TEXT, "--backend", "auto", "--verbose").out
    assert "output by sdpa; statistics by strips; float32" in shown
    layers = "model.layers.0.self_attn, model.layers.1.self_attn"
    reason = "the native core is not here; native needs its compiled core; everything works without it, slower"
    assert f"output of {layers} by sdpa, not native: {reason}" in shown
    assert f"statistics of {layers} by strips, not native: {reason}" in shown
    assert "passed_over" in run("see", llama, TEXT, "--backend", "auto", "--json").json["made"]
