"""Tiles of a long input: what every cell holds is what the exact weights give, wherever a tile begins and ends."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regard.seeing.cells import pooled
from regard.seeing.statistics import Entropy, Overview
from regard.seeing.trace import Trace
from regard.view import pyramid
from regard.view.pyramid import Pyramid, Tile, TileAsk, tile_tokens
from tests.view import long, traces


def dense(trace: Trace, layer: int, head: int) -> Tensor:
    """Exact weights float64 [rows, keys] from kept queries and keys, by the formula."""
    kept = trace.layers[layer].kept
    assert kept is not None and kept.store.q is not None and kept.store.k is not None
    q, k = kept.store.q.live()[0], kept.store.k.live()[0]
    scores = q[head].double() @ k[head * k.shape[0] // q.shape[0]].double().T / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)


def expected(weights: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """Mean over visible pairs and maximum of each cell of a tile of causal weights."""
    shifts = (tile.cell[0].bit_length() - 1, tile.cell[1].bit_length() - 1)
    rows = slice(tile.begin[0], tile.begin[0] + tile.mean.shape[0] * tile.cell[0])
    keys = slice(tile.begin[1], tile.begin[1] + tile.mean.shape[1] * tile.cell[1])
    seen = torch.ones_like(weights).tril()
    total, most, count = (
        pooled(x[rows, keys][None, None], (0, 0), shifts, how)[0, 0]  # type: ignore[arg-type]
        for x, how in ((weights, "sum"), (weights, "amax"), (seen, "sum"))
    )
    hidden = count == 0
    return (total / count.clamp(min=1)).masked_fill(hidden, torch.nan), most.masked_fill(hidden, torch.nan)


@pytest.mark.parametrize("zoom", [(0, 0), (1, 2), (4, 4), (5, 5), (6, 7), (5, 0)])
def test_every_cell_of_every_tile_is_that_of_the_exact_weights(
    monkeypatch: pytest.MonkeyPatch, zoom: tuple[int, int]
) -> None:
    monkeypatch.setattr(pyramid, "BLOCK", 256)
    monkeypatch.setattr(pyramid, "REACH", 512)
    trace = long.trace(1000, watch=(Overview(4), Entropy()), groups=1)
    seen = Pyramid(trace)
    weights = dense(trace, 0, 1)
    counts = [-(-1000 // tile_tokens(z)) for z in zoom]
    for row, key in itertools.product(*(range(count) for count in counts)):
        tile = seen.tile(TileAsk(0, 1, row, key, zoom))
        mean, most = expected(weights, tile)
        tight = {"rtol": 2e-6, "atol": 1e-9} if zoom == (0, 0) else {"rtol": 2e-5, "atol": 1e-8}
        torch.testing.assert_close(tile.mean.double(), mean, equal_nan=True, **tight)
        torch.testing.assert_close(tile.max.double(), most, equal_nan=True, **tight)
        rows = torch.arange(tile.begin[0], min(1000, tile.begin[0] + tile_tokens(zoom[0]))).double() + 1
        allowed = torch.stack([part.mean() for part in rows.split(1 << zoom[0])])
        torch.testing.assert_close(tile.allowed.double(), allowed, rtol=1e-6, atol=0)


def test_coarse_tiles_come_from_the_overview() -> None:
    trace = long.trace(600, watch=(Overview(8),))
    trace.layers[0].kept = None
    tile = Pyramid(trace).tile(TileAsk(0, 0, 0, 0, (7, 7)))
    torch.testing.assert_close(tile.max.nan_to_num(), trace.layers[0].results["overview"]["max"][0, 0])


def test_blocks_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "BLOCK", 128)
    seen = Pyramid(long.trace(1000, watch=(Overview(2),)), kept_bytes=2000)
    first = seen.tile(TileAsk(0, 0, 0, 0, (5, 5)))
    assert 0 < seen.held_bytes <= 2000
    again = seen.tile(TileAsk(0, 0, 0, 0, (5, 5)))
    assert torch.equal(first.mean.nan_to_num(), again.mean.nan_to_num())


def test_a_file_answers_as_memory_does(tmp_path: Path) -> None:
    trace = long.trace(500, groups=1)
    trace.save(tmp_path / "t.safetensors")
    again = Trace.load(tmp_path / "t.safetensors")
    for ask in (TileAsk(0, 1, 3, 2), TileAsk(0, 0, 0, 0, (1, 1))):
        assert torch.equal(Pyramid(trace).tile(ask).max.nan_to_num(), Pyramid(again).tile(ask).max.nan_to_num())


def test_an_exact_overview_needs_no_kept_weights() -> None:
    trace = traces.decoder(12, 1, 2)
    tile = Pyramid(trace).tile(TileAsk(0, 1, 0, 0))
    torch.testing.assert_close(tile.mean.nan_to_num(), trace.weights(0, 1))
