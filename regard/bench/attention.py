"""`regard bench attention`: every backend against torch SDPA, compiled FlexAttention and the eager form, in one run.

Each case is checked against a float64 computation on sampled rows before it is timed. Contestants of a case are timed
in turn, `repeats` times, and reported as the median of their ratio to torch SDPA in the same turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from regard import core
from regard.bench.machine import describe
from regard.errors import UserError
from regard.mechanism import Inputs, Mechanism, inputs, lower
from regard.parts import masks
from regard.parts.standard import standard as standard_parts
from regard.run import native
from regard.run.layout import Paged, Ragged
from regard.run.paged import new_pages, paged_decode, write_pages
from regard.run.ragged import ragged
from regard.seeing.statistics import standard
from regard.seeing.watching import Watching
from regard.statistic import Axis, View

HEADS, WIDTH = 12, 64


@dataclass(frozen=True, eq=False)
class Case:
    """What is computed: its name, the peer that ratios refer to, and the contestants by name."""

    name: str
    peer: str
    contestants: dict[str, Callable[[], Any]]
    error: float | None = None
    note: str = ""
    before: Callable[[], Any] = lambda: None  # run before each timing, untimed: empties caches


def run(names: list[str] | None, repeats: int, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Times every case (or those named). Raises UserError for an unknown name and for a result that is not exact."""
    unknown = sorted(set(names or ()) - set(CASES))
    if unknown:
        raise UserError(f"there is no case {unknown[0]!r}; there are: {', '.join(CASES)}")
    if not native.available():
        raise UserError(f"nothing to compare: {native.why_unavailable()}")
    rows = []
    for name in names or list(CASES):
        with torch.inference_mode():
            row = _timed(CASES[name](), repeats)
        rows.append(row)
        report("  ".join([row["case"], *(f"{who} {text}" for who, text in _said(row).items())]))
    return {"machine": describe(), "threads": torch.get_num_threads(), "rows": rows}


def _timed(case: Case, repeats: int) -> dict[str, Any]:
    if case.error is not None and not case.error <= 1e-5:
        raise UserError(f"{case.name} is off by {case.error:.1e} from float64; nothing was timed")
    seconds: dict[str, list[float]] = {who: [] for who in case.contestants}
    for contestant in case.contestants.values():
        contestant()
    for _ in range(repeats):
        for who, contestant in case.contestants.items():
            case.before()
            begin = time.perf_counter()
            contestant()
            seconds[who].append(time.perf_counter() - begin)
    ratios = {who: median(a / b for a, b in zip(times, seconds[case.peer])) for who, times in seconds.items()}
    medians = {who: median(times) for who, times in seconds.items()}
    return {
        "case": case.name,
        "peer": case.peer,
        "error": case.error,
        "note": case.note,
        "seconds": medians,
        "ratios": ratios,
    }


def _said(row: dict[str, Any]) -> dict[str, str]:
    return {who: f"{row['seconds'][who] * 1e3:.1f} ms ({row['ratios'][who]:.2f})" for who in row["seconds"]}


def table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows as text: case, contestant, milliseconds, ratio to the case's peer."""
    lines = [["case", "contestant", "ms", "× peer", "peer", "error"]]
    for row in result["rows"]:
        for who, seconds in row["seconds"].items():
            error = "" if row["error"] is None else f"{row['error']:.1e}"
            lines.append([row["case"], who, f"{seconds * 1e3:.1f}", f"{row['ratios'][who]:.2f}", row["peer"], error])
    return lines


# ---- cases ----------------------------------------------------------------------------------------------------------


