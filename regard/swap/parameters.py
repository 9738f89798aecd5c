"""Which parameters a plan brings into a model that is swapped for good, and the text forms that ask for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.errors import UserError
from regard.hf.layers import attention_modules, layer_ids
from regard.hf.plan import Plan, Rule
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.parts.masks import Full
from regard.parts.prepare import EluPlusOne
from regard.protocol import Attention, NotObservable
from regard.recurrent import Decay
from regard.recurrent.recurrence import Recurrence
from regard.run.compose import resolved
from regard.swap.learned import Gates, Learned, Maps, Memory, ProjectFirst, Projections
from regard.zoo.linear import linear_recurrent
from regard.zoo.linformer import linformer
from regard.zoo.titans import neural_memory

SIZED = re.compile(r"(linformer|neural_memory)\s*\(([^()]*)\)")


@dataclass(frozen=True)
class Sizes:
    """Of a layer: query heads, key-value heads, the width of a key."""

    heads: int
    groups: int
    width: int


@dataclass(frozen=True)
class Sized:
    """A mechanism whose tensors a swap makes: linformer(slots, tokens) or neural_memory(hidden).

    It is an Attention in name alone until a layer has made its tensors.
    """

    name: str
    numbers: tuple[int, ...]
    source: str = ""

    @property
    def is_causal(self) -> bool:
        return self.name == "neural_memory"

    def attend(self, x: Inputs, engine: Any) -> Tensor:
        raise UserError(f"{self.name} has no tensors yet; regard.swap(model, …) makes them")

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Any) -> Tensor:
        raise NotObservable(f"{self.name} has no tensors yet; regard.swap(model, …) makes them")

    def masked(self, mask: Any) -> Attention:
        raise UserError(f"{self.name} has no tensors yet; regard.swap(model, …) makes them")

    def composition(self) -> tuple[tuple[str, Any], ...]:
        return ()


def read(text: str) -> Attention:
    """The attention of a text form: one of the catalogue, or one whose tensors the swap makes.

    Raises UserError for sizes that are no whole numbers above 0.
    """
    match = SIZED.fullmatch(text.strip())
    if match is None:
        return resolved(text)
    name, inside = match[1], match[2]
    words = [word.rpartition("=")[2].strip() for word in inside.split(",")]
    wanted = ("slots", "tokens") if name == "linformer" else ("hidden",)
    if len(words) != len(wanted) or not all(word.isdigit() and int(word) for word in words):
        example = "linformer(32, 512)" if name == "linformer" else "neural_memory(64)"
        raise UserError(f"a swap makes {name}'s tensors from {' and '.join(wanted)}, whole numbers; such as {example}")
    return Sized(name, tuple(map(int, words)))


def with_parameters(model: PreTrainedModel, plan: Plan) -> tuple[Plan, nn.ModuleDict]:
    """The plan whose mechanisms hold parameters, a layer's its own, and the modules of those by layer.

    Raises UserError where a mechanism with parameters shares a layer with another.
    """
    ids, sizes = layer_ids(model), _sizes(model)
    rules: list[Rule] = []
    added = nn.ModuleDict()
    for number in sorted({ids[id(module)].index for _, module in attention_modules(model)}):
        several = {id(a): a for a in (plan.of_head(number, head) for head in range(sizes.heads))}
        attention = next(iter(several.values()))
        if len(several) > 1:
            _refuse_shared(several.values(), number, sizes)
            continue
        made = None if attention is None else learned(_as_state(model, attention), sizes)
        if made is not None:
            added[str(number)] = made[1]
            rules.append(Rule(made[0].name, made[0], frozenset([number])))
    return Plan((*rules, *plan.rules)), added


def learned(attention: Attention, sizes: Sizes) -> tuple[Attention, nn.Module] | None:
    """The attention with parameters and the module of them; None where it has none."""
    if isinstance(attention, Sized):
        return _sized(attention, sizes)
    if not isinstance(attention, Recurrence):
        return None
    made = _learned(attention, sizes)
    return None if made is None else (made, _module(made))


def _sized(asked: Sized, sizes: Sizes) -> tuple[Attention, nn.Module]:
    if asked.name == "linformer":
        module = Projections(*asked.numbers)
        plain = linformer(e=module.e, f=module.f)
        return plain.replace(prepare=(ProjectFirst(module.e, module.f),)), module
    memory = Memory(sizes.heads, sizes.width, asked.numbers[0], sizes.width)
    made = _learned(neural_memory(w_1=memory.w_1, w_2=memory.w_2), sizes)
    assert made is not None
    return made, nn.ModuleDict({"memory": memory, **_module(made)})


def _learned(inner: Recurrence, sizes: Sizes) -> Learned | None:
    """A recurrence with gates where it reads any, and with maps where it is a sum of φ(k) vᵀ."""
    widths = _gates(inner, sizes)
    gates = Gates(widths, sizes.groups, sizes.width) if widths else None
    maps = Maps(sizes.heads, sizes.groups, sizes.width, 2 if is_kernel(inner) else 1) if _maps(inner) else None
    return Learned(inner, maps, gates, inner.name, inner.source) if maps is not None or gates is not None else None


def _gates(inner: Recurrence, sizes: Sizes) -> dict[str, int | None]:
    """The gates that it reads, each with its width, the widest that it takes; None for one number a token."""
    empty = torch.zeros(1, sizes.heads, 1, sizes.width)
    at = torch.zeros(1, 1, dtype=torch.int64)
    asked = inner.gates(Inputs(empty, empty[:, : sizes.groups], empty[:, : sizes.groups], at, at))
    return {name: None if choice is None else max(choice) for name, choice in asked.items()}


def _maps(inner: Recurrence) -> bool:
    return isinstance(inner, Decay) and all(isinstance(part, EluPlusOne) for part in inner.prepare)


def is_kernel(inner: Recurrence) -> bool:
    """Whether it is a quotient of two sums over positive features, as linear attention is."""
    return isinstance(inner, Decay) and inner.normalise


def _module(made: Learned) -> nn.ModuleDict:
    parts = {"maps": made.maps, "gates": made.gating}
    return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def _as_state(model: PreTrainedModel, attention: Attention) -> Attention:
    """`linear` where every layer is plainly causal: the same sums as a state, in linear time."""
    config: Any = model.config.get_text_config()
    plain = isinstance(attention, Mechanism) and attention.name == "linear" and isinstance(attention.mask, Full)
    slides = getattr(config, "sliding_window", None) is not None or set(getattr(config, "layer_types", None) or ()) - {
        "full_attention"
    }
    if plain and model.can_generate() and not config.is_encoder_decoder and not slides:
        return linear_recurrent()
    return attention


def _refuse_shared(several: Iterable[Attention | None], number: int, sizes: Sizes) -> None:
    for attention in several:
        if isinstance(attention, Sized) or (isinstance(attention, Recurrence) and _gates(attention, sizes)):
            raise UserError(
                f"{attention.name} brings parameters for whole layers, and heads of layer {number} attend by something "
                "else; swap whole layers"
            )


def _sizes(model: PreTrainedModel) -> Sizes:
    config: Any = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    return Sizes(heads, groups, int(getattr(config, "head_dim", None) or config.hidden_size // heads))
