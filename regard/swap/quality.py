"""Quality: what a model predicts with another attention, beside what it predicts with its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import UserError
from regard.hf.layers import attention_modules
from regard.hf.plan import NOTHING, Plan
from regard.swap.records import Quality
from regard.swap.running import running
from regard.swap.texts import batch_like

STRIP = 256  # rows of logits that are compared at once


@dataclass(eq=False)
class Sums:
    """What one attention's predictions add up to. nats, kl: sums over tokens; equal: tokens; apart, whole: by layer,
    sums of squares."""

    nats: float = 0.0
    kl: float = 0.0
    equal: int = 0
    tokens: int = 0
    apart: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def quality(self) -> Quality:
        """The means, in bits."""
        tokens = max(self.tokens, 1)
        errors = tuple(math.sqrt(a / w) if w else 0.0 for a, w in zip(self.apart, self.whole, strict=True))
        return Quality(self.nats / tokens / math.log(2), self.kl / tokens / math.log(2), self.equal / tokens, errors)


def qualities(model: nn.Module, plans: Sequence[Plan], blocks: Tensor, backend: str = "model") -> list[Quality]:
    """The quality of each plan on blocks [N,T] of token ids: one forward of the own attention and of each, a block.

    Raises UserError for a model that gives no logits.
    """
    sums = [Sums() for _ in plans]
    for ids in blocks:
        own, own_outputs = predicted(model, NOTHING, ids)
        for plan, total in zip(plans, sums, strict=True):
            logits, outputs = (own, own_outputs) if plan is NOTHING else predicted(model, plan, ids, backend)
            _add_predictions(total, own, logits, ids)
            _add_outputs(total, own_outputs, outputs)
    return [total.quality() for total in sums]


def qualities_beside(source: nn.Module, changed: nn.Module, blocks: Tensor) -> Quality:
    """The quality of a changed model beside the model that it was made of, on blocks [N,T] of token ids."""
    total = Sums()
    for ids in blocks:
        own, own_outputs = predicted(source, NOTHING, ids)
        logits, outputs = predicted(changed, NOTHING, ids)
        _add_predictions(total, own, logits, ids)
        _add_outputs(total, own_outputs, outputs)
    return total.quality()


@torch.no_grad()
def predicted(
    model: nn.Module, plan: Plan, ids: Tensor, backend: str = "model"
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """(logits [T,V], the output of every attention module in call order with its layer) for one block of tokens."""
    outputs: list[tuple[int, Tensor]] = []
    batch = batch_like(model, ids)
    with _outputs_into(model, outputs):
        if plan is NOTHING:
            found = model(input_ids=batch, use_cache=False)
        else:
            with running(model, plan, backend=backend):
                found = model(input_ids=batch, use_cache=False)
    logits = getattr(found, "logits", None)
    if logits is None or logits.ndim != 3 or logits.shape[1] != len(ids):
        raise UserError(f"{type(model).__name__} predicts no next token; give a causal language model")
    return logits[0], outputs


@contextmanager
def _outputs_into(model: nn.Module, outputs: list[tuple[int, Tensor]]) -> Iterator[None]:
    """Collect what the attention modules put out while the block runs."""

    def keep(number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            outputs.append((number, tensor.detach()))

        return hook

    hooks = [m.register_forward_hook(keep(n)) for n, (_, m) in enumerate(attention_modules(model))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _add_predictions(total: Sums, own: Tensor, logits: Tensor, ids: Tensor) -> None:
    """Add a block's predictions, some rows at a time: a vocabulary is wide."""
    targets = ids[1:].to(logits.device)
    for begin in range(0, len(targets), STRIP):
        rows = slice(begin, min(begin + STRIP, len(targets)))
        ours, theirs = (part[rows].float().log_softmax(-1) for part in (own, logits))
        total.nats -= float(theirs.gather(1, targets[rows, None]).sum(dtype=torch.float64))
        total.kl += float((ours.exp() * (ours - theirs)).sum(dtype=torch.float64))
        total.equal += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    total.tokens += len(targets)


def _add_outputs(total: Sums, own: list[tuple[int, Tensor]], other: list[tuple[int, Tensor]]) -> None:
    if not total.apart:
        total.apart, total.whole = [0.0] * len(own), [0.0] * len(own)
    for at, ((_, a), (_, b)) in enumerate(zip(own, other, strict=True)):
        total.apart[at] += float((b.float() - a.float()).square().sum(dtype=torch.float64))
        total.whole[at] += float(a.float().square().sum(dtype=torch.float64))