def _tensors(num_queries: int, num_keys: int, groups: int = HEADS, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(num_keys)
    shapes = [(batch, HEADS, num_queries, WIDTH), (batch, groups, num_keys, WIDTH), (batch, groups, num_keys, WIDTH)]
    q, k, v = (torch.randn(shape, generator=make) for shape in shapes)
    return q, k, v


def _plan(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> core.Plan:
    found = lower(standard_parts("attention", "Vaswani 2017", mask=mask), inputs(q, k, v))
    assert isinstance(found, core.Plan)
    return found


def _error(out: Tensor, plan: core.Plan, rows: list[int]) -> float:
    """The largest error of some rows against float64."""
    assert plan.v is not None
    seen = plan.ranges.dense()[:, :, rows] if plan.ranges.num_queries <= 4096 else None
    if seen is None:
        seen = torch.cat([plan.ranges.rows(row, row + 1).dense() for row in rows], 2)
    share = plan.q.shape[1] // plan.k.shape[1]
    k, v = (t.double().repeat_interleave(share, 1) for t in (plan.k, plan.v))
    scores = (plan.q[:, :, rows].double() @ k.transpose(-1, -2)) * WIDTH**-0.5
    truth = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
    return float((out[:, :, rows].double() - truth).abs().max())


def _eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) * WIDTH**-0.5
    future = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


def _flex(predicate: Callable[..., Tensor], length: int) -> Callable[[Tensor, Tensor, Tensor], Any]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    block = create_block_mask(predicate, None, None, length, length, device="cpu")
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=block)


