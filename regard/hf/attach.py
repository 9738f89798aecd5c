"""attach: watch a transformers model while a block runs, or compute its attention another way; leave no trace."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from regard.hf.computing import Computing
from regard.hf.engine import BACKENDS, unknown_backend
from regard.hf.errors import Unsupported
from regard.hf.exchanged import Edit
from regard.hf.layers import attention_modules
from regard.hf.own_code.enter import watching
from regard.hf.own_code.modules import is_attention, own_code
from regard.hf.plan import NOTHING, Plan, plan_of
from regard.hf.seam import Handler, handling, holder
from regard.hf.watcher import Watcher
from regard.protocol import Attention
from regard.seeing.statistics import standard
from regard.seeing.trace import Trace
from regard.statistic import Statistic

SUPPORTED = {"transformers": ((5, 17), (5, 23)), "torch": ((2, 11), (2, 13))}


@contextmanager
def attach(
    model: nn.Module,
    watch: Sequence[Statistic] | None = None,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    mechanism: Attention | Plan | str | None = None,
    swap_layers: Sequence[int] | None = None,
    swap_heads: Sequence[int] | None = None,
    edit: Sequence[Edit] = (),
    backend: str = "model",
    tokenizer: Any = None,
    keep: Literal["qk"] | None = None,
) -> Iterator[Trace]:
    """Watch the attention of a transformers model while the block runs; afterwards everything is as it was.

        with regard.attach(model) as trace:
            model(**inputs)

    watch: statistics to compute, by default the standard set; () watches nothing. layers, heads: indices to watch, by
    default all. backend="model" leaves the output to the model's own attention function, so that watching changes no
    bit of it; another name computes it with that backend of regard's. mechanism: swap the attention for a mechanism
    or its text form (its mask is ANDed with the model's own), in the layers swap_layers and their heads swap_heads, by
    default all; or the text of a plan, "0,1: causal; *: window(256)". edit: changes that are asked about
    (regard.swap.edits): heads off, edges cut, patterns exchanged. tokenizer: gives token texts and special tokens.
    keep="qk" keeps queries and keys, so that `trace.weights` gives any exact rectangle later.

    Models that compute attention in their own code are watched where they make their weights (regard/hf/own_code).

    Raises Unsupported for models without attention, and inside the block for calls that cannot be watched exactly.
    """
    inner = checked(model)
    if mechanism is None and (swap_layers is not None or swap_heads is not None):
        raise Unsupported("swap_layers and swap_heads say where a mechanism goes, and none was given; give mechanism=")
    if backend not in ("model", "auto", *BACKENDS):
        raise unknown_backend(backend, "model")
    plan = held_plan(inner) if mechanism is None else plan_of(mechanism, swap_layers, swap_heads)
    if keep is not None and (swap_heads is not None or any(rule.heads for rule in plan.rules) or edit):
        raise Unsupported(f"keep={keep!r} keeps one mechanism a layer; swap whole layers without edits, or drop keep=")
    watched = tuple(standard() if watch is None else watch)
    _check_labels(watched)
    watcher = Watcher(
        inner,
        watched,
        layers=None if layers is None else frozenset(layers),
        heads=None if heads is None else list(heads),
        backend=backend,
        tokenizer=tokenizer,
        keep=keep,
    )
    named = (layer for each in edit for layer in each.named_layers)
    check_layers(watcher, (*(layers or ()), *plan.named_layers, *named))
    handler: Handler = watcher
    if plan.rules or edit or backend != "model":
        check_swappable(inner)
        handler = Computing(watcher, backend, plan, edit)
    with handling(inner, handler), watching(inner, watcher.own_code.sink):
        yield watcher.trace
        watcher.close()


def _check_labels(watched: tuple[Statistic, ...]) -> None:
    labels = [statistic.label for statistic in watched]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise Unsupported(f"two statistics are called {twice!r}; give one of them another name, or watch one at a time")


def check_layers(watcher: Watcher, asked: Sequence[int]) -> None:
    """Raise Unsupported where a layer is asked for that the watched model does not have."""
    model = watcher.model
    indices = [watcher.ids[id(module)].index for _, module in attention_modules(model)]
    # layers that share one module (ALBERT) are more than there are modules
    last = max([*indices, *(count - 1 for count in _layer_counts(model.config))])
    outside = [layer for layer in asked if not 0 <= layer <= last]
    if outside:
        raise Unsupported(f"{type(model).__name__} has layers 0 to {last}; layer {outside[0]} was asked for")


def _layer_counts(config: Any) -> list[int]:
    """How many layers a config says that there are, in itself and in the configs inside it."""
    inner = [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    counts = [getattr(part, "num_hidden_layers", None) for part in (config, *inner)]
    return [count for count in counts if isinstance(count, int)] or [1]


def held_plan(model: PreTrainedModel) -> Plan:
    """What a model that was swapped for good computes; nothing for any other."""
    held = holder(model)
    return held.plan if isinstance(held, Computing) and held.gives_way else NOTHING


def _check_versions() -> None:
    for name, (first, last) in SUPPORTED.items():
        version = importlib.metadata.version(name)
        installed = tuple(int(part) for part in version.split(".")[:2])
        if not first <= installed <= last:
            known = " to ".join(".".join(map(str, end)) for end in (first, last))
            raise Unsupported(f"{name} {version} is installed, and regard knows {known}; install one of those")


def checked(model: nn.Module) -> PreTrainedModel:
    """The transformers model to attach to: this one, or the one that a wrapper (torch.compile, PEFT) holds.

    Raises Unsupported for anything else, and for models none of whose attention goes through the interface.
    """
    _check_versions()
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, PreTrainedModel):
        inner = next((m for m in inner.modules() if isinstance(m, PreTrainedModel)), inner)
    if not isinstance(inner, PreTrainedModel):
        raise Unsupported(f"attach needs a transformers model, got {type(inner).__name__}; load one with AutoModel")
    if inner is not model and getattr(getattr(model, "dynamo_ctx", None), "fullgraph", False):
        raise Unsupported("a model compiled with fullgraph=True leaves no room to watch; compile it without fullgraph")
    kind = inner.config.model_type
    if inner is not model and hasattr(model, "_orig_mod") and own_code(inner):
        raise Unsupported(
            f"{type(inner).__name__} ({kind}) computes attention in its own code, which cannot be watched once it is "
            "compiled; give the model that is not compiled"
        )
    if not any(is_attention(m) for m in inner.modules()) or not (_on_interface(inner) or own_code(inner)):
        raise Unsupported(f"{type(inner).__name__} ({kind}) has no attention that regard knows; see docs/models.md")
    if getattr(inner.config, "reorder_and_upcast_attn", False):
        raise Unsupported(f"{kind} with reorder_and_upcast_attn=True bypasses the attention interface; set it to False")
    return inner


def _on_interface(model: PreTrainedModel) -> bool:
    inside = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
    return any(type(m)._can_set_attn_implementation() for m in inside)


def check_swappable(model: PreTrainedModel) -> None:
    """Raise Unsupported for models whose attention is computed in their own code, which can be seen, not replaced."""
    if not _on_interface(model):
        raise Unsupported(
            f"{type(model).__name__} ({model.config.model_type}) computes its attention inside its own code, not "
            "through transformers' attention interface, so it can be watched but not computed another way"
        )
