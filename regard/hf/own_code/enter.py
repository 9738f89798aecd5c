"""Enter a model by the second seam: hooks on its attention modules, a reading mode while one of them runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from regard.hf.own_code.flow import Followed
from regard.hf.own_code.heads import by_head, number_of_heads
from regard.hf.own_code.mode import MULTI_HEAD, Reading
from regard.hf.own_code.modules import own_code
from regard.hf.own_code.places import Attended, reader_of
from regard.hf.own_code.places.sampled import read_sampled
from regard.hf.own_code.refusals import reason_of
from regard.hf.own_code.restate import Question, multi_head_question, question
from regard.hf.own_code.seen import Doubt, Seen, made

Sink = Callable[[Seen | Doubt], None]


class Second(threading.local):
    """The attention modules of one model that run now, and what was read in them. One to a thread."""

    def __init__(self, names: dict[int, str], sink: Sink) -> None:
        self.names = names
        self.sink = sink
        self.mode = Reading(self._fused)
        self.running: list[Attended] = []
        self.asked: dict[int, list[Question | str]] = {}

    # ---- hooks --------------------------------------------------------------------------------------------------

    def enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch._C._current_graph_task_id() != -1:  # gradient checkpointing calls it again in backward
            return
        if not self.running:
            self.mode.flow.clear()
            self.mode.__enter__()
        self.running.append(Attended(self.names[id(module)], module, args, kwargs))
        self.mode.owner = module

    def leaves(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.running or self.running[-1].module is not module:
            return
        attended = replace(self.running.pop(), output=output)
        self.mode.paused = True
        try:
            with torch.inference_mode(False), torch.no_grad():
                self._hand_over(attended)
        finally:
            self.mode.paused = False
            self.mode.owner = self.running[-1].module if self.running else None
            if not self.running:
                self.mode.__exit__(None, None, None)
                self.mode.flow.clear()
                self.mode.levels.clear()
                self.asked.clear()

    def _fused(self, owner: nn.Module, name: str, given: dict[str, Any]) -> None:
        with torch.no_grad():
            asked = multi_head_question(given) if name == MULTI_HEAD else question(given)
        self.asked.setdefault(id(owner), []).append(asked)

    # ---- what was read --------------------------------------------------------------------------------------------

    def _hand_over(self, attended: Attended) -> None:
        """Give the sink what this call of a module attended to; where an outer one still runs, unused ones wait."""
        flow = self.mode.flow
        reason = reason_of(attended.module)
        if reason is not None:
            flow.all = [f for f in flow.all if f.owner is not attended.module]
            self.sink(Doubt(attended.name, attended.module, reason))
            return
        reader = reader_of(attended.module)
        own = [f for f in flow.all if f.owner is attended.module]
        waits = bool(self.running) and reader is None
        waiting = [f for f in own if waits and f.used is None and f.unclear is None]
        flow.all = [f for f in flow.all if f.owner is not attended.module or f in waiting]
        own = [f for f in own if f not in waiting]
        for followed in waiting:
            followed.owner = self.running[-1].module
        if reader is not None and own:
            for found in reader(attended, own):
                self.sink(found)
            return
        if self.mode.levels and len(own + waiting) == 1:
            (followed,) = own + waiting
            flow.all = [f for f in flow.all if f is not followed]
            heads = number_of_heads(attended.module)
            self.sink(read_sampled(attended, followed, list(self.mode.levels), heads))
            self.mode.levels.clear()
            return
        self._number([_restated(attended, asked) for asked in self.asked.pop(id(attended.module), [])], attended)
        self._number([_read(attended, followed) for followed in own], attended)

    def _number(self, found: list[Seen | Doubt], attended: Attended) -> None:
        """Give the sink what was found, the attentions counted."""
        number = 0
        for one in found:
            if isinstance(one, Seen):
                one = replace(one, number=number, cached=cached_keys(attended, one.shape[3]))
                number += 1
            self.sink(one)


def cached_keys(attended: Attended, count: int) -> Tensor | None:
    """The keys [B, G, Tk, D] of the cache that a module was called with, if it has as many as the attention."""
    index = getattr(attended.module, "layer_idx", None)
    for cache in (*attended.args, *attended.kwargs.values()):
        cache = getattr(cache, "self_attention_cache", cache)
        layers = getattr(cache, "layers", [])
        if isinstance(cache, Cache) and isinstance(index, int) and index < len(layers):
            keys = getattr(layers[index], "keys", None)
            if isinstance(keys, Tensor) and keys.ndim == 4 and keys.shape[2] == count:
                return keys
    return None


def _restated(attended: Attended, asked: Question | str) -> Seen | Doubt:
    name, module = attended.name, attended.module
    if isinstance(asked, str):
        return Doubt(name, module, asked)
    certain = ("torch's fused attention, called by this module", "[batch, heads, queries, keys]")
    return Seen(name, module, 0, asked.shape, asked.rows_of, "restated", certain, asked.dropped)


def _read(attended: Attended, followed: Followed) -> Seen | Doubt:
    name, module = attended.name, attended.module
    if followed.used is None or followed.unclear is not None:
        reason = followed.unclear or "a softmax over its last axis is not summed over that axis with values"
        return Doubt(name, module, reason)
    found = by_head(followed.used.detach(), module)
    if isinstance(found, str):
        return Doubt(name, module, found)
    weights, axes = found
    certain = ("a softmax over the last axis", "summed over that axis in a product", axes)
    return made(name, module, 0, weights, certain, followed.dropped)


@contextmanager
def watching(model: nn.Module, sink: Sink) -> Iterator[dict[str, nn.Module]]:
    """Hand every attention that the model computes in its own code to `sink`, while the block runs.

    Yields the modules watched, by name: those called attention that neither use transformers' interface nor hold one
    that does. The sink runs inside the forward, when the module has ended; it must change nothing.
    """
    modules = own_code(model)
    second = Second({id(m): name for name, m in modules.items()}, sink)

    # plain functions: a deep copy of the model does not copy what they know, and they do nothing in a copy
    @torch.compiler.disable
    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if id(module) in second.names:
            second.enters(module, args, kwargs)

    @torch.compiler.disable
    def after(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in second.names:
            second.leaves(module, args, output)

    with ExitStack() as leaving:
        for module in modules.values():
            leaving.callback(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True).remove)
            leaving.callback(module.register_forward_hook(after, always_call=True).remove)
        yield modules