def causal(length: int, eager: bool) -> Case:
    """Causal prefill: unwatched, with all statistics, and statistics alone."""
    q, k, v = _tensors(length, length)
    plan = _plan(q, k, v, masks.causal())
    flex = _flex(lambda b, h, i, j: j <= i, length)
    contestants: dict[str, Callable[[], Any]] = {
        "sdpa": lambda: sdpa(q, k, v, is_causal=True),
        "native": lambda: native.NATIVE.run(plan),
        "native, all statistics": lambda: _watched(plan, True),
        "statistics alone": lambda: _watched(plan, False),
        "flex, compiled": lambda: flex(q, k, v),
    }
    if eager:
        contestants["eager"] = lambda: _eager(q, k, v)
    out = native.NATIVE.run(plan).out
    assert out is not None
    return Case(f"causal {length}", "sdpa", contestants, _error(out, plan, [0, 1, length // 2, length - 1]))


def _watched(plan: core.Plan, output: bool) -> Any:
    """Every standard statistic of every head, with or without the output."""
    length = plan.q.shape[2]
    ids = (torch.arange(length) * 7919 % 50257)[None]
    valid = torch.ones(1, length, dtype=torch.bool)
    axis = Axis(torch.arange(length)[None], valid, ids, ids == 0)
    view = View(1, plan.q.shape[1], axis, axis, same_axis=True)
    x = Inputs(plan.q, plan.k, plan.v if output else None, axis.positions, axis.positions, allowed=plan.ranges)
    mechanism: Mechanism = standard_parts("attention", "Vaswani 2017", mask=masks.full())
    watching = Watching(standard(), (native.NATIVE,))
    return watching.absorb(mechanism, x, view, slice(0, length), 0, None)


def windowed(length: int) -> Case:
    """A window of 1,024 with 4 sinks against SDPA's causal time."""
    q, k, v = _tensors(length, length)
    plan = _plan(q, k, v, masks.window(1024) | masks.sinks(4))
    flex = _flex(lambda b, h, i, j: (j <= i) & ((i - j < 1024) | (j < 4)), length)
    out = native.NATIVE.run(plan).out
    assert out is not None
    contestants: dict[str, Callable[[], Any]] = {
        "sdpa, causal": lambda: sdpa(q, k, v, is_causal=True),
        "native": lambda: native.NATIVE.run(plan),
        "flex, compiled": lambda: flex(q, k, v),
    }
    error = _error(out, plan, [0, 5, 1024, 1030, length - 1])
    return Case(f"window 1024, 4 sinks, {length}", "sdpa, causal", contestants, error)


def documents() -> Case:
    """32 documents of 64 to 2,048 tokens, packed, against SDPA on the padded batch."""
    lengths = torch.linspace(64, 2048, 32).int()
    cu = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()])
    q, k, v = (t[0].transpose(0, 1).contiguous() for t in _tensors(int(cu[-1]), int(cu[-1])))
    padded = [torch.zeros(32, HEADS, 2048, WIDTH) for _ in range(3)]
    for document, (begin, end) in enumerate(zip(cu[:-1].tolist(), cu[1:].tolist())):
        for whole, packed in zip(padded, (q, k, v)):
            whole[document, :, : end - begin] = packed[begin:end].transpose(0, 1)
    layout = Ragged(cu, cu)
    wide_q, wide_k, wide_v = padded
    truth = sdpa(wide_q, wide_k, wide_v, is_causal=True)
    out = ragged(q, k, v, layout).out
    assert out is not None
    last = [(int(cu[d + 1]) - 1, d, int(lengths[d]) - 1) for d in range(32)]
    error = max(float((out[at] - truth[d, :, row]).abs().max()) for at, d, row in last)
    contestants: dict[str, Callable[[], Any]] = {
        "sdpa, padded": lambda: sdpa(wide_q, wide_k, wide_v, is_causal=True),
        "native, packed": lambda: ragged(q, k, v, layout),
    }
    return Case("32 documents of 64 to 2048", "sdpa, padded", contestants, error)


def decode(sequences: int, context: int, heads: int = 9, groups: int = 3) -> Case:
    """One new token a sequence on pages of 16, against reading the same bytes, and against transformers' gather."""
    make = torch.Generator().manual_seed(0)
    q = torch.randn(sequences, heads, WIDTH, generator=make)
    per = context // 16
    pages = new_pages(sequences * per, groups, WIDTH, WIDTH, 16)
    order = torch.randperm(sequences * per, generator=make).int().view(sequences, per)
    k, v = (torch.randn(sequences, groups, context, WIDTH, generator=make) for _ in range(2))
    slots = (order.long()[:, :, None] * 16 + torch.arange(16)).view(sequences, context)
    for s in range(sequences):
        write_pages(k[s].transpose(0, 1), v[s].transpose(0, 1), slots[s], *pages)
    key_pages, value_pages = pages
    layout = Paged(order, torch.full((sequences,), context, dtype=torch.int32), 16)
    straight = Paged(torch.arange(sequences * per).int().view(sequences, per), layout.lengths, 16)
    truth = sdpa(q[:, :, None], k, v, enable_gqa=True)[:, :, 0]
    error = float((paged_decode(q, key_pages, value_pages, layout).out - truth).abs().max())  # type: ignore[operator]
    flat = [torch.empty_like(k).normal_(generator=make) for _ in range(2)]

    def gathered() -> Tensor:
        both = [t.transpose(0, 1).reshape(1, groups, sequences * context, WIDTH) for t in (k, v)]
        keys, values = (t.repeat_interleave(heads // groups, 1) for t in both)
        own = torch.arange(sequences * context)[None] // context == torch.arange(sequences)[:, None]
        return sdpa(q.transpose(0, 1)[None], keys, values, attn_mask=own[None, None])

    contestants: dict[str, Callable[[], Any]] = {
        "read the bytes": lambda: [t.view(-1).sum() for t in flat],
        "native, paged": lambda: paged_decode(q, key_pages, value_pages, layout),
        "native, pages in order": lambda: paged_decode(q, key_pages, value_pages, straight),
    }
    if sequences > 1:
        contestants["gathered and masked"] = gathered
    size = 2 * k.numel() * 4 / 2**20
    note = f"{size:.0f} MiB of keys and values"
    other = torch.ones(64 << 20)
    return Case(f"decode {sequences} × {context}", "read the bytes", contestants, error, note, before=other.sum)


CASES: dict[str, Callable[[], Case]] = {
    "causal-1024": lambda: causal(1024, eager=True),
    "causal-4096": lambda: causal(4096, eager=True),
    "causal-8192": lambda: causal(8192, eager=False),
    "window-16384": lambda: windowed(16384),
    "documents": documents,
    "decode-32x1024": lambda: decode(32, 1024),
    "decode-1x32768": lambda: decode(1, 32768),
}
