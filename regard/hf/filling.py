"""Filling a Trace from what a Watcher has absorbed: put off until someone reads it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.hf.engine import PassedOver
from regard.hf.sequences import LayerState
from regard.seeing.later import Work
from regard.seeing.trace import Layer

if TYPE_CHECKING:
    from regard.hf.watcher import Watcher

PUT_OFF = ("layers", "axes", "made")
FINISHED = ("results", "summaries", "undefined")


def filling(watcher: Watcher) -> Work:
    """What gives `PUT_OFF` of the sequence that has ended: it holds its statistics, neither watcher nor model."""
    states = list(watcher.states.values())
    one_module = len({key for key, _ in watcher.states}) == 1 and len(states) > 1
    axes, tokens_of, heads = dict(watcher.axes.by_name), watcher.axes.tokens_of, watcher.heads
    about, problems = _about(watcher.model), set(watcher.problems)
    names, called, output = watcher.names, frozenset(watcher.called), watcher.describe_output()

    def fill() -> dict[str, Any]:
        return {
            "layers": [_layer(state, one_module, heads) for state in states if state.view is not None],
            "axes": {name: tokens_of(axis) for name, axis in axes.items()},
            "made": _made(
                about | _problems(problems, states), [name for name, key in names if key not in called], states, output
            ),
        }

    return fill


def filling_now(watcher: Watcher) -> dict[str, Any]:
    """The same of a sequence that may go on: its statistics are finished as of now."""
    filled = filling(watcher)()
    for layer in filled["layers"]:
        _ = layer.results
    return dict(filled)


def _layer(state: LayerState, one_module: bool, heads: list[int] | None) -> Layer:
    """one_module: one module serves all layers, one call each (ALBERT). heads: their order, None for ascending."""
    assert state.query_axis is not None and state.key_axis is not None
    layer, number = state.layer, state.call_number
    order = sorted(state.heads) if heads is None else heads
    made = Layer(
        name=layer.name,
        index=number if one_module else layer.index,
        kind=layer.kind,
        stack=layer.stack if one_module or not number else f"{layer.stack} call {number + 1}",
        heads=order,
        query_axis=state.query_axis.name,
        key_axis=state.key_axis.name,
        kept=state.watching.kept if len(state.groups) == 1 else None,
    )
    made.put_off(FINISHED, partial(_finished, state, order))
    return made


def _finished(state: LayerState, order: list[int]) -> dict[str, Any]:
    assert state.view is not None
    finished = [group.watching.finish(replace(state.view, heads=len(group.heads))) for group in state.groups]
    undefined = {label: why for group in state.groups for label, why in group.watching.undefined.items()}
    return {
        "results": {
            label: {name: _by_head(state, order, [r[label][name] for r, _ in finished]) for name in results}
            for label, results in finished[0][0].items()
            if label not in undefined
        },
        "summaries": {
            label: _by_head(state, order, [s[label] for _, s in finished])
            for label in finished[0][1]
            if label not in undefined
        },
        "undefined": undefined,
    }


def _by_head(state: LayerState, order: list[int], parts: list[Tensor]) -> Tensor:
    """The results of a layer's groups of heads as one [B,H,…], heads in this order."""
    sizes = [len(group.heads) for group in state.groups]
    if len(parts) == 1 or any(t.ndim < 2 or t.shape[1] != size for t, size in zip(parts, sizes, strict=True)):
        return parts[0]
    return torch.cat(parts, 1)[:, [state.heads.index(head) for head in order]]


@cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _about(model: PreTrainedModel) -> dict[str, Any]:
    return {
        "model_class": type(model).__name__,
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def _problems(noted: set[str], states: list[LayerState]) -> dict[str, Any]:
    return {"problems": sorted(noted.union(*(state.problems() for state in states)))}


def _made(
    about: Mapping[str, Any], not_reached: list[str], states: list[LayerState], output: Mapping[str, Any]
) -> dict[str, Any]:
    every = [group.watching for state in states for group in state.groups]
    made = {
        "output": "the model's own attention",
        "mechanism": None,
        "watched_by": sorted({name for watching in every for name in watching.used}),
        "versions": {name: _version(name) for name in ("torch", "transformers")},
        "not_reached": not_reached,
    }
    passed_over = [*output.get("passed_over", ()), *_passed_over(states)]
    return {**made, **about, **output, "passed_over": passed_over}


def _passed_over(states: list[LayerState]) -> list[dict[str, Any]]:
    """Every backend that did not reduce the statistics of some layers, and why. All JSON."""
    layers: dict[PassedOver, set[str]] = {}
    for state in states:
        for other in (other for group in state.groups for other in group.watching.passed_over):
            layers.setdefault(other, set()).add(state.layer.name)
    return passed_over_rows("statistics", layers)


def passed_over_rows(what: str, layers: dict[PassedOver, set[str]]) -> list[dict[str, Any]]:
    """Backends that were passed over for `what` in which layers, as JSON."""
    return [{"what": what, **vars(other), "layers": sorted(names)} for other, names in sorted(layers.items())]
