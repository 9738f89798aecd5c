"""What attention really was: eager's own weights, the model's `output_attentions`, or the scores caught in its code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regard.hf.own_code.modules import calls_interface
from regard.hf.own_code.places import reader_of
from regard.hf.own_code.seen import Seen


@dataclass(frozen=True, eq=False)
class Eager:
    """One call of a model's own eager attention: module, weights [B,H,Tq,Tk], values [B,G,Tk,D], output [B,Tq,H,D]."""

    module: nn.Module
    weights: Tensor
    values: Tensor
    output: Tensor

    def mixing_error(self, weights: Tensor, inputs: dict[str, Any]) -> float | None:
        """How far Σ_j W_ij v_j is from the output, over the largest output, in rows that are no padding; for eager
        functions that return weights other than those that met the values (before a sink's factor, before a gate)."""
        if weights.shape != self.weights.shape:
            return None
        values = self.values.repeat_interleave(weights.shape[1] // self.values.shape[1], 1)
        error = ((weights.double() @ values.double()).transpose(1, 2) - self.output.double()).abs()
        error = error * real_rows(weights, self.weights, inputs)[..., None]  # [B,T,H,D]
        return float(error.max() / self.output.abs().max().clamp(min=1))


def real_rows(weights: Tensor, eager: Tensor, inputs: dict[str, Any]) -> Tensor:
    """bool [B,T,1] or ones: the rows of weights [B,H,T,S] that are no padding. eager: what they are held against.

    Where a model puts rows of its own beside the tokens, the mask does not tell; then a row that sees nothing is
    padding if, in eager's weights, no row that sees something looks at its token.
    """
    mask = inputs.get("attention_mask")
    ones = weights.new_ones(weights.shape[0], weights.shape[2], 1)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != len(weights):
        return ones
    if mask.shape[1] == weights.shape[2]:
        return mask.bool()[..., None]
    if weights.shape != eager.shape or weights.shape[2] != weights.shape[3]:
        return ones
    blind = (weights.sum(-1) == 0).all(1)
    looked_at = (eager.abs().amax(1) * ~blind[..., None]).amax(1) > 0
    return ~(blind & ~looked_at)[..., None]


@contextmanager
def eager_weights(model: nn.Module) -> Iterator[list[Eager]]:
    """Every call of a modelling file's own `eager_attention_forward` while the block runs."""
    found: list[Eager] = []
    kinds: set[Any] = {type(m) for m in model.modules()}
    sources = {kind.__module__ for kind in kinds if calls_interface(kind)}
    with ExitStack() as leaving:
        for name in sources:
            source = sys.modules[name]
            own = getattr(source, "eager_attention_forward", None)
            if own is None:
                continue

            def caught(module: nn.Module, *args: Any, own: Any = own, **kwargs: Any) -> Any:
                result = own(module, *args, **kwargs)
                values = args[2] if len(args) > 2 else kwargs["value"]
                found.append(Eager(module, result[1], values, result[0]))
                return result

            leaving.callback(setattr, source, "eager_attention_forward", own)
            source.eager_attention_forward = caught
        for config in configs_of(model):
            leaving.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
            config._attn_implementation_internal = "eager"
        yield found


def configs_of(model: nn.Module) -> list[Any]:
    """Every configuration object of the model, once."""
    each = [getattr(m, "config", None) for m in model.modules()]
    return list({id(c): c for c in each if hasattr(c, "_attn_implementation_internal")}.values())


@contextmanager
def caught_scores() -> Iterator[list[Tensor]]:
    """Softmaxes over the last axis as Python code asks for them: float64 weights from the scores they were given."""
    found: list[Tensor] = []
    places = [(torch.nn.functional, "softmax"), (torch, "softmax"), (Tensor, "softmax")]

    def wrapped(own: Any) -> Any:
        def caught(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            dim = kwargs.get("dim", args[0] if args else -1)
            if isinstance(x, Tensor) and x.ndim > 1 and dim in (-1, x.ndim - 1):
                found.append(torch.exp(x.double() - torch.logsumexp(x.double(), -1, keepdim=True)))
            return own(x, *args, **kwargs)

        return caught

    fused = torch.nn.functional.scaled_dot_product_attention

    def asked(q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(("v", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
        found.append(_dense(q, k, given.get("attn_mask"), bool(given.get("is_causal")), given.get("scale")))
        return fused(q, k, *args, **kwargs)

    with ExitStack() as leaving:
        leaving.callback(setattr, torch.nn.functional, "scaled_dot_product_attention", fused)
        torch.nn.functional.scaled_dot_product_attention = asked
        for where, name in places:
            own = getattr(where, name)
            leaving.callback(setattr, where, name, own)
            setattr(where, name, wrapped(own))
        yield found


def _dense(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None) -> Tensor:
    """softmax(q kᵀ · scale + mask) in float64, as torch documents its fused attention."""
    k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3) if q.ndim == 4 else k
    scores = q.double() @ k.double().transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1)


def returned_attentions(output: Any) -> list[Tensor]:
    """Every tensor of four axes or more in the fields of an output that are called attentions."""
    found: list[Tensor] = []

    def visit(value: Any, inside: bool) -> None:
        if isinstance(value, Tensor):
            if inside and value.ndim >= 3 and value.is_floating_point():
                found.append(value)
        elif isinstance(value, dict):
            for name, part in value.items():
                visit(part, inside or "attention" in str(name))
        elif isinstance(value, tuple | list):
            for part in value:
                visit(part, inside)

    visit(output, False)
    return found


@contextmanager
def noted_values(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """(input, output) of every module whose weights are placed back, by its name, while the block runs."""
    noted: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, args: Any, kwargs: Any, out: Any) -> None:
        given = kwargs.get("encoder_hidden_states")
        given = given if given is not None else args[0] if args else kwargs["hidden_states"]
        noted[name] = (given, out[0] if isinstance(out, tuple) else out.hidden_states)

    with ExitStack() as leaving:
        for name, module in model.named_modules():
            if reader_of(module) is not None or hasattr(module, "sampling_offsets"):
                hook = module.register_forward_hook(lambda _, a, k, o, n=name: note(n, a, k, o), with_kwargs=True)
                leaving.callback(hook.remove)
        yield noted


def mixing_error(one: Seen, weights: Tensor, noted: tuple[Tensor, Tensor], inputs: dict[str, Any]) -> float:
    """How far Σ_j W_ij v_j is from what the module returned, in rows that are no padding, over the largest output."""
    given, out = noted
    module: Any = one.module
    if one.form == "sampled":
        if not hasattr(module, "value_proj"):  # D-FINE's and its kin's take the values as they are
            values = given.unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)
            error = ((weights @ values).transpose(1, 2).flatten(2) - out).abs()
            return float(error.max() / out.abs().max().clamp(min=1))
        values = module.value_proj(given).unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)
        error = (module.output_proj((weights @ values).transpose(1, 2).flatten(2)) - out).abs()
        return float(error.max() / out.abs().max().clamp(min=1))
    values = module.value(given).unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)
    error = ((weights @ values).transpose(1, 2).flatten(2) - out).abs().amax(-1)
    mask = inputs.get("attention_mask")
    if mask is not None:
        error = error * torch.nn.functional.pad(mask, (0, error.shape[1] - mask.shape[1]))
    return float(error.max() / out.abs().max().clamp(min=1))
