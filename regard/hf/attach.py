"""attach: enter a transformers model by its public attention interface, watch, and leave no trace."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from regard.hf.calls import Unsupported
from regard.hf.masks import ModelMask, model_mask
from regard.hf.session import Session
from regard.mechanism import Mechanism
from regard.run.choose import BACKENDS, unknown_backend
from regard.run.compose import resolved
from regard.seeing.statistics import standard
from regard.seeing.trace import Trace
from regard.statistic import Statistic

NAME = "regard"
SUPPORTED = {"transformers": ((5, 17), (5, 23)), "torch": ((2, 11), (2, 13))}

# Models whose own code asks which attention implementation is in use and computes something else for unknown names.
ASKS_FOR_NAME = frozenset(
    {
        "axk2",
        "deepseek_v32",
        "diffusion_gemma",
        "dots3_note",
        "falcon",
        "gemma4",
        "gemma4_unified",
        "glm5_next",
        "glm_moe_dsa",
        "hy_v4",
        "minimax_m3_vl",
        "mistral_large4",
        "qwen2_5_omni",
        "timm_backbone",
        "timm_wrapper",
    }
)

_sessions: dict[int, Session] = {}  # by id of an attached model's module
_own: dict[int, str] = {}  # by id of a switched config: the implementation that it named before


@contextmanager
def attach(
    model: nn.Module,
    watch: Sequence[Statistic] | None = None,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    mechanism: Mechanism | str | None = None,
    backend: str = "model",
    tokenizer: Any = None,
    keep: Literal["qk"] | None = None,
) -> Iterator[Trace]:
    """Watch the attention of a transformers model while the block runs; afterwards everything is as it was.

        with regard.attach(model) as trace:
            model(**inputs)

    watch: statistics to compute, by default the standard set; () watches nothing. layers, heads: indices to watch, by
    default all. backend="model" leaves the output to the model's own attention function, so that watching changes no
    bit of it; another name computes it with that backend of regard's. mechanism: swap the attention for a Mechanism
    or its text form (its mask is ANDed with the model's own). tokenizer: gives token texts and special tokens.
    keep="qk" keeps queries and keys, so that `trace.weights` gives any exact rectangle later.

    Raises Unsupported for models that do not go through the interface, and inside the block for calls that cannot be
    watched exactly.
    """
    inner = _checked(model)
    if backend not in ("model", "auto", *BACKENDS):
        raise unknown_backend(backend, "model")
    watched = tuple(standard() if watch is None else watch)
    labels = [statistic.label for statistic in watched]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise Unsupported(f"two statistics are called {twice!r}; give one of them another name, or watch one at a time")
    session = Session(
        inner,
        watched,
        layers=None if layers is None else frozenset(layers),
        heads=None if heads is None else list(heads),
        mechanism=_swapped_in(mechanism),
        backend=backend if mechanism is None or backend != "model" else "auto",
        tokenizer=tokenizer,
        keep=keep,
    )
    last = session.last_layer()
    outside = [layer for layer in layers or () if not 0 <= layer <= last]
    if outside:
        raise Unsupported(f"{type(inner).__name__} has layers 0 to {last}; layer {outside[0]} was asked for")
    with ExitStack() as leaving:
        _enter(inner, session, leaving)
        yield session.trace
        session.close()


def _swapped_in(mechanism: Mechanism | str | None) -> Mechanism | None:
    if mechanism is None:
        return None
    found = resolved(mechanism)
    if not isinstance(found, Mechanism):
        raise Unsupported(f"{mechanism} is not one mechanism but a composition, which cannot be swapped into a layer")
    return found


def _check_versions() -> None:
    for name, (first, last) in SUPPORTED.items():
        version = importlib.metadata.version(name)
        found = tuple(int(part) for part in version.split(".")[:2])
        if not first <= found <= last:
            known = " to ".join(".".join(map(str, end)) for end in (first, last))
            raise Unsupported(f"{name} {version} is installed, and regard knows {known}; install one of those")


def _checked(model: nn.Module) -> PreTrainedModel:
    _check_versions()
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, PreTrainedModel):
        raise Unsupported(f"attach needs a transformers model, got {type(inner).__name__}; load one with AutoModel")
    if inner is not model and getattr(getattr(model, "dynamo_ctx", None), "fullgraph", False):
        raise Unsupported("a model compiled with fullgraph=True leaves no room to watch; compile it without fullgraph")
    kind = inner.config.model_type
    if not type(inner)._can_set_attn_implementation():
        raise Unsupported(
            f"{type(inner).__name__} ({kind}) computes its attention inside its own code, not through transformers' "
            "attention interface, so there is nothing to attach to; use a model that does, such as GPT-2, Llama or BERT"
        )
    asking = sorted({m.config.model_type for m in _with_config(inner)} & ASKS_FOR_NAME)
    if asking:
        raise Unsupported(f"{', '.join(asking)} computes different attention under another name, so regard refuses it")
    if getattr(inner.config, "reorder_and_upcast_attn", False):
        raise Unsupported(f"{kind} with reorder_and_upcast_attn=True bypasses the attention interface; set it to False")
    if any(id(m) in _sessions for m in inner.modules()) or any(id(m.config) in _own for m in _with_config(inner)):
        raise Unsupported(
            f"{type(inner).__name__} or a model that shares its config is already attached; leave that block first"
        )
    return inner


def _with_config(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if hasattr(getattr(m, "config", None), "_attn_implementation_internal")]


def _enter(model: PreTrainedModel, session: Session, leaving: ExitStack) -> None:
    """Switch the model over; what undoes it goes on the stack."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    leaving.callback(_unregister)
    for module in model.modules():
        _sessions[id(module)] = session
        leaving.callback(_sessions.pop, id(module), None)
    for config in {id(m.config): m.config for m in _with_config(model)}.values():
        leaving.callback(_restore, config, config._attn_implementation_internal)
        _own[id(config)] = config._attn_implementation_internal
        config._attn_implementation_internal = NAME
    for remove in session.install_hooks():
        leaving.callback(remove)


def _restore(config: Any, own: str) -> None:
    config._attn_implementation_internal = own
    _own.pop(id(config), None)


def _unregister() -> None:
    if not _own:
        AttentionInterface._global_mapping.pop(NAME, None)
        AttentionMaskInterface._global_mapping.pop(NAME, None)


def _own_function(module: nn.Module) -> Callable[..., Any]:
    """The attention function of the implementation that the module's config named before."""
    name = _own.get(id(getattr(module, "config", None))) or "sdpa"
    if name != "eager":
        return ALL_ATTENTION_FUNCTIONS[name]
    source = sys.modules[type(module).forward.__module__]
    eager = getattr(source, "eager_attention_forward", None)
    if eager is None:
        raise Unsupported(f"{type(module).__name__} has no eager attention to leave the output to; load it with sdpa")
    return eager


@torch.compiler.disable
def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls in place of its own attention function. q [B,H,Tq,D], k, v [B,G,Tk,D|Dv]."""
    session = _sessions.get(id(module))
    if session is not None and not session.is_plain:
        return session.compute(module, query, key, value, attention_mask, dropout, scaling, keywords), None
    function = _own_function(module)
    mask = attention_mask.own() if isinstance(attention_mask, ModelMask) else attention_mask
    result = function(module, query, key, value, mask, dropout=dropout, scaling=scaling, **keywords)
    if session is not None:
        session.observe(module, query, key, value, attention_mask, scaling, keywords)
    return result


@torch.compiler.disable
def _mask(**question: Any) -> ModelMask:
    """What transformers calls in place of its own mask functions: remembers the question, for both sides."""
    return model_mask(_own.get(id(question.get("config")), "sdpa"), question)
