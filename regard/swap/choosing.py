"""Choosing: which layers and heads can take a cheaper mechanism for at most so many bits per token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

from regard.errors import UserError
from regard.hf.layers import attention_modules, layer_ids
from regard.hf.load import Loaded
from regard.hf.plan import NOTHING, OWN, Plan, Rule, plan_of
from regard.protocol import Attention
from regard.swap.compare import loaded_of
from regard.swap.quality import predicted
from regard.swap.texts import blocks_of, check_window

Unit = int | tuple[int, int]
"""A layer, or a head as (layer, head)."""


@dataclass(frozen=True)
class Chosen:
    """plan: the text that swap takes. own, bits: bits per token of the model's own attention and of the plan. damage:
    bits that each layer, and each head that was tried, costs alone. taken: the share of heads that were swapped."""

    plan: str
    own: float
    bits: float
    damage: dict[str, float]
    taken: float

    def json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return dict(vars(self))


def choose_plan(
    model: tf.PreTrainedModel | Loaded | str | Path | None,
    mechanism: Attention | str,
    text: str,
    budget: float,
    *,
    tokenizer: Any = None,
    context: int | None = None,
    blocks: int | None = 4,
    report: Callable[[str], None] = lambda line: None,
) -> Chosen:
    """Swap a mechanism into as many layers, then heads, as lose at most `budget` bits per token together.

    Greedy by measured damage: every layer is tried alone, then layers are taken from the least damaging on, each kept
    if the whole stays within the budget; then single heads of the other layers in the same way. Raises UserError for a
    budget that is not above 0, and as `compare` does.
    """
    if not budget > 0:
        raise UserError(f"a budget of {budget} bits per token allows nothing; give a number above 0, such as 0.02")
    if ":" in str(mechanism) or ";" in str(mechanism):
        raise UserError(f"a plan is chosen for one mechanism, and {str(mechanism)!r} is a plan already; give one")
    loaded = loaded_of(model, tokenizer)
    whole = plan_of(mechanism).rules[0]
    ids = blocks_of(loaded, text, context, blocks)
    check_window(Plan((whole,)), ids.shape[1])
    training = loaded.model.training
    loaded.model.eval()
    try:
        return _Choosing(loaded.model, whole, ids, budget, report).run()
    finally:
        loaded.model.train(training)


class _Choosing:
    """One search."""

    def __init__(
        self, model: nn.Module, rule: Rule, blocks: Tensor, budget: float, report: Callable[[str], None]
    ) -> None:
        self.model, self.rule, self.blocks, self.budget, self.report = model, rule, blocks, budget, report
        self.own = bits(model, NOTHING, blocks)
        self.damage: dict[Unit, float] = {}

    def run(self) -> Chosen:
        """Layers first, then heads of the layers that were left."""
        layers, heads = _shape(self.model)
        taken, lost = self._taken([], 0.0, list(layers))
        rest = [layer for layer in layers if layer not in taken]
        taken, lost = self._taken(taken, lost, [(layer, head) for layer in rest for head in range(heads)])
        share = sum(1.0 if isinstance(unit, int) else 1 / heads for unit in taken) / len(layers)
        names = {_name(unit): round(value, 6) for unit, value in self.damage.items()}
        return Chosen(str(self._plan(taken)), self.own, self.own + lost, names, share)

    def _taken(self, before: list[Unit], lost: float, units: Sequence[Unit]) -> tuple[list[Unit], float]:
        """The units taken, those before among them, and what all of them lose together."""
        for unit in units:
            self.damage[unit] = self._lost([unit])
            self.report(f"{_name(unit)} alone: {self.damage[unit]:+.4f} bits per token")
        taken = list(before)
        for unit in sorted(units, key=lambda unit: self.damage[unit]):
            if not taken and self.damage[unit] <= self.budget:
                taken, lost = [unit], self.damage[unit]
                continue
            together = self._lost([*taken, unit])
            if together <= self.budget:
                taken, lost = [*taken, unit], together
        return taken, lost

    def _lost(self, units: Sequence[Unit]) -> float:
        return bits(self.model, self._plan(units), self.blocks) - self.own

    def _plan(self, units: Sequence[Unit]) -> Plan:
        layers = frozenset(unit for unit in units if isinstance(unit, int))
        heads = frozenset(unit for unit in units if not isinstance(unit, int))
        rule = Rule(self.rule.text, self.rule.attention, layers, heads)
        return Plan((rule, Rule(OWN, None)) if units else (Rule(OWN, None),))


@torch.no_grad()
def bits(model: nn.Module, plan: Plan, blocks: Tensor) -> float:
    """Bits per token of a model with a plan on blocks [N,T] of token ids."""
    nats, count = 0.0, 0
    for ids in blocks:
        logits = predicted(model, plan, ids)[0][:-1]
        targets = ids[1:].to(logits.device)
        nats += float(nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))
        count += len(targets)
    return nats / count / math.log(2)


def _shape(model: Any) -> tuple[list[int], int]:
    """(the indices of its attention layers, heads of a layer)."""
    ids = layer_ids(model)
    layers = sorted({ids[id(module)].index for _, module in attention_modules(model)})
    return layers, int(model.config.get_text_config().num_attention_heads)


def _name(unit: Unit) -> str:
    return f"layer {unit}" if isinstance(unit, int) else f"head {unit[0]}.{unit[1]}"
