"""From what the second seam sees to a Watcher's layers: which tokens lie along the sides, and what continues what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.hf.arguments import parameters_of, passed_to
from regard.hf.calls import Call
from regard.hf.layers import LayerId
from regard.hf.own_code.absorb import absorb
from regard.hf.own_code.refusals import reason_of
from regard.hf.own_code.seen import Doubt, Seen
from regard.statistic import View

if TYPE_CHECKING:
    from regard.hf.watcher import Watcher

MASKS = ("attention_mask", "encoder_attention_mask", "decoder_attention_mask")


@dataclass(frozen=True, eq=False)
class Flags:
    """What is known of the keys of a call in place of a mask of the interface: bool [B, tokens], True where valid."""

    valid: Tensor | None

    def padding(self) -> Tensor | None:
        return self.valid

    def documents(self) -> Tensor | None:
        return None


class OwnCode:
    """Feeds a Watcher's layers with what `enter.watching` hands over. `sink` is what to give it."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._parents = {
            id(module): [m for prefix, m in _innermost_first(watcher.model) if _inside(name, prefix)]
            for name, module in watcher.model.named_modules()
        }
        self._masks: dict[int, dict[str, Tensor]] = {}  # 2-D masks, by id of the model that they were passed to

    def note_masks(self, model: PreTrainedModel, args: Any, kwargs: Any) -> None:
        """Remember the masks of tokens that a model, or a model inside it, was just called with."""
        passed = passed_to(model, args, kwargs)
        masks = {name: passed.get(name) for name in MASKS}
        self._masks[id(model)] = {n: m for n, m in masks.items() if isinstance(m, Tensor) and m.ndim == 2}

    def sink(self, one: Seen | Doubt) -> None:
        """Take in one attention that a module made, or note why it could not be read."""
        watcher = self.watcher
        layer = watcher.ids[id(one.module)]
        if isinstance(one, Doubt):
            if watcher.watches(layer):
                watcher.problems.append(f"layer {one.name} is not seen: {reason_of(one.module) or one.reason}")
            return
        watcher.called.update(id(inner) for inner in one.module.modules())
        if watcher.watches(layer) and watcher.statistics:
            self._absorb(layer, one)

    def _absorb(self, layer: LayerId, one: Seen) -> None:
        watcher = self.watcher
        call = self._call(layer, one)
        step = watcher.follow(one.module, layer, call)
        view = View(
            batch=one.shape[0],
            heads=len(step.state.heads),
            query=step.query.tokens,
            key=step.key.tokens,
            same_axis=step.query is step.key,
            kind=one.kind,
        )
        keys = slice(0, call.k.shape[2])
        absorb(step.state.watching, one, view, step.rows, keys, step.state.heads)
        step.state.view = view
        if one.cached is not None and layer.kind == "self":
            step.state.last_key = one.cached[:, :, -1].clone()

    def _call(self, layer: LayerId, one: Seen) -> Call:
        """The sizes of an attention as a call of the interface has them, with its padding."""
        batch, heads, queries, keys = one.shape
        queries, keys = self._without_padding_of_blocks(one, queries, keys)
        device = next((p.device for p in self.watcher.model.parameters()), torch.device("cpu"))
        nothing = torch.zeros((), device=device)
        flags = self._valid(one.module, layer, batch, keys)
        return Call(
            q=nothing.expand(batch, heads, queries, 1),
            k=nothing.expand(batch, heads, keys, 1) if one.cached is None or layer.kind == "cross" else one.cached,
            v=nothing.expand(batch, heads, keys, 1),
            mechanism=cast(Any, None),
            allowed=cast(Any, None),
            first_query=None,
            first_key=0,
            mask=cast(Any, Flags(flags)),
        )

    def _without_padding_of_blocks(self, one: Seen, queries: int, keys: int) -> tuple[int, int]:
        """Lengths less what the model added at the end to fill a block (Longformer, BigBird, Reformer)."""
        if one.form not in ("band", "blocks", "buckets"):
            return queries, keys
        outermost = self._parents[id(one.module)][-1]
        ids = self.watcher.axes.passed_ids(outermost)
        length = keys if ids is None or ids.shape[1] > keys else ids.shape[1]
        return min(queries, length), length

    def _valid(self, module: nn.Module, layer: LayerId, batch: int, keys: int) -> Tensor | None:
        for parent in self._parents[id(module)]:
            passed = self._masks.get(id(parent), {})
            both = "decoder_input_ids" in parameters_of(parent)
            if layer.kind == "cross":
                name = "attention_mask" if both else "encoder_attention_mask"
            else:
                name = "decoder_attention_mask" if both and layer.tower == "decoder" else "attention_mask"
            mask = passed.get(name)
            if mask is not None and mask.shape[0] == batch and mask.shape[1] >= keys:
                return mask.detach() != 0
        return None


def _innermost_first(model: PreTrainedModel) -> list[tuple[str, PreTrainedModel]]:
    inside = [(name, m) for name, m in model.named_modules() if isinstance(m, PreTrainedModel)]
    return sorted(inside, key=lambda pair: -len(pair[0]))


def _inside(name: str, prefix: str) -> bool:
    return prefix == "" or name == prefix or name.startswith(prefix + ".")
