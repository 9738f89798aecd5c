"""Attention transfer, layer by layer: the new attention learns to put out what the old one puts out.

    loss = Σ_layers ‖o' - o‖² / ‖o‖²,   o = old(q, k, v),  o' = new(q, k, v)

(LoLCATs: Zhang 2024, section 3.1.) Every layer reads what the *old* attention handed on, so layers learn apart from
each other and no gradient passes through the model: one forward, and a backward within each attention.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.hf.computing import Computing
from regard.hf.plan import Plan, Rule
from regard.hf.seam import AttentionCall, Handler, handling
from regard.hf.watcher import Watcher

OWN = Plan((Rule("own", None),))


class Transfer(Handler):
    """Answers with the old attention, and notes by layer how far the new one is from it."""

    def __init__(self, model: PreTrainedModel, plan: Plan, learning: bool) -> None:
        self.old = Computing(Watcher(model, ()), "auto", OWN)
        self.new = Computing(Watcher(model, ()), "model", plan)
        self.learning = learning
        self.errors: dict[int, Tensor] = {}

    def before_forward(self, model: PreTrainedModel, is_outermost: bool, args: object, kwargs: object) -> None:
        self.old.before_forward(model, is_outermost, args, kwargs)
        self.new.before_forward(model, is_outermost, args, kwargs)

    def attend(self, call: AttentionCall) -> Tensor | None:
        call = replace(call, query=call.query.detach(), key=call.key.detach(), value=call.value.detach())
        with torch.no_grad():
            target = self.old.attend(call)
        assert target is not None
        layer = self.new.watcher.ids[id(call.module)].index
        if self.new.plan.touches(layer):
            with torch.set_grad_enabled(self.learning):
                made = self.new.attend(call)
                assert made is not None
                self.errors[layer] = (made - target).square().sum() / target.square().sum()
        return target


def errors(model: PreTrainedModel, plan: Plan, ids: Tensor, learning: bool = True) -> dict[int, Tensor]:
    """The relative squared error of each changed layer's attention on token ids [rows, tokens]."""
    transfer = Transfer(model, plan, learning)
    with torch.no_grad(), handling(model, transfer):
        model(input_ids=ids, use_cache=False)
    return transfer.errors
