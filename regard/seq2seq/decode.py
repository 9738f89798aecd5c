"""From source token ids to target token ids: batches by length, one beam search each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.seq2seq.batches import by_tokens, padded
from regard.seq2seq.beam import Search, written
from regard.seq2seq.writers import writer

TOKENS = 4096  # source tokens × beams of a batch


@torch.no_grad()
def decoded(
    model: PreTrainedModel, sources: Sequence[list[int]], search: Search, tokens: int = TOKENS
) -> Iterator[tuple[int, list[int]]]:
    """(number of a source, its target ids without start and end), batch by batch, the longest first."""
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    for rows in by_tokens(order, lambda row: len(sources[row]) * search.beams, tokens):
        source = padded([sources[row] for row in rows], _id(model, "pad_token_id")).to(model.device)
        lengths = torch.tensor([len(sources[row]) for row in rows], device=source.device)
        mask = (torch.arange(source.shape[1], device=source.device) < lengths[:, None]).long()
        yield from zip(rows, outputs(model, source, mask, search), strict=True)


def outputs(model: PreTrainedModel, source: Tensor, mask: Tensor, search: Search) -> list[list[int]]:
    """The best hypothesis of each row of a batch: source, mask [B,S]."""
    start, end = _id(model, "decoder_start_token_id"), _id(model, "eos_token_id")
    writing = writer(model, source, mask, search.beams)
    if writing is None:
        return _generated(model, source, mask, search, end)
    banned = torch.tensor(sorted({_id(model, "pad_token_id"), start} - {end}))
    return written(writing, source.shape[0], search, start, end, banned)


def _generated(model: Any, source: Tensor, mask: Tensor, search: Search, end: int) -> list[list[int]]:
    found = model.generate(
        input_ids=source,
        attention_mask=mask,
        num_beams=search.beams,
        do_sample=False,
        length_penalty=search.length_penalty,
        max_new_tokens=search.longest,
    )
    ids = found[:, 1:].tolist()
    return [row[: row.index(end)] if end in row else row for row in ids]


def _id(model: PreTrainedModel, name: str) -> int:
    found = getattr(model.config, name, None)
    found = getattr(model.generation_config, name, None) if found is None else found
    found = found[0] if isinstance(found, list) else found
    return 0 if found is None else int(found)
