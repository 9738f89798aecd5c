"""Reformer's chunks placed at true positions: local ones by order, hashed ones by the buckets (Kitaev 2020, section 2).

A hashed layer sorts its tokens by bucket in each of its rounds, cuts the order into chunks and attends to the chunk
and its neighbours. Rounds are mixed by how much each saw: with Z_h(i) the sum of exponentials of row i in round h,

    W[i, j] = Σ_h Z_h(i) / Σ_g Z_g(i) · P_h[i, j].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.hf.own_code.flow import Followed
from regard.hf.own_code.places.attended import Attended
from regard.hf.own_code.places.scatter import scattered
from regard.hf.own_code.seen import Doubt, Seen, made


@dataclass(frozen=True, eq=False)
class Chunks:
    """probs [B, H, R · T, K]: weights of each slot of the sorted order of R rounds; keys [B, H, R · T, K]: on which.

    slot_of: int64 [B, H, R, T], the slot of each token in each round; share: [B, H, R, T], how much a round counts.
    """

    probs: Tensor
    keys: Tensor
    slot_of: Tensor
    share: Tensor

    def rows_of(self, start: int, stop: int) -> Tensor:
        """Rows start to stop as [B, H, rows, T]."""
        out = None
        for number in range(self.slot_of.shape[2]):
            slots = self.slot_of[:, :, number, start:stop, None].expand(-1, -1, -1, self.probs.shape[-1])
            weights = self.probs.gather(2, slots) * self.share[:, :, number, start:stop, None]
            part = scattered(weights, self.keys.gather(2, slots), self.slot_of.shape[3])
            out = part if out is None else out + part
        assert out is not None
        return out


def read_chunks(attended: Attended, followed: list[Followed]) -> list[Seen | Doubt]:
    """The attention of one Reformer module, local or hashed."""
    module: Any = attended.module
    name = attended.name
    if len(followed) != 1:
        return [Doubt(name, module, f"it took {len(followed)} exponentials of scores instead of one")]
    probs = followed[0].made.detach()
    if probs.ndim == 4:
        certain = ("exp(scores - logsumexp of them)", "[batch, heads, queries, keys]")
        return [made(name, module, 0, probs, certain, followed[0].dropped)]
    length = attended.args[0].shape[1] if attended.args else attended.kwargs["hidden_states"].shape[1]
    batch, heads, chunks, size, _ = probs.shape
    rounds, left = divmod(chunks * size, length)
    if left:
        return [Doubt(name, module, "it attends to hashed keys of its cache; watch a forward without a cache")]
    order = _order(attended, batch, heads, rounds, length, probs.device)
    if order is None:
        return [Doubt(name, module, "it did not return the buckets that it sorted its tokens by")]
    positions = (order % length).reshape(batch, heads, chunks, size)
    keys = module._look_adjacent(positions, module.num_chunks_before, module.num_chunks_after)
    slot_of = torch.empty_like(order).scatter_(-1, order, torch.arange(order.shape[-1]).to(order).expand_as(order))
    slot_of = slot_of.unflatten(-1, (rounds, length))
    seen = torch.logsumexp(followed[0].scores.detach(), -1).reshape(batch, heads, -1)
    seen = seen.gather(-1, slot_of.flatten(2)).unflatten(-1, (rounds, length))
    share = torch.exp(seen - torch.logsumexp(seen, 2, keepdim=True))  # as the class rounds it
    keys = keys[:, :, :, None].expand(probs.shape)
    placed = Chunks(probs.flatten(2, 3), keys.flatten(2, 3), slot_of, share)
    certain = ("exp(scores - logsumexp of them)", "the module's own chunks" + (" and buckets" if rounds > 1 else ""))
    shape = (batch, heads, length, length)
    return [Seen(name, module, 0, shape, placed.rows_of, "buckets", certain, followed[0].dropped)]


def _order(attended: Attended, batch: int, heads: int, rounds: int, length: int, device: Any) -> Tensor | None:
    """int64 [B, H, R · T]: which slot of the R · T tokens comes n-th; None where it cannot be known."""
    module: Any = attended.module
    if not hasattr(module, "_hash_vectors"):
        return torch.arange(length, device=device).expand(batch, heads, length) if rounds == 1 else None
    buckets = getattr(attended.output, "buckets", None)
    if buckets is None:
        return None
    buckets = buckets.reshape(batch, heads, rounds * length)
    order: Tensor = module._get_sorted_bucket_idx_and_undo_sorted_bucket_idx(length, buckets, rounds)[0]
    return order
