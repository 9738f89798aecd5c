"""Whether two contestants wrote the same, and where not, how near the model's two best tokens were."""

from __future__ import annotations

from typing import Any

import torch

from regard.bench.serving.load import Ask

TIE = 1e-4  # two logits that differ by less are a tie: rounding may choose either


def compared(model: Any, asks: list[Ask], first: list[list[int]], other: list[list[int]]) -> dict[str, Any]:
    """same_tokens: the share of requests with equal answers; ties: how many of the others part where the model's two
    best logits differ by less than 1e-4; widest: the largest such difference among them, None where there are none.

    model: transformers' own, in float32. first, other: tokens of each request; other may have fewer requests."""
    margins = [_margin(model, ask.prompt, a, b) for ask, a, b in zip(asks, first, other) if a != b]
    return {
        "same_tokens": 1 - len(margins) / max(1, len(other)),
        "ties": sum(margin < TIE for margin in margins),
        "widest": max(margins, default=None),
    }


def _margin(model: Any, prompt: list[int], a: list[int], b: list[int]) -> float:
    """The difference of the two best logits where the answers part; infinity where one only ends sooner."""
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
    if at is None:
        return float("inf")
    with torch.inference_mode():
        ids = torch.tensor([prompt + a[:at]])
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
    best = logits.topk(2).values
    return float(best[0] - best[1])
