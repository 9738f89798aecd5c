"""Kept queries, keys and row states answer any rectangle exactly, in memory and out of a mapped file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regard import core
from regard.core import ranges
from regard.core.ranges import Ranges
from regard.run.choose import observers
from regard.seeing.cells import pooled
from regard.seeing.kept import Kept
from regard.seeing.tiles import tiles
from regard.seeing.trace import Layer, Tokens, Trace, TraceError
from regard.statistic import Axis

B, H, G, T, D = 2, 4, 2, 300, 8


def axis(length: int = T, padded: int = 3) -> Axis:
    valid = torch.ones(B, length, dtype=torch.bool)
    valid[1, :padded] = False
    return Axis(valid.long().cumsum(1) - 1, valid)


def causal(over: Axis, window: int | None = None) -> Ranges:
    stop = torch.arange(1, over.length + 1).expand(B, 1, -1)
    start = torch.full_like(stop, 0) if window is None else (stop - window).clamp(min=0)
    start = start.maximum((~over.valid).sum(1)[:, None, None]).minimum(stop)
    return ranges.between(start, stop, over.length)


MAKE = torch.Generator().manual_seed(0)
BIASES: dict[str, tuple[core.Term, ...]] = {
    "plain": (),
    "bias of keys": (core.KeyBias(torch.randn(B, H, T, generator=MAKE)),),
    "slopes": (core.Slope(torch.rand(H, generator=MAKE)),),
    "distances": (core.Distance(torch.randn(H, 9, generator=MAKE)),),
    "table": (core.Table(torch.randn(1, H, T, T, generator=MAKE)),),
    "softcap": (core.Softcap(2.0),),
}


def plan_of(
    terms: tuple[core.Term, ...], sink: bool = False, window: int | None = None, spread: float = 1.0
) -> core.Plan:
    make = torch.Generator().manual_seed(1)
    q, k = torch.randn(B, H, T, D, generator=make) * spread, torch.randn(B, G, T, D, generator=make)
    over = axis()
    softmax = core.Softmax(torch.randn(H, generator=make) if sink else None)
    dot = core.Dot(0.3)
    return core.Plan(q, k, None, over.positions, over.positions, (dot, *terms), causal(over, window), softmax)


def part(plan: core.Plan, begin: int, end: int) -> core.Plan:
    """The call of rows begin … end-1 on the keys so far."""
    terms = tuple(
        core.Table(t.bias[:, :, begin:end, :end])
        if isinstance(t, core.Table)
        else core.KeyBias(t.bias[..., :end])
        if isinstance(t, core.KeyBias)
        else t
        for t in plan.terms
    )
    seen = Ranges(plan.ranges.start[:, :, begin:end], plan.ranges.stop[:, :, begin:end], end)
    return core.Plan(
        plan.q[:, :, begin:end],
        plan.k[:, :, :end],
        None,
        plan.query_positions[:, begin:end],
        plan.key_positions[:, :end],
        terms,
        seen,
        plan.softmax,
    )


def dense(plan: core.Plan) -> Tensor:
    """float64 weights [B,H,T,T], each term restated over whole tensors."""
    s = torch.einsum("bhid,bhjd->bhij", plan.q.double(), plan.k.double().repeat_interleave(H // G, 1))
    apart = (plan.key_positions[:, None, :] - plan.query_positions[:, :, None])[:, None]
    for term in plan.terms:
        match term:
            case core.Dot(scale=scale):
                s = s * scale
            case core.KeyBias(bias=bias):
                s = s + bias[:, :, None]
            case core.Slope(slope=slope):
                s = s + slope[None, :, None, None] * apart
            case core.Distance(table=table):
                s = s + table[torch.arange(H)[None, :, None, None], apart.clamp(-4, 4) + 4]
            case core.Table(bias=bias):
                s = s + bias
            case core.Softcap(cap=cap):
                s = cap * (s / cap).tanh()
    s = s.masked_fill(~plan.ranges.dense(), -torch.inf)
    if plan.softmax.sink is not None:
        s = torch.cat([s, plan.softmax.sink[None, :, None, None].expand(B, -1, T, 1)], -1)
    found = s.softmax(-1).nan_to_num(0.0)[..., :T]
    return found * axis().valid[:, None, :, None]


def kept_of(plan: core.Plan, cuts: tuple[int, ...], states: bool = True) -> Kept:
    backends = observers() if states else ()
    kept = Kept(backends)
    for begin, end in zip((0, *cuts), (*cuts, T), strict=True):
        call = part(plan, begin, end)
        backend = next((b for b in backends if b.refuses(call) is None), None)
        found = None if backend is None else backend.run(call, None, output=False)
        state = (None, None) if found is None else (found.row_max, found.row_log_sum)
        kept.add(call, slice(begin, end), 0, state)
    return kept


def trace_of(kept: Kept) -> Trace:
    layer = Layer("m", 0, "self", "decoder", list(range(H)), "decoder", "decoder", kept=kept)
    return Trace("m", [layer], {"decoder": Tokens([["x"] * T] * B, axis())})


CORNERS = [
    (slice(0, 40), slice(0, 30)),
    (slice(90, 140), slice(5, 190)),
    (slice(299, 300), slice(0, 300)),
    (slice(7, 7), slice(3, 9)),
]


@pytest.mark.parametrize("states", [True, False], ids=["states", "no states"])
@pytest.mark.parametrize("sink", [False, True], ids=["softmax", "sink"])
@pytest.mark.parametrize("name", BIASES)
def test_any_rectangle_equals_dense_weights_saved_or_not(name: str, sink: bool, states: bool, tmp_path: Path) -> None:
    plan = plan_of(BIASES[name], sink)
    expected = dense(plan)
    trace = trace_of(kept_of(plan, (100, 101, 102, 250), states))
    trace.save(tmp_path / "one.safetensors")
    for seen in (trace, Trace.load(tmp_path / "one.safetensors")):
        for head in (0, 3):
            for rows, keys in CORNERS:
                found = seen.weights(0, head, rows, keys, batch=1)
                assert found.shape == (rows.stop - rows.start, keys.stop - keys.start)
                assert torch.allclose(found.double(), expected[1, head, rows, keys], atol=2e-6)


def test_rows_scored_alike_are_one_record_and_peaked_ones_stay_exact(tmp_path: Path) -> None:
    plan = plan_of((), window=20, spread=60.0)
    kept = kept_of(plan, tuple(range(200, T)))
    assert len(kept.store.scorings) == 1
    found = trace_of(kept).weights(0, 1, slice(195, 299), slice(150, 299))
    assert torch.allclose(found.double(), dense(plan)[0, 1, 195:299, 150:299], atol=1e-4)
    assert torch.allclose(trace_of(kept).weights(0, 1).sum(-1), torch.ones(T), atol=1e-5)


def test_half_precision_queries_give_weights_in_float32() -> None:
    plan = plan_of(())
    half = dataclasses.replace(plan, q=plan.q.bfloat16(), k=plan.k.bfloat16())
    found = trace_of(kept_of(half, (10,))).weights(0, 2, slice(200, 210))
    exact = dense(dataclasses.replace(plan, q=half.q.float(), k=half.k.float()))[0, 2, 200:210]
    assert torch.allclose(found.double(), exact, atol=2e-6)


def test_what_is_loaded_lies_in_the_file(tmp_path: Path) -> None:
    """Half of memory is not needed to open it: the tensors of the store are no copies of the file."""
    path = tmp_path / "one.safetensors"
    trace_of(kept_of(plan_of(()), (100,))).save(path)
    kept = Trace.load(path).layers[0].kept
    assert kept is not None and kept.store.q is not None
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list its memory maps")
    address = kept.store.q.live().data_ptr()
    lines = [line.split() for line in maps.read_text().splitlines() if str(path) in line]
    assert any(int(a, 16) <= address < int(b, 16) for a, b in (line[0].split("-") for line in lines))


def test_a_damaged_statistic_beside_a_store_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    trace = trace_of(kept_of(plan_of(()), (100,)))
    trace.layers[0].results = {"mine": {"rows": torch.full((B, H, T), 7.0)}}
    trace.save(path)
    content = bytearray(path.read_bytes())
    content[bytes(content).index(torch.full((4,), 7.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(TraceError, match="changed or damaged"):
        Trace.load(path)


@pytest.mark.parametrize("cell", [(1, 1), (4, 2), (16, 16), (1, 64)])
def test_tiles_are_means_and_maxima_of_exact_weights(cell: tuple[int, int]) -> None:
    plan = plan_of((), window=30)
    expected, allowed = dense(plan)[1, 2], (plan.ranges.dense()[1, 0] & axis().valid[1][:, None]).double()
    found = tiles(trace_of(kept_of(plan, (128,))), 0, 2, slice(101, 217), slice(37, 190), cell=cell, batch=1)
    assert found.begin == (101 // cell[0] * cell[0], 37 // cell[1] * cell[1])
    for r in range(found.mean.shape[0]):
        for c in range(found.mean.shape[1]):
            rows = slice(found.begin[0] + r * cell[0], min(found.begin[0] + (r + 1) * cell[0], T))
            keys = slice(found.begin[1] + c * cell[1], min(found.begin[1] + (c + 1) * cell[1], T))
            assert float(found.count[r, c]) == float(allowed[rows, keys].sum())
            mean = expected[rows, keys].sum() / allowed[rows, keys].sum().clamp(min=1)
            assert float(found.mean[r, c]) == pytest.approx(float(mean), abs=2e-6)
            assert float(found.max[r, c]) == pytest.approx(float(expected[rows, keys].max()), abs=2e-6)
    with pytest.raises(TraceError, match="powers of two, got 3 × 1"):
        tiles(trace_of(kept_of(plan, ())), 0, 0, cell=(3, 1))


@pytest.mark.parametrize("shifts", [(0, 0), (2, 3), (5, 5), (7, 1)])
@pytest.mark.parametrize("name", BIASES)
def test_pooled_rectangles_are_those_of_exact_weights(name: str, shifts: tuple[int, int]) -> None:
    over = axis()
    plan = plan_of(BIASES[name], window=100 if name == "plain" else None, sink=name == "slopes")
    kept = Kept(observers())
    for begin, end in ((0, 130), (130, T)):
        kept.add(part(plan, begin, end), slice(begin, end), 0)
    rows, keys = slice(64, 257), slice(32, 300)
    for batch, head in ((0, 0), (1, 3)):
        exact = kept.rectangle(batch, head, rows, keys, (over, over)).double()
        total, most = kept.store.pooled(batch, head, rows, keys, shifts, (over, over), kept.walks)
        for got, how in ((total, "sum"), (most, "amax")):
            want = pooled(exact[None, None], (0, 0), shifts, how)[0, 0]
            torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=1e-7)
