"""A Trace survives its file bit for bit; any other file is refused in one sentence, and nothing is half-written."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from regard.seeing import files
from regard.seeing.statistics import standard
from regard.seeing.trace import Layer, Tokens, Trace, TraceError, write_whole
from regard.view.difference import same_cells
from tests.view.traces import HOSTILE, axis, decoder, layer_of


@pytest.fixture(scope="module")
def seen() -> Trace:
    return decoder(12, 2, 3, batch=2, padding=3)


def tensors_of(trace: Trace) -> dict[str, torch.Tensor]:
    found = {}
    for name, tokens in trace.axes.items():
        for part in ("positions", "valid", "ids", "special"):
            value = getattr(tokens.axis, part)
            if value is not None:
                found[f"{name} {part}"] = value
    for number, layer in enumerate(trace.layers):
        found |= {f"{number} {a} {b}": t for a, results in layer.results.items() for b, t in results.items()}
        found |= {f"{number} summary {a}": t for a, t in layer.summaries.items()}
    return found


def assert_same(a: Trace, b: Trace) -> None:
    assert (a.model, a.made, a.statistics) == (b.model, b.made, b.statistics)
    assert list(a.axes) == list(b.axes)
    for one, other in zip(a.axes.values(), b.axes.values(), strict=True):
        assert (one.text, one.kind, one.grid) == (other.text, other.kind, other.grid)
    names = ("name", "index", "kind", "stack", "heads", "query_axis", "key_axis", "undefined")
    for one, other in zip(a.layers, b.layers, strict=True):
        assert all(getattr(one, name) == getattr(other, name) for name in names)
        assert one.results.keys() == other.results.keys() and one.summaries.keys() == other.summaries.keys()
    x, y = tensors_of(a), tensors_of(b)
    assert x.keys() == y.keys()
    for name in x:
        assert x[name].dtype == y[name].dtype and torch.equal(x[name], y[name]), name


def assert_one_sentence(error: pytest.ExceptionInfo[TraceError], path: Path) -> None:
    said = str(error.value)
    assert "\n" not in said and str(path) in said and said[0].isprintable() and len(said) < 400


def test_a_trace_comes_back_as_it_was_saved(seen: Trace, tmp_path: Path) -> None:
    seen.save(tmp_path / "one.safetensors")
    once = Trace.load(tmp_path / "one.safetensors")
    assert_same(seen, once)
    once.save(str(tmp_path / "two.safetensors"))
    assert_same(once, Trace.load(str(tmp_path / "two.safetensors")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


def test_a_saved_trace_is_an_ordinary_safetensors_file(seen: Trace, tmp_path: Path) -> None:
    seen.save(tmp_path / "one.safetensors")
    assert len(load_file(tmp_path / "one.safetensors")) == len(tensors_of(seen))


def test_an_empty_trace_and_hostile_tokens_come_back(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    Trace().save(path)
    assert_same(Trace(), Trace.load(path))
    text = [HOSTILE]
    hostile = Trace('a "model"\n', [], {"an axis/with \n slashes": Tokens(text, axis(len(HOSTILE)))}, {}, {"k": [None]})
    hostile.save(path)
    assert_same(hostile, Trace.load(path))


def test_labels_with_slashes_and_results_that_share_memory_come_back(tmp_path: Path) -> None:
    both = torch.arange(12.0).reshape(1, 2, 6)
    layer = Layer("m", 0, "self", "decoder", [0, 1], "decoder", "decoder")
    layer.results = {"mine/of a/b": {"rows": both, "same": both, "part": both[..., ::2]}}
    layer.summaries = {"mine/of a/b": both.sum(-1).double()}
    trace = Trace("m", [layer], {"decoder": Tokens([["x"] * 6], axis(6))})
    trace.save(tmp_path / "one.safetensors")
    assert_same(trace, Trace.load(tmp_path / "one.safetensors"))


def test_a_file_cut_short_anywhere_is_refused(seen: Trace, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    seen.save(path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    lengths = {0, 1, 7, 8, 9, header, header + 7, header + 8, header + 9, len(whole) - 1}
    lengths |= {random.Random(length).randrange(len(whole)) for length in range(30)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with pytest.raises(TraceError) as error:
            Trace.load(path)
        assert_one_sentence(error, path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(TraceError):
        Trace.load(path)


def test_a_changed_byte_anywhere_is_noticed(seen: Trace, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    seen.save(path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    make = random.Random(0)
    places = [
        *range(8),
        *(make.randrange(8, header) for _ in range(120)),
        *(make.randrange(len(whole)) for _ in range(80)),
    ]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << make.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(TraceError) as error:
            Trace.load(path)
        assert_one_sentence(error, path)


def test_other_files_are_refused(seen: Trace, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(TraceError, match=r"no Trace of this version .* give a file that Trace.save wrote"):
        Trace.load(path)
    for content in (b"", b"hello", b"\0" * 100, bytes(range(256)), b"\xff" * 8):
        path.write_bytes(content)
        with pytest.raises(TraceError, match="not a whole Trace file") as error:
            Trace.load(path)
        assert_one_sentence(error, path)
    for other in (tmp_path / "missing.safetensors", tmp_path / "no" / "where.safetensors"):
        with pytest.raises(TraceError, match="there is no Trace file") as error:
            Trace.load(other)
        assert_one_sentence(error, other)
    for other in (tmp_path, path / "below a file", Path("/proc/self/mem"), Path("/dev/null")):
        with pytest.raises(TraceError) as error:
            Trace.load(other)
        assert_one_sentence(error, other)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "null",
        "[]",
        "{}",
        "[[[[",
        '{"model": "m", "made": {}, "statistics": {}, "layers": [], "axes": []}',
        '{"model": "m", "made": {}, "statistics": {}, "layers": {}, "axes": {}}',
        '{"model": "m", "made": {}, "statistics": {"a": {}}, "layers": [], "axes": {}}',
        '{"model": "m", "made": {}, "statistics": {}, "layers": [{"name": "x"}], "axes": {}}',
        '{"model": "m", "made": {}, "statistics": {}, "layers": [], "axes": {}}',
        '{"model": "m", "made": {}, "statistics": {}, "layers": [], "axes": {"a": {"text": []}}}',
    ],
)
def test_a_forged_header_is_refused(header: str, tmp_path: Path) -> None:
    """Its checksum is right, its content is not: layers, fields or tensors are missing or of another kind."""
    path = tmp_path / "one.safetensors"
    none = files.NO_CHECKSUM
    metadata = {"format": files.FORMAT, "checksum": none, "trace": header}
    content = save({"layer/3/result/entropy/rows": torch.ones(2)}, metadata=metadata)
    path.write_bytes(content)
    with path.open("rb") as file:
        found = files.checksum(file, none)
    path.write_bytes(content.replace(f'"checksum":"{none}"'.encode(), f'"checksum":"{found}"'.encode()))
    with pytest.raises(TraceError, match="damaged") as error:
        Trace.load(path)
    assert_one_sentence(error, path)


def unwritable(tmp_path: Path) -> list[Path]:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "directory").mkdir()
    return [
        tmp_path / "file" / "below.safetensors",
        tmp_path / "missing" / "one.safetensors",
        tmp_path / "directory",
        tmp_path / ("x" * 300),
        tmp_path / "nul\0l",
        Path("/proc/one.safetensors"),
        Path("/"),
    ]


def test_a_path_that_cannot_be_written_leaves_everything_as_it_was(seen: Trace, tmp_path: Path) -> None:
    paths = unwritable(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for path in paths:
        for write in (seen.save, lambda p: write_whole(p, "text")):
            with pytest.raises(TraceError, match=r"cannot write .*; choose another path") as error:
                write(path)
            assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_that_says_read_only_is_kept(seen: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.safetensors"
    path.write_text("kept")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(TraceError, match="read-only"):
        seen.save(path)
    assert path.read_text() == "kept" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    what: Any, seen: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.safetensors"
    path.write_text("kept")

    def fails(*_: Any) -> None:
        raise what

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(KeyboardInterrupt if what is KeyboardInterrupt else TraceError):
        seen.save(path)
    assert path.read_text() == "kept" and list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_ordinary_permissions(seen: Trace, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    seen.save(tmp_path / "one.safetensors")
    assert (tmp_path / "one.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_errors_of_indexing_name_what_there_is(seen: Trace) -> None:
    layer = seen.layers[0]
    last = len(layer.heads)
    for ask, words in (
        (lambda: seen["colour"], "'colour' was not watched; watched: entropy, span, max"),
        (lambda: seen.heads("colour"), "'colour' was not watched; watched: entropy"),
        (lambda: seen.layer(99), "no self-attention layer 99 was watched; there is: "),
        (lambda: seen.layer(0, "cross"), "no cross-attention layer 0 was watched; there is: "),
        (lambda: seen.layer(0, stack="vision"), "no self-attention layer 0 in vision was watched"),
        (lambda: seen.weights(0, last), f"head {last} of layer '.*' was not watched; watched: 0"),
        (lambda: seen.weights(0, 0, batch=9), r"no sequence 9; there are \d, counted from 0"),
        (lambda: seen.weights(0, 0, batch=-1), "no sequence -1"),
        (lambda: seen.weights(0, 0, slice(0, 4, 2)), "a step"),
        (lambda: Trace()["entropy"], "watched: nothing"),
        (lambda: Trace().layer(0), "there is: nothing"),
    ):
        with pytest.raises(TraceError, match=words):
            ask()  # type: ignore[no-untyped-call]


def test_a_loaded_trace_gives_exact_weights_only_where_its_maps_hold_them(seen: Trace, tmp_path: Path) -> None:
    seen.save(tmp_path / "one.safetensors")
    loaded = Trace.load(tmp_path / "one.safetensors")
    whole = seen.weights(0, 0)
    assert torch.equal(loaded.weights(0, 0), whole)
    assert torch.equal(loaded.weights(0, 0, slice(2, 5), slice(1, -1)), whole[2:5, 1:-1])
    loaded.layers[0].results["overview"]["shifts"] += 1
    with pytest.raises(TraceError, match="were not kept; attach with keep="):
        loaded.weights(0, 0)


def test_signed_weights_keep_their_sign() -> None:
    a = torch.tensor([[[[0.5, -0.25], [-1.0, 2.0]]]])
    axes = {"decoder": Tokens([["a", "b"]], axis(2))}
    allowed = torch.ones_like(a, dtype=torch.bool)
    layer = layer_of("m", 0, a, allowed, axes, "decoder", "decoder", 8)
    assert torch.equal(Trace("m", [layer], axes).weights(0, 0), a[0, 0])


def test_traces_of_the_same_cells_can_be_subtracted(seen: Trace, tmp_path: Path) -> None:
    seen.save(tmp_path / "one.safetensors")
    loaded = Trace.load(tmp_path / "one.safetensors")
    assert same_cells(seen, loaded)
    loaded.layers[0].heads = [7]
    assert not same_cells(seen, loaded)


def test_a_trace_is_json_where_it_says_so(seen: Trace) -> None:
    assert json.loads(json.dumps(seen.made)) == seen.made
    assert repr(seen).startswith("Trace(")
    assert {s.label for s in standard()} >= set(seen.statistics)
