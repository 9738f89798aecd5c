"""The loss of each token of a text: how much its model did not expect it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

ROWS = 256  # positions whose logits are widened at once


def token_losses(model: Any, inputs: Mapping[str, Tensor], output: Any) -> Tensor | None:
    """-log p(x_t | x_<t), natural log, float32 [B,T]; NaN for the first token and for padding.

    None where the output is no distribution over the next token of the inputs: encoders, encoder–decoders, heads.
    """
    ids, logits = inputs.get("input_ids"), getattr(output, "logits", None)
    config = model.config
    if ids is None or logits is None or config.is_encoder_decoder or not model.can_generate():
        return None
    if logits.ndim != 3 or logits.shape[:2] != ids.shape or not ids.numel():
        return None
    losses = torch.full(ids.shape, torch.nan)
    for begin in range(0, ids.shape[1] - 1, ROWS):
        rows = slice(begin, min(begin + ROWS, ids.shape[1] - 1))
        wide, after = logits[:, rows].float(), ids[:, rows.start + 1 : rows.stop + 1]
        losses[:, rows.start + 1 : rows.stop + 1] = (
            wide.logsumexp(-1) - wide.gather(-1, after[..., None])[..., 0]
        ).cpu()
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape == ids.shape:
        there = mask.bool().cpu()
        first = torch.nn.functional.pad(~there[:, :-1], (1, 0), value=True)
        losses = losses.masked_fill(~there | first, torch.nan)
    return losses
