"""regard.swap: a model's attention changed for good, parameters, files and caches included."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from regard.errors import UserError
from regard.hf.attach import check_layers, check_swappable, checked
from regard.hf.calls import read as read_call
from regard.hf.computing import Computing
from regard.hf.plan import Plan, plan_of
from regard.hf.seam import AttentionCall, handling
from regard.hf.watcher import Watcher
from regard.protocol import Attention
from regard.swap.cache.handler import plain_rows
from regard.swap.cache.layer import Place, PolicyLayer
from regard.swap.cache.own_size import StateLayer, layer_for
from regard.swap.parameters import read, with_parameters

NAME = "swapped_attention"


class Staying(Computing):
    """Computes a model's attention as a plan says, for as long as the model lives, with caches of its own size."""

    gives_way = True

    def __init__(self, watcher: Watcher, plan: Plan) -> None:
        super().__init__(watcher, "model", plan)
        self.layers: weakref.WeakSet[Any] = weakref.WeakSet()

    def attend(self, call: AttentionCall) -> Tensor | None:
        layer = next((layer for layer in self.layers if layer.fresh is not None), None)
        if layer is None:
            return super().attend(call)
        if layer.seen:
            return layer.attend(call.query).transpose(1, 2).contiguous()
        where = self.watcher.ids[id(call.module)].name
        data = read_call(call, where)
        if isinstance(layer, StateLayer):
            return layer.read_prompt(data, where).transpose(1, 2).contiguous()
        layer.read_prompt(data, plain_rows(data, where))
        return super().attend(call)


@dataclass(eq=False)
class _Held:
    """What a swapped model keeps of its swap, and nobody else."""

    handler: Staying
    leaving: ExitStack

    def __deepcopy__(self, memo: Any) -> None:
        raise UserError("a swapped model is not copied; save it and load the copy with regard.load")


def _held(model: nn.Module) -> _Held | None:
    return vars(model).get("_regard_swap")


def plan_held(model: nn.Module) -> Plan:
    """The plan of a swapped model, with the parameters that it brought.

    Raises UserError for a model that was not swapped.
    """
    held = _held(model)
    if held is None:
        raise UserError(f"{type(model).__name__} was not swapped; call regard.swap(model, mechanism) before")
    return held.handler.plan


def swap(
    model: nn.Module,
    mechanism: Attention | Plan | str,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> PreTrainedModel:
    """Change a transformers model's attention for good, and give the model back.

    mechanism: a mechanism, its text, or a plan, as `regard.attach` takes them. Gates, feature maps and the tensors of
    linformer(slots, tokens) and neural_memory(hidden) become parameters of the model. `generate` keeps a cache of the
    mechanism's own size: a window its window, a state its state. `save_pretrained` writes it all, `regard.load` brings
    it back.
    The model can be attached as before. Raises Unsupported for models that compute attention in their own code, and
    for a model that was swapped already.
    """
    inner = checked(model)
    check_swappable(inner)
    if _held(inner) is not None:
        raise UserError(f"{type(inner).__name__} was swapped already; load the model anew to swap it another way")
    plan = plan_of(mechanism, layers, heads, read)
    watcher = Watcher(inner, ())
    check_layers(watcher, plan.named_layers)
    whole, added = with_parameters(inner, plan)
    inner.config.regard_swap = str(plan)
    if added:
        inner.add_module(NAME, added.to(inner.device, inner.dtype))
    handler, leaving = Staying(watcher, whole), ExitStack()
    leaving.enter_context(handling(inner, handler))
    vars(inner)["_regard_swap"] = _Held(handler, leaving)
    inner._prepare_cache_for_generation = _Caching(inner)  # type: ignore[assignment]
    return inner


def released(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its own attention again, and without the parameters that a swap brought; given back.

    Raises UserError for a model that was not swapped.
    """
    held = _held(model)
    if held is None:
        raise UserError(f"{type(model).__name__} was not swapped, so there is nothing to undo")
    held.leaving.close()
    del vars(model)["_regard_swap"]
    vars(model).pop("_prepare_cache_for_generation", None)
    del model.config.regard_swap
    if hasattr(model, NAME):
        delattr(model, NAME)
    return model


class _Caching:
    """What `generate` calls to make its cache: one of the mechanism's own size, unless it was given one."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = weakref.ref(model)

    def __call__(self, generation_config: Any, model_kwargs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        model = self.model()
        assert model is not None
        wanted = generation_config.use_cache is not False and getattr(generation_config, "num_beams", 1) in (None, 1)
        if wanted and model_kwargs.get("past_key_values") is None and not model.config.is_encoder_decoder:
            model_kwargs["past_key_values"] = cache_of(model)
        kind: Any = type(model)
        return kind._prepare_cache_for_generation(model, generation_config, model_kwargs, *rest, **more)


def cache_of(model: PreTrainedModel) -> Cache:
    """An empty cache of a swapped model, of its mechanisms' own size.

    Raises UserError for a model that was not swapped.
    """
    held = _held(model)
    if held is None:
        raise UserError(f"{type(model).__name__} was not swapped; its own cache is transformers' DynamicCache")
    handler = held.handler
    plain = DynamicCache(config=model.config)
    heads = int(model.config.get_text_config().num_attention_heads)
    made = Cache(
        layers=[
            layer_for(handler.plan, n, heads, layer, Place(n, len(plain.layers)))
            if type(layer) is DynamicLayer
            else layer
            for n, layer in enumerate(plain.layers)
        ]
    )
    handler.layers.update(layer for layer in made.layers if isinstance(layer, PolicyLayer | StateLayer))
    return made


@torch.no_grad()
def restored(model: PreTrainedModel, folder: Path) -> None:
    """Swap a model that was loaded from a swapped model's folder, with the parameters that lie there.

    Raises UserError for a folder that lacks some of them.
    """
    swap(model, model.config.regard_swap)
    module = getattr(model, NAME, None)
    if module is None:
        return
    saved: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        saved |= {n.removeprefix(f"{NAME}."): t for n, t in load_file(file).items() if n.startswith(f"{NAME}.")}
    missing = sorted(set(module.state_dict()) - set(saved))
    if missing:
        raise UserError(f"{folder} lacks {NAME}.{missing[0]} of its swapped attention; save the model again")
    module.load_state_dict(saved)
