"""Which heads look beyond the first tokens and the latest: measured, for caches that tell heads apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard.hf.attach import checked, held_plan
from regard.hf.calls import read
from regard.hf.errors import Unsupported
from regard.hf.seam import AttentionCall, Handler, handling
from regard.inputs import inputs
from regard.parts.masks import causal, sinks, window
from regard.run import compose

STRIP = 256


class _Measuring(Handler):
    """Adds up, layer by layer, the weight of far keys."""

    def __init__(self, first: int, recent: int) -> None:
        self.near = window(recent) | sinks(first) if first else window(recent)
        self.layers: dict[int, Tensor] = {}

    def attend(self, call: AttentionCall) -> None:
        data = read(call, type(call.module).__name__)
        x = inputs(data.q, data.k, data.v)
        meant, length = data.mechanism.masked(causal()), data.q.shape[2]
        far = torch.zeros(data.q.shape[:2], dtype=torch.float64, device=data.q.device)
        at = torch.arange(length, device=data.q.device)
        for begin in range(0, length, STRIP):
            rows = slice(begin, min(begin + STRIP, length))
            weights = compose.weights(meant, x, rows, slice(0, length))
            seen = self.near(at[:1, None, None, None], at[:1, None, None, None], at[rows, None], at)
            far = far + weights.masked_fill(seen, 0.0).sum((2, 3), dtype=torch.float64)
        per_group = (far / length).mean(0).unflatten(0, (data.k.shape[1], -1)).mean(1)
        self.layers[int(getattr(call.module, "layer_idx", len(self.layers)))] = per_group


@torch.no_grad()
def retrieval(model: nn.Module, input_ids: Tensor, *, sinks: int = 4, recent: int = 256) -> Tensor:
    """[layers, key-value heads]: the mean weight of a row beyond the first `sinks` and the latest `recent` tokens.

    input_ids [1,T]: a text for which it is measured, of more tokens than those. The larger, the more a head retrieves.
    Raises Unsupported for a model that was swapped for good.
    """
    inner = checked(model)
    if held_plan(inner).rules:
        raise Unsupported(f"{type(inner).__name__} was swapped for good; measure the model that it was made of")
    measuring = _Measuring(sinks, recent)
    with handling(inner, measuring):
        inner(input_ids=input_ids, use_cache=False)
    return torch.stack([measuring.layers[number] for number in sorted(measuring.layers)]).cpu()
