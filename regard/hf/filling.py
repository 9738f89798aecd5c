"""Filling a Trace from what a Watcher has absorbed."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.hf.engine import PassedOver
from regard.hf.layers import attention_modules
from regard.hf.sequences import LayerState
from regard.seeing.trace import About, Layer, Trace

if TYPE_CHECKING:
    from regard.hf.watcher import Watcher


def fill(trace: Trace, watcher: Watcher) -> None:
    """Finish every statistic as of now into the trace."""
    model = watcher.model
    trace.model = Path(model.config.name_or_path or "").name or type(model).__name__
    trace.statistics = {s.label: About.of(s) for s in watcher.statistics}
    states = [state for state in watcher.states.values() if state.view is not None]
    one_module = len({key for key, _ in watcher.states}) == 1 and len(watcher.states) > 1
    trace.layers = [_layer(state, one_module, watcher.heads) for state in states]
    trace.axes = {name: watcher.axes.tokens(axis) for name, axis in watcher.axes.by_name.items()}
    output = watcher.describe_output()
    trace.made = _made(model, watcher) | output
    trace.made["passed_over"] = output.get("passed_over", []) + _passed_over(watcher)


def _layer(state: LayerState, one_module: bool, heads: list[int] | None) -> Layer:
    """one_module: one module serves all layers, one call each (ALBERT). heads: their order, None for ascending."""
    assert state.view is not None and state.query_axis is not None and state.key_axis is not None
    finished = [group.watching.finish(replace(state.view, heads=len(group.heads))) for group in state.groups]
    order = sorted(state.heads) if heads is None else heads
    layer, number = state.layer, state.call_number
    undefined = {label: why for group in state.groups for label, why in group.watching.undefined.items()}
    return Layer(
        name=layer.name,
        index=number if one_module else layer.index,
        kind=layer.kind,
        stack=layer.stack if one_module or not number else f"{layer.stack} call {number + 1}",
        heads=order,
        query_axis=state.query_axis.name,
        key_axis=state.key_axis.name,
        results={
            label: {name: _by_head(state, order, [r[label][name] for r, _ in finished]) for name in results}
            for label, results in finished[0][0].items()
            if label not in undefined
        },
        summaries={
            label: _by_head(state, order, [s[label] for _, s in finished])
            for label in finished[0][1]
            if label not in undefined
        },
        undefined=undefined,
        kept=state.watching.kept if len(state.groups) == 1 else None,
    )


def _by_head(state: LayerState, order: list[int], parts: list[Tensor]) -> Tensor:
    """The results of a layer's groups of heads as one [B,H,…], heads in this order."""
    sizes = [len(group.heads) for group in state.groups]
    if len(parts) == 1 or any(t.ndim < 2 or t.shape[1] != size for t, size in zip(parts, sizes, strict=True)):
        return parts[0]
    return torch.cat(parts, 1)[:, [state.heads.index(head) for head in order]]


@cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _made(model: PreTrainedModel, watcher: Watcher) -> dict[str, Any]:
    every = [group.watching for state in watcher.states.values() for group in state.groups]
    return {
        "model_class": type(model).__name__,
        "model_type": model.config.model_type,
        "output": "the model's own attention",
        "passed_over": [],
        "mechanism": None,
        "watched_by": sorted({name for watching in every for name in watching.used}),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": {name: _version(name) for name in ("torch", "transformers")},
        "not_reached": not_reached(watcher),
        "problems": sorted(set(watcher.problems)),
    }


def _passed_over(watcher: Watcher) -> list[dict[str, Any]]:
    """Every backend that did not reduce the statistics of some layers, and why. All JSON."""
    layers: dict[PassedOver, set[str]] = {}
    for state in watcher.states.values():
        for other in (other for group in state.groups for other in group.watching.passed_over):
            layers.setdefault(other, set()).add(state.layer.name)
    return passed_over_rows("statistics", layers)


def passed_over_rows(what: str, layers: dict[PassedOver, set[str]]) -> list[dict[str, Any]]:
    """Backends that were passed over for `what` in which layers, as JSON."""
    return [{"what": what, **vars(other), "layers": sorted(names)} for other, names in sorted(layers.items())]


def not_reached(watcher: Watcher) -> list[str]:
    """Names of attention modules that no call came from."""
    return [name for name, module in attention_modules(watcher.model) if id(module) not in watcher.called]
