"""BigBird's blocks placed at true positions (Zaheer 2020, appendix D; here m blocks of s tokens, r random ones a row).

The first and last block attend to all keys. Block 1 attends to blocks 0, 1, 2, m-1 and r others, block m-2 to blocks
0, m-3, m-2, m-1 and r others, a block i between to blocks 0, i-1, i, i+1, r others and m-1. In eval mode the class
takes block 0 for every random one, so that its keys count twice: the weights here are the sums, which is what mixes
the values (the class's own `output_attentions` shows one of the two).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.hf.own_code.flow import Followed
from regard.hf.own_code.places.attended import Attended
from regard.hf.own_code.places.scatter import scattered
from regard.hf.own_code.seen import Doubt, Seen


@dataclass(frozen=True, eq=False)
class Blocks:
    """Weights of each block of rows [B, H, s, K], and the key blocks [B, H, K / s] they are on; None is all of them."""

    weights: list[Tensor]
    keys: list[Tensor | None]
    size: int

    def rows_of(self, start: int, stop: int) -> Tensor:
        """Rows start to stop as [B, H, rows, T]."""
        found = []
        for block in range(start // self.size, -(-stop // self.size)):
            first = block * self.size
            part = slice(max(start - first, 0), min(stop - first, self.size))
            weights, keys = self.weights[block][:, :, part], self.keys[block]
            if keys is None:
                found.append(weights)
                continue
            at = keys[..., None] * self.size + torch.arange(self.size, device=weights.device)
            found.append(scattered(weights, at.flatten(2)[:, :, None], len(self.weights) * self.size))
        return torch.cat(found, 2)


def read_blocks(attended: Attended, followed: list[Followed]) -> list[Seen | Doubt]:
    """The attention of one BigBird module, from its five softmaxes."""
    module: Any = attended.module
    if len(followed) != 5 or followed[2].made.ndim != 5:
        reason = f"its attention is {len(followed)} softmaxes instead of five kinds of block"
        return [Doubt(attended.name, module, reason)]
    if module.training:
        return [Doubt(attended.name, module, "it draws random blocks while it trains; call model.eval() first")]
    first, second, middle, second_last, last = (f.made.detach() for f in followed)
    batch, heads, size, length = first.shape
    count = length // size
    random = _random_blocks(module, length, size, heads).to(first.device)
    keys: list[Tensor | None] = [None]
    for block in range(1, count - 1):
        listed = _listed(block, count, random[:, block - 1])
        keys.append(listed.expand(batch, -1, -1))
    weights = [first, second, *middle.unbind(2), second_last, last]
    if len(weights) != count or any(k is not None and w.shape[-1] != k.shape[-1] * size for w, k in zip(weights, keys)):
        return [Doubt(attended.name, module, "its blocks are not the ones of the published pattern")]
    placed = Blocks(weights, [*keys, None], size)
    certain = ("five softmaxes, one for each kind of block", "the class's own list of blocks")
    return [Seen(attended.name, module, 0, (batch, heads, length, length), placed.rows_of, "blocks", certain)]


def _random_blocks(module: Any, length: int, size: int, heads: int) -> Tensor:
    """The class's own random blocks [H, m - 2, r]; in eval mode it draws none."""
    count = module.num_random_blocks
    if length in (1024, 3072, 4096):
        limit = module.max_seqlen
        each = [
            module._bigbird_block_rand_mask(limit, limit, size, size, count, last_idx=1024)[: length // size - 2]
            for _ in range(heads)
        ]
    else:
        plan, blocks = module._get_rand_attn_plan(length, size, count)
        each = module._bigbird_block_rand_mask_with_head(
            from_seq_length=length,
            to_seq_length=length,
            from_block_size=size,
            to_block_size=size,
            num_heads=heads,
            plan_from_length=plan,
            plan_num_rand_blocks=blocks,
        )
    return torch.stack([torch.as_tensor(one, dtype=torch.int64) for one in each])


def _listed(block: int, count: int, random: Tensor) -> Tensor:
    """The key blocks [H, K / s] of a block of rows in the class's order; random: [H, r]."""
    after: list[int] = []
    if block == 1:
        before = [0, 1, 2, count - 1]
    elif block == count - 2:
        before = [0, count - 3, count - 2, count - 1]
    else:
        before, after = [0, block - 1, block, block + 1], [count - 1]
    heads = random.shape[0]
    fixed = [random.new_tensor(part, dtype=torch.int64).expand(heads, -1) for part in (before, after)]
    return torch.cat([fixed[0], random, fixed[1]], 1)
