"""Which tiles of rows × keys hold a visible pair: counted from the ranges, never from a dense mask.

Work and memory are tokens × intervals, plus one small integer per tile: 1/4,096 or less of the pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regard.core.ranges import Ranges
from regard.run.triton.arguments import Tiles

UNSEEN, PARTIAL, FULL = 0, 1, 2
NO_TILES = Tiles(None, None, 0, 0, 0)


def classes(seen: Ranges, rows: int, keys: int, lead: int = 0) -> Tensor:
    """int32 [batch or 1, heads or 1, row blocks, key blocks]: UNSEEN, PARTIAL or FULL for tiles of rows × keys tokens.

    The first block of rows starts `lead` rows before the first row. A tile with keys beyond the last is never FULL.
    """
    start, stop = seen.start.long(), seen.stop.long()
    num_blocks = -(-(lead + seen.num_queries) // rows)
    num_tiles = -(-seen.num_keys // keys)
    block = (torch.arange(seen.num_queries, device=start.device) + lead) // rows
    touched = _covered(start // keys, (stop + keys - 1) // keys, stop > start, block, num_blocks, num_tiles)
    inner = _covered((start + keys - 1) // keys, stop // keys, stop > start, block, num_blocks, num_tiles)
    held = torch.zeros(num_blocks, dtype=torch.int32, device=start.device).index_add_(
        0, block, torch.ones_like(block, dtype=torch.int32)
    )
    return (touched > 0).int() + (inner == held[:, None]).int()


def _covered(first: Tensor, last: Tensor, some: Tensor, block: Tensor, num_blocks: int, num_tiles: int) -> Tensor:
    """int32 [.., num_blocks, num_tiles]: how many intervals [first, last) of a block's rows hold each tile."""
    count = (some & (last > first)).int()
    change = count.new_zeros((*first.shape[:2], num_blocks * (num_tiles + 1)))
    row = (block * (num_tiles + 1))[:, None]
    for edge, sign in ((first, 1), (last, -1)):
        place = (row + edge.clamp(max=num_tiles)).flatten(2)
        change.scatter_add_(2, place, sign * count.flatten(2))
    return change.view(*first.shape[:2], num_blocks, num_tiles + 1).cumsum(-1, dtype=torch.int32)[..., :-1]


def listed(kinds: Tensor) -> Tiles:
    """Tiles to visit for each block of the second-to-last axis: the full ones in order, then the partial ones.

    Give `classes(...)` for what rows visit, its transpose for what keys visit.
    """
    order = torch.sort(-kinds, dim=-1, stable=True).indices.int().contiguous()
    counts = torch.stack([(kinds == FULL).sum(-1), (kinds > UNSEEN).sum(-1)], -1).int().contiguous()
    heads, blocks = kinds.shape[1], kinds.shape[2]
    by_batch, by_head = (0 if n == 1 else s for n, s in zip(kinds.shape[:2], (heads * blocks, blocks), strict=True))
    return Tiles(order, counts, by_batch, by_head, kinds.shape[3])
