"""Axes: which tokens lie along the sides of each attention map, gathered from what a model is called with."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.hf.calls import Unsupported
from regard.hf.pieces import texts
from regard.seeing.trace import Tokens
from regard.statistic import Axis

KINDS: dict[str, Literal["text", "patches", "frames"]] = {"vision": "patches", "audio": "frames"}


class Axes:
    """The axes of one attached model, by name: its stack, or "stack length" where a stack has several lengths."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        special = getattr(tokenizer, "all_special_ids", None)
        self.special_ids = None if special is None else torch.tensor(sorted(special), dtype=torch.int64)
        self.by_name: dict[str, Axis] = {}
        self.stack_of: dict[str, str] = {}
        self._forward_of: dict[str, int] = {}
        self._given: dict[int, dict[str, Tensor | None]] = {}
        self._parents = {
            id(module): [m for prefix, m in _pretrained(model) if _inside(name, prefix)]
            for name, module in model.named_modules()
        }

    def reset(self) -> None:
        """Forget all axes: a new sequence begins."""
        self.by_name.clear()
        self._forward_of.clear()

    def note_inputs(self, module: PreTrainedModel, args: Any, kwargs: Any) -> None:
        """Remember the token ids that a model, or a model inside it, was just called with."""
        try:
            given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        except TypeError:
            given = {}
        given = {**given.get("kwargs", {}), **given}
        found = {name: given.get(name) for name in ("input_ids", "decoder_input_ids")}
        self._given[id(module)] = {n: t if isinstance(t, Tensor) and t.ndim == 2 else None for n, t in found.items()}

    def extend(
        self,
        module: nn.Module,
        stack: str,
        like: Tensor,
        first: int,
        padding: Tensor | None,
        documents: Tensor | None,
        forward: int,
    ) -> str:
        """The name of the axis on which queries like [B,H,Tq,D] lie from slot `first`, grown to hold them.

        padding: bool [B, slots] or None; documents: int64 [B, slots] of packed sequences or None.
        """
        batch, count = like.shape[0], like.shape[2]
        name = stack
        current = self.by_name.get(name)
        if current is not None and self._forward_of[name] == forward:
            if (current.length, current.positions.shape[0]) == (first + count, batch):
                return name
            name = f"{stack} {count}" if current.positions.shape[0] == batch else f"{stack} {batch}×{count}"
            current = self.by_name.get(name)
            if current is not None and self._forward_of[name] == forward:
                return name
        before = None if first == 0 else current
        if first and (before is None or before.length != first):
            seen = 0 if before is None else before.length
            raise Unsupported(
                f"the {stack} continues at token {first}, but {seen} were seen; attach before the first forward of a "
                "sequence, and do not crop its cache (as assisted decoding does)"
            )
        self.by_name[name] = self._axis(module, stack, batch, first + count, before, padding, documents, like.device)
        self.stack_of[name] = stack
        self._forward_of[name] = forward
        return name

    def context(self, stack: str, like: Tensor, flags: Tensor | None) -> str:
        """The axis of keys like [B,G,Tk,D] that no stack of this model was seen to make; flags: valid keys [B,Tk]."""
        for name, axis in self.by_name.items():
            if self.stack_of[name] == "encoder" != stack and axis.length == like.shape[2]:
                return name
        name = f"context {like.shape[2]}"
        if name not in self.by_name:
            ones = torch.ones(like.shape[0], like.shape[2], dtype=torch.bool, device=like.device)
            valid = ones if flags is None else flags
            self.by_name[name] = Axis(_counted(valid), valid)
            self.stack_of[name] = "context"
        return name

    def _axis(
        self,
        module: nn.Module,
        stack: str,
        batch: int,
        length: int,
        before: Axis | None,
        padding: Tensor | None,
        documents: Tensor | None,
        device: torch.device,
    ) -> Axis:
        if padding is not None:
            valid = padding[:, :length].to(device).expand(batch, -1)
        else:
            new = torch.ones(batch, length - (before.length if before else 0), dtype=torch.bool, device=device)
            valid = new if before is None else torch.cat([before.valid, new], 1)
        ids = self._ids(module, stack, batch, length, before)
        special = None
        if ids is not None and self.special_ids is not None:
            special = torch.isin(ids, self.special_ids.to(device))
        positions = _counted(valid) if documents is None else _within(documents.to(device).expand(batch, -1))
        return Axis(positions, valid, ids, special)

    def _ids(self, module: nn.Module, stack: str, batch: int, length: int, before: Axis | None) -> Tensor | None:
        if stack in KINDS or (before is not None and before.ids is None):
            return None
        new = length - (before.length if before else 0)
        for parent in self._parents[id(module)]:
            given = self._given.get(id(parent), {})
            both = "decoder_input_ids" in inspect.signature(parent.forward).parameters
            ids = given.get("decoder_input_ids" if both and stack == "decoder" else "input_ids")
            if ids is not None and ids.shape[1] == new and ids.shape[0] in (1, batch):
                ids = ids.detach().to(torch.int64).expand(batch, -1)
                return ids if before is None or before.ids is None else torch.cat([before.ids, ids], 1)
        return None

    def tokens(self, name: str) -> Tokens:
        """The axis with the text of its tokens."""
        axis = self.by_name[name]
        kind = "text" if axis.ids is not None else KINDS.get(self.stack_of[name], "frames")
        if axis.ids is None:
            text = [[str(slot) for slot in range(axis.length)]] * axis.positions.shape[0]
        else:
            text = [texts(self.tokenizer, row) for row in axis.ids.tolist()]
        return Tokens(text, axis, kind)


def _pretrained(model: PreTrainedModel) -> list[tuple[str, PreTrainedModel]]:
    """(dotted name, model) of the models inside a model, innermost first."""
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, PreTrainedModel)]
    return sorted(found, key=lambda pair: -len(pair[0]))


def _inside(name: str, prefix: str) -> bool:
    return prefix == "" or name == prefix or name.startswith(prefix + ".")


def _counted(valid: Tensor) -> Tensor:
    """Positions counted from the first valid token; padding before it has position -1."""
    return valid.to(torch.int64).cumsum(1) - 1


def _within(documents: Tensor) -> Tensor:
    """Positions inside each packed sequence. documents: int64 [B,T], equal neighbours belong together."""
    slots = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return slots - slots.where(starts, 0).cummax(1).values
