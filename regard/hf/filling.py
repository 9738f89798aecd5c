"""Filling a Trace from what a Watcher has absorbed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    trace.layers = [_layer(state, one_module) for state in states]
    trace.axes = {name: watcher.axes.tokens(axis) for name, axis in watcher.axes.by_name.items()}
    output = watcher.describe_output()
    trace.made = _made(model, watcher) | output
    trace.made["passed_over"] = output.get("passed_over", []) + _passed_over(watcher)


def _layer(state: LayerState, one_module: bool) -> Layer:
    """one_module: one module serves all layers, one call each (ALBERT)."""
    assert state.view is not None and state.query_axis is not None and state.key_axis is not None
    results, summaries = state.watching.finish(state.view)
    layer, number = state.layer, state.call_number
    return Layer(
        name=layer.name,
        index=number if one_module else layer.index,
        kind=layer.kind,
        stack=layer.stack if one_module or not number else f"{layer.stack} call {number + 1}",
        heads=state.heads,
        query_axis=state.query_axis.name,
        key_axis=state.key_axis.name,
        results=results,
        summaries=summaries,
        undefined=dict(state.watching.undefined),
        kept=state.watching.kept,
    )


def _made(model: PreTrainedModel, watcher: Watcher) -> dict[str, Any]:
    every = [state.watching for state in watcher.states.values()]
    return {
        "model_class": type(model).__name__,
        "model_type": model.config.model_type,
        "output": "the model's own attention",
        "passed_over": [],
        "mechanism": None,
        "watched_by": sorted({name for watching in every for name in watching.used}),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "not_reached": not_reached(watcher),
        "problems": sorted(set(watcher.problems)),
    }


def _passed_over(watcher: Watcher) -> list[dict[str, Any]]:
    """Every backend that did not reduce the statistics of some layers, and why. All JSON."""
    layers: dict[PassedOver, set[str]] = {}
    for state in watcher.states.values():
        for other in state.watching.passed_over:
            layers.setdefault(other, set()).add(state.layer.name)
    return passed_over_rows("statistics", layers)


def passed_over_rows(what: str, layers: dict[PassedOver, set[str]]) -> list[dict[str, Any]]:
    """Backends that were passed over for `what` in which layers, as JSON."""
    return [{"what": what, **vars(other), "layers": sorted(names)} for other, names in sorted(layers.items())]


def not_reached(watcher: Watcher) -> list[str]:
    """Names of attention modules that no call came from."""
    return [name for name, module in attention_modules(watcher.model) if id(module) not in watcher.called]
