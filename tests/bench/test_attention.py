"""`regard bench attention` on tiny cases: everyone is held to float64; tables, JSON and plots say what was measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regard.bench import attention, contestant
from regard.bench.cases import CASES, dense, layouts, linear, named, peers
from regard.bench.cases.case import Case, Contestant, Recipe, check, off
from regard.bench.timing import MIN_TURNS, timed
from regard.errors import UserError
from regard.growing import Growing
from regard.run import native

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))

TINY = {
    "causal-48": Recipe(partial(dense.causal, 48, 4, 4, 16), "causal", 48),
    "causal-96": Recipe(partial(dense.causal, 96, 4, 4, 16), "causal", 96),
    "heads-6on2": Recipe(partial(dense.causal, 65, 6, 2, 8, False), "heads"),
    "window-90": Recipe(partial(dense.windowed, 90, 16, 2), "window", 90),
    "backward-40": Recipe(partial(dense.backward, 40), "backward", 40),
    "documents": Recipe(lambda: layouts.documents(torch.tensor([1, 7, 33, 64]), heads=2), "documents"),
    "decode-3x512": Recipe(partial(layouts.decode, [512] * 3), "decode"),
    "decode-ragged": Recipe(partial(layouts.decode, [1, 16, 17, 300]), "decode"),
    "linear-5": Recipe(partial(linear.step, 5, layers=1, words=70), "linear"),
}
EXPECTED = {
    "causal-48": {"sdpa", "native", "strips", "reference", "flex, compiled", "eager"}
    | {"native, all statistics", "statistics alone"},
    "heads-6on2": {"sdpa", "native", "strips", "reference", "flex, compiled", "eager"},
    "window-90": {"sdpa, causal", "native", "strips", "reference", "flex, compiled"},
    "backward-40": {"sdpa", "native", "strips", "eager"},
    "documents": {"sdpa, padded", "sdpa, one by one", "native, packed"},
    "decode-3x512": {"read the bytes", "native, paged", "native, contiguous", "native, pages in order"}
    | {"native, pages of 256", "transformers, gathered"},
    "decode-ragged": {"read the bytes", "native, paged", "native, contiguous", "native, pages in order"}
    | {"native, pages of 256", "transformers, gathered"},
    "linear-5": {"torch linear", "native, packed", "native, packed, joined", "native, packed int8", "read the weights"}
    | ({"MKL, packed"} if torch.backends.mkl.is_available() else set()),
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny cases, an uncompiled stand-in for FlexAttention, nothing to empty caches with."""

    def uncompiled(predicate: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
        at = torch.arange(q.shape[2])
        seen = predicate(0, 0, at[:, None], at[None])
        share = q.shape[1] // k.shape[1]
        keys, values = (t.repeat_interleave(share, 1) for t in (k, v))
        scores = (q @ keys.mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
        return lambda: scores.softmax(-1) @ values

    monkeypatch.setattr(peers, "flex", uncompiled)
    monkeypatch.setattr(layouts, "CACHE_FLOATS", 1)
    monkeypatch.setattr("regard.bench.cases.CASES", TINY)


@pytest.mark.parametrize("name", EXPECTED)
@torch.no_grad()
def test_every_contestant_is_there_and_held_to_float64(name: str, tiny: None) -> None:
    case = TINY[name].make()
    assert set(case.contestants) == EXPECTED[name]
    assert {case.peer, *(who for pair in case.also for who in pair)} <= set(case.contestants)
    errors = check(name, case)
    free = {who for who, error in errors.items() if error is None}
    assert free <= {"sdpa, causal", "read the bytes", "read the weights"}
    assert all(error <= 1e-5 for error in errors.values() if error is not None)


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
@pytest.mark.parametrize("name", EXPECTED)
@torch.no_grad()
def test_a_wrong_contestant_is_refused_and_nothing_is_timed(name: str, wrong: float, tiny: None) -> None:
    case = TINY[name].make()
    for who, rival in case.contestants.items():
        if rival.error is None:
            continue
        broken = dataclasses.replace(rival, run=lambda run=rival.run: spoiled(run(), wrong))
        with pytest.raises(UserError, match=f"{who} in {name} is off by .* from float64; the case was not timed"):
            check(name, dataclasses.replace(case, contestants={who: broken}))


def spoiled(found: Any, wrong: float) -> Any:
    """The same result with one number off in its last part, or one statistic off."""
    if isinstance(found, Tensor):
        other = found.detach().clone()
        other[(..., *[-1] * found.ndim)] += wrong * max(1.0, float(found.abs().max()))
        return other
    *before, last = found
    if isinstance(last, Tensor):
        return (*before, spoiled(last, wrong))
    last.states["entropy"] = Growing(spoiled(last.states["entropy"].live(), wrong), (0,))
    return (*before, last)


def test_a_run_gives_a_table_and_json(tiny: None) -> None:
    said: list[str] = []
    result = attention.run(None, 2, report=said.append)
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"machine", "isa", "threads", "rows"} and len(said) == len(TINY)
    for row, (name, recipe) in zip(result["rows"], TINY.items(), strict=True):
        assert set(row) == {"case", "family", "tokens", "peer", "note", "turns", "contestants"}
        assert (row["case"], row["family"], row["tokens"], row["turns"]) == (name, recipe.family, recipe.tokens, 2)
        for one in row["contestants"]:
            assert set(one) == {"name", "seconds", "ratio", "also", "error", "peak_bytes"}
            assert one["seconds"] > 0 and one["ratio"] > 0 and one["peak_bytes"] is None
            assert one["ratio"] == 1 or one["name"] != row["peer"]
    paged = {one["name"]: one for row in result["rows"] for one in row["contestants"]}["native, paged"]
    assert set(paged["also"]) == {"native, contiguous", "transformers, gathered"}
    table = attention.table(result)
    assert table[0] == ["case", "contestant", "ms", "× peer", "peer", "also", "error", "peak MiB", "turns"]
    assert len(table) == 1 + sum(len(row["contestants"]) for row in result["rows"])
    assert {len(line) for line in table} == {len(table[0])}


def test_a_sweep_is_drawn_with_its_memory(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.image import imread

    asked: list[tuple[str, str]] = []

    def peak(case: str, who: str, report: Callable[[str], None]) -> int:
        asked.append((case, who))
        return 1 << 20

    monkeypatch.setattr(attention, "peak_bytes", peak)
    result = attention.run(["causal", "documents"], 1, memory=True, sweep=True)
    assert set(asked) == {(name, who) for name in ("causal-48", "causal-96") for who in EXPECTED["causal-48"]}
    for kind in ("png", "svg"):
        path = tmp_path / f"sweep.{kind}"
        attention.plot(result, path)
        assert path.stat().st_size > 10_000
    words = (tmp_path / "sweep.svg").read_text("utf-8")
    for text in ("Causal attention", "seconds, median", "MiB", "Peak memory beyond the inputs", *EXPECTED["causal-48"]):
        assert f"<!-- {text}" in words
    picture = imread(tmp_path / "sweep.png")
    assert picture.shape[1] > 1000 and len({tuple(p) for p in picture[::7, ::7].reshape(-1, 4).tolist()}) > 10


def test_the_peak_of_one_run_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def case() -> Case:
        held = torch.ones(1 << 22)
        takes = {size: Contestant(lambda size=size: torch.ones(size << 18)) for size in (1, 64)}
        return Case("1", {str(size): take for size, take in takes.items()} | {"0": Contestant(held.sum)})

    monkeypatch.setitem(CASES, "ones", Recipe(case, "ones", 1))
    peaks = {who: contestant.measure("ones", who)["peak_bytes"] / 2**20 for who in ("0", "1", "64")}
    assert peaks["0"] < 8 and 60 < peaks["64"] < 80


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """512 tokens: an output of 1.5 MiB, and the eager form's scores of 12 MiB and more than one copy of them."""
    said: list[str] = []
    fused, eager = (contestant.peak_bytes("causal-512", who, said.append) for who in ("native", "eager"))
    assert fused is not None and eager is not None and not said
    assert fused < 12 << 20 < 24 << 20 < eager


def test_memory_that_could_not_be_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestant, "measured", lambda *given: {"failed": "MemoryError"})
    said: list[str] = []
    assert contestant.peak_bytes("causal-512", "eager", said.append) is None
    assert said == ["causal-512: the memory of eager was not measured: MemoryError"]


def test_turns_end_with_the_budget_but_not_before_three() -> None:
    case = Case("one", {"one": Contestant(lambda: None)})
    assert timed(case, 5, budget_seconds=1e9).turns == 5
    assert timed(case, 5, budget_seconds=0).turns == MIN_TURNS
    assert timed(case, 1, budget_seconds=0).turns == 1


def test_errors_are_relative_to_large_numbers_only() -> None:
    truth = torch.tensor([1.0, -200.0]).double()
    assert off(truth + 2.0, truth) == pytest.approx(0.01)
    assert off(truth / 400 + 0.1, truth / 400) == pytest.approx(0.1)
    assert off(truth[:0], truth[:0]) == 0


# ---- what is asked --------------------------------------------------------------------------------------------------


def test_a_name_stands_for_all_that_continue_it() -> None:
    decodes = [f"decode-{what}" for what in ("32x1024", "1x32768", "ragged")]
    assert list(named(["causal-512", "decode"])) == ["causal-512", *decodes]
    assert list(named(["causal"])) == [f"causal-{n}" for n in (512, 1024, 2048, 4096, 8192, 16384)]
    assert set(CASES) - set(named(None)) == {name for name, recipe in CASES.items() if recipe.long}
    assert set(named(["all"])) == set(CASES)
    for name, recipe in CASES.items():
        assert name.split("-")[0] == recipe.family
        assert recipe.tokens is None or name == f"{recipe.family}-{recipe.tokens}"


def test_mistakes_are_one_sentence(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no case 'causal-4'; there are: all, causal-48, causal-96, heads-6on2"):
        attention.run(["causal-4"], 1)
    with pytest.raises(UserError, match="--repeats is at least 1, got 0"):
        attention.run(["causal-48"], 0)
    with pytest.raises(UserError, match="a plot needs two lengths of one kind"):
        attention.run(["causal-48", "window-90"], 1, sweep=True)
    monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(UserError, match="nothing to compare"):
        attention.run(["causal-48"], 1)
