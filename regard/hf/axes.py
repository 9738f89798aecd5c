"""Axes: which tokens lie along the sides of each attention map, gathered from what a model is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.hf.arguments import parameters_of, passed_to
from regard.hf.calls import Call
from regard.hf.layers import LayerId
from regard.hf.pieces import texts
from regard.seeing.trace import Tokens
from regard.statistic import Axis

PASSED = ("input_ids", "decoder_input_ids", "attention_mask", "decoder_attention_mask")
MEDIA = ("image", "video", "audio")
KINDS: dict[str, Literal["text", "patches", "frames"]] = {"vision": "patches", "audio": "frames"}


@dataclass(eq=False)
class TokenAxis:
    """The tokens of one stack in one sequence. It grows as the sequence does.

    name: unique in its trace. forward: the forward that grew it last. stack, tower: as of the layers that made it.
    first: the first token with a row, where a layer leaves out the ones before; all: the axis that holds those too.
    prompt: the token from which on each came by itself, as tokens do that are generated; None as yet.
    """

    name: str
    stack: str
    tower: str
    forward: int
    tokens: Axis
    first: int = 0
    all: TokenAxis | None = None
    prompt: int | None = None

    @property
    def length(self) -> int:
        return self.tokens.length

    @property
    def batch(self) -> int:
        return self.tokens.positions.shape[0]


class Axes:
    """The axes of one attached model's current sequences, by name."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.tokens_of = partial(_with_text, tokenizer, _media_tokens(model))
        special = getattr(tokenizer, "all_special_ids", None)
        self.special_ids = None if special is None else torch.tensor(sorted(special), dtype=torch.int64)
        self.by_name: dict[str, TokenAxis] = {}
        self._passed: dict[int, dict[str, Tensor | None]] = {}  # PASSED, by id of the model that they were passed to
        self._encoders = [m for prefix, m in _pretrained(model) if prefix.split(".")[-1] == "encoder"]
        self._parents = {
            id(module): [m for prefix, m in _pretrained(model) if _inside(name, prefix)]
            for name, module in model.named_modules()
        }

    def reset(self) -> None:
        """Forget all axes: a new sequence begins."""
        self.by_name = {}

    def note_inputs(self, module: PreTrainedModel, args: Any, kwargs: Any) -> None:
        """Remember the token ids that a model, or a model inside it, was just called with."""
        passed = passed_to(module, args, kwargs)
        two = {name: passed.get(name) for name in PASSED}
        self._passed[id(module)] = {n: t if isinstance(t, Tensor) and t.ndim == 2 else None for n, t in two.items()}

    def passed_ids(self, model: nn.Module) -> Tensor | None:
        """The token ids [B,T] that a model was called with latest, or None where it was given none."""
        return self._passed.get(id(model), {}).get("input_ids")

    def start(self, module: nn.Module, layer: LayerId, call: Call, forward: int) -> TokenAxis:
        """The axis on which a call's queries begin a sequence: that of its stack, if it has as many tokens."""
        batch, count = call.q.shape[0], call.q.shape[2]
        for axis in self.by_name.values():
            same = (axis.stack, axis.forward, axis.length, axis.batch) == (layer.stack, forward, count, batch)
            if same and axis.all is None:
                return axis
        tokens = self._tokens(module, layer, call, count, None)
        return self._add(layer.stack, layer.stack, layer.tower, forward, tokens)

    def extend(self, axis: TokenAxis, module: nn.Module, layer: LayerId, call: Call, first: int, forward: int) -> None:
        """Let an axis grow to hold a call's queries, which begin at token `first`."""
        count = first + call.q.shape[2]
        if axis.length == first:
            axis.tokens = _without_rows(self._tokens(module, layer, call, count, axis.tokens), axis.first)
            if axis.prompt is None and count - first == 1:
                axis.prompt = first
        axis.forward = forward

    def last_rows(self, axis: TokenAxis, first: int, forward: int) -> TokenAxis:
        """The same tokens for layers that compute no rows before token `first` (Gemma 4, where keys are shared)."""
        name = f"{axis.name} from {first}"
        if name not in self.by_name or self.by_name[name].all is not axis:
            tokens = _without_rows(axis.tokens, first)
            self.by_name[name] = TokenAxis(name, axis.stack, axis.tower, forward, tokens, first, axis)
        return self.by_name[name]

    def context(self, layer: LayerId, like: Tensor, flags: Tensor | None, forward: int) -> TokenAxis:
        """The axis of keys like [B,G,Tk,D] of another stack; flags: bool [B,Tk], the keys that are valid."""
        batch, length = like.shape[0], like.shape[2]
        others = [a for a in self.by_name.values() if a.stack != layer.stack and a.length == length]
        made = [a for a in others if a.tower in ("encoder", "vision", "audio") and "queries" not in a.name]
        for axis in made:
            if axis.batch == batch:
                return axis
        for axis in made:
            if batch % axis.batch == 0:  # beams, or several sequences of one prompt
                return self._repeated(axis, batch // axis.batch)
        known = next((a for a in others if a.stack == "context" and a.batch == batch), None)
        if known is not None:
            return known
        valid = torch.ones(batch, length, dtype=torch.bool, device=like.device) if flags is None else flags
        tokens = Axis(_counted(valid), valid, self._read_ids(like))
        return self._add(f"context {length}", "context", "context", forward, tokens)

    def _read_ids(self, like: Tensor) -> Tensor | None:
        """The tokens [B,Tk] that an encoder without attention was called with, as many as keys like [B,G,Tk,D]."""
        for encoder in self._encoders:
            ids = self._passed.get(id(encoder), {}).get("input_ids")
            if ids is not None and ids.shape[1] == like.shape[2] and ids.shape[0] in (1, like.shape[0]):
                return ids.detach().to(torch.int64).expand(like.shape[0], -1)
        return None

    def apart(self, layer: LayerId, call: Call, forward: int) -> TokenAxis:
        """An axis for queries that are no tokens of their stack's sequence, such as learned ones."""
        batch, count = call.q.shape[0], call.q.shape[2]
        stack = f"{layer.stack} queries"
        for axis in self.by_name.values():
            if (axis.stack, axis.length, axis.batch) == (stack, count, batch):
                axis.forward = forward
                return axis
        valid = torch.ones(batch, count, dtype=torch.bool, device=call.q.device)
        return self._add(stack, stack, layer.tower, forward, Axis(_counted(valid), valid))

    def _repeated(self, axis: TokenAxis, times: int) -> TokenAxis:
        name = f"{axis.name} ×{times}"
        if name not in self.by_name or self.by_name[name].length != axis.length:
            parts = (axis.tokens.positions, axis.tokens.valid, axis.tokens.ids, axis.tokens.special)
            tokens = Axis(*(None if part is None else part.repeat_interleave(times, 0) for part in parts))  # type: ignore[arg-type]
            self.by_name[name] = TokenAxis(name, f"{axis.stack} ×{times}", axis.tower, axis.forward, tokens)
        return self.by_name[name]

    def _add(self, base: str, stack: str, tower: str, forward: int, tokens: Axis) -> TokenAxis:
        batch, count = tokens.positions.shape
        names = (base, f"{base} {count}", f"{base} {batch}×{count}")
        free = [name for name in names if name not in self.by_name]
        name = free[0] if free else f"{base} {batch}×{count} ({len(self.by_name)})"
        self.by_name[name] = TokenAxis(name, stack, tower, forward, tokens)
        return self.by_name[name]

    def _tokens(self, module: nn.Module, layer: LayerId, call: Call, length: int, before: Axis | None) -> Axis:
        """The tokens of an axis grown to `length`, from what a call's mask says and what the model was called with."""
        batch, device = call.q.shape[0], call.q.device
        if call.mask is None:
            padding, documents = self._padding(module, layer, batch, length), None
            padding = call.valid if padding is None and layer.kind == "self" else padding
        else:
            padding, documents = call.mask.padding(), call.mask.documents()
        new = length - (before.length if before else 0)
        if padding is not None and padding.shape[1] >= length:
            valid = padding[:, :length].to(device).expand(batch, -1)
        else:
            valid = torch.ones(batch, new, dtype=torch.bool, device=device)
            valid = valid if before is None else torch.cat([before.valid.to(device), valid], 1)
        ids = self._ids(module, layer, batch, new, before)
        special = None
        if ids is not None and self.special_ids is not None:
            special = torch.isin(ids, self.special_ids.to(ids.device))
        positions = _counted(valid) if documents is None else _within(documents.to(device).expand(batch, -1))
        return Axis(positions, valid, ids, special)

    def _ids(self, module: nn.Module, layer: LayerId, batch: int, new: int, before: Axis | None) -> Tensor | None:
        if layer.tower in KINDS or (before is not None and before.ids is None):
            return None
        for ids in self._inputs(module, layer, "input_ids"):
            if ids.shape[1] == new and batch % ids.shape[0] == 0:
                ids = ids.detach().to(torch.int64).repeat_interleave(batch // ids.shape[0], 0)
                return ids if before is None or before.ids is None else torch.cat([before.ids, ids], 1)
        return None

    def _inputs(self, module: nn.Module, layer: LayerId, name: str) -> Iterator[Tensor]:
        """The tensors passed under a name to the models around a module, innermost first; a decoder's own name where
        a model has both."""
        for parent in self._parents[id(module)]:
            passed = self._passed.get(id(parent), {})
            both = f"decoder_{name}" in parameters_of(parent)
            tensor = passed.get(f"decoder_{name}" if both and layer.tower == "decoder" else name)
            if tensor is not None:
                yield tensor

    def _padding(self, module: nn.Module, layer: LayerId, batch: int, length: int) -> Tensor | None:
        """bool [B, length]: the tokens that are not padding, by the mask that a model around the module was passed."""
        if layer.tower in KINDS:
            return None
        for mask in self._inputs(module, layer, "attention_mask"):
            if mask.shape[1] == length and batch % mask.shape[0] == 0:
                return mask.bool().repeat_interleave(batch // mask.shape[0], 0)
        return None


def _with_text(tokenizer: Any, media: Mapping[int, str], axis: TokenAxis) -> Tokens:
    """An axis with the text of its tokens; those that stand for an image, a video or a sound are numbered."""
    tokens = axis.tokens
    if tokens.ids is None:
        text = [[str(slot) for slot in range(axis.length)]] * axis.batch
    else:
        text = [_row_text(tokenizer, media, row) for row in tokens.ids.tolist()]
    kind = "text" if tokens.ids is not None else KINDS.get(axis.tower, "frames")
    return Tokens(text, tokens, kind, prompt=(axis.all or axis).prompt)


def _row_text(tokenizer: Any, media: Mapping[int, str], ids: list[int]) -> list[str]:
    text = texts(tokenizer, ids)
    counts = dict.fromkeys(media, 0)
    for slot, token in enumerate(ids):
        if token in counts:
            text[slot] = f"[{media[token]} {counts[token]}]"
            counts[token] += 1
    return text


def _media_tokens(model: PreTrainedModel) -> dict[int, str]:
    """Token ids that stand for a patch of an image, a frame of a video or of a sound, by what the config names so."""
    names = [(f"{kind}_token_{suffix}", kind) for kind in MEDIA for suffix in ("id", "index")]
    ids = {getattr(model.config, name, None): kind for name, kind in names}
    return {token: kind for token, kind in ids.items() if isinstance(token, int)}


def _pretrained(model: PreTrainedModel) -> list[tuple[str, PreTrainedModel]]:
    """(dotted name, model) of the models inside a model, innermost first."""
    inside = [(name, m) for name, m in model.named_modules() if isinstance(m, PreTrainedModel)]
    return sorted(inside, key=lambda pair: -len(pair[0]))


def _inside(name: str, prefix: str) -> bool:
    return prefix == "" or name == prefix or name.startswith(prefix + ".")


def _without_rows(tokens: Axis, first: int) -> Axis:
    """The axis with the tokens before `first` as rows that do not count."""
    if not first:
        return tokens
    valid = tokens.valid.clone()
    valid[:, :first] = False
    return Axis(tokens.positions, valid, tokens.ids, tokens.special)


def _counted(valid: Tensor) -> Tensor:
    """Positions counted from the first valid token; padding before it has position -1."""
    return valid.to(torch.int64).cumsum(1) - 1


def _within(documents: Tensor) -> Tensor:
    """Positions inside each packed sequence. documents: int64 [B,T], equal neighbours belong together."""
    slots = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return slots - slots.where(starts, 0).cummax(1).values
