"""One model class, watched and compared: which of its attention is seen, how, and how exactly."""

from __future__ import annotations

import copy
import inspect
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regard.hf.attach import attach
from regard.hf.errors import Unsupported
from regard.hf.own_code.enter import watching
from regard.hf.own_code.follow import OwnCode
from regard.hf.own_code.modules import calls_interface, innermost, is_attention, own_code
from regard.hf.own_code.refusals import reason_of
from regard.hf.own_code.seen import Doubt, Seen
from regard.seeing.statistics import Overview
from scripts.census import reference
from scripts.census.feeds import fed
from scripts.census.tiny import tiny

BOUND = 1e-5
FINE = 4096  # an overview in which a cell is one pair, at the lengths that are fed here


@dataclass
class Row:
    """What the census says of one class. seen: how (interface, own code …) -> number of attention modules; error: the
    worst difference of a weight; error_in_double: the same in float64, where error is above BOUND; held_against: what
    the weights were compared with; unseen: module -> reason."""

    family: str
    model: str
    could_run: bool = False
    same_bits: bool = True
    seen: dict[str, int] = field(default_factory=dict)
    held_against: list[str] = field(default_factory=list)
    error: float = 0.0
    error_in_double: float | None = None
    unseen: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def build(kind: Any, **settings: Any) -> Any:
    """A tiny model of this class, in eval mode, with weights drawn anew so that attention is not uniform."""
    torch.manual_seed(0)
    model = kind(tiny(kind.config_class, **settings)).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "sinks" in name:
            torch.nn.init.normal_(parameter, std=min(0.25, 1.4 / max(1, parameter.shape[-1]) ** 0.5))
    return model


def census_of(family: str, kind: Any) -> Row:
    """Build, run and compare one class; every failure is told in the row."""
    row = Row(family, kind.__name__)
    try:
        model = build(kind)
    except Exception as error:
        row.problem = "not built: " + _said(error)
        return row
    if not any(is_attention(module) for module in model.modules()):
        row.could_run = True
        return row
    for padding in (False, True):
        inputs, problem = _that_runs(model, padding)
        if inputs is None:
            row.problem = row.problem or "not run: " + problem
            continue
        row.could_run = True
        if padding and "attention_mask" not in inputs:
            continue
        try:
            _compare(model, inputs, row)
            if row.error > BOUND:
                row.error_in_double = _in_double(model, inputs)
        except Exception as error:
            row.problem = _said(error)
    return row


def _in_double(model: Any, inputs: dict[str, Any]) -> float | None:
    """The worst difference where model and inputs are float64, in which a difference of rounding goes away; None where
    the model cannot be run so."""
    double = copy.deepcopy(model).double()
    double.set_experts_implementation("eager")  # others compute in single precision alone
    row = Row("", "")
    floating = {n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in inputs.items()}
    try:
        _compare(double, floating, row)
    except Exception:
        return None
    return row.error


def _that_runs(model: Any, padding: bool) -> tuple[dict[str, Any] | None, str]:
    """The fullest inputs that the model takes, or None and the first reason why not."""
    problem, error = "", None
    tries = fed(model, padding)
    while True:
        try:
            inputs = tries.send(error)
        except StopIteration:
            return None, problem
        except Exception as said:  # a recipe that does not fit the model
            return None, _said(said)
        try:
            with torch.no_grad():
                torch.manual_seed(1)
                answer(model, inputs)
            return inputs, ""
        except Exception as said:
            error = said
            problem = _said(said) if not problem or "missing" in problem else problem


def answer(model: Any, inputs: dict[str, Any], **more: Any) -> Any:
    """The model's output; what it may change of its inputs, as the record of a film, is a copy."""
    return model(**{n: x if isinstance(x, Tensor) else copy.deepcopy(x) for n, x in inputs.items()}, **more)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:160]


def _compare(model: Any, inputs: dict[str, Any], row: Row) -> None:
    with torch.no_grad():
        torch.manual_seed(2)
        plain = answer(model, inputs)
        torch.manual_seed(2)
        with reference.noted_values(model) as noted, called_modules(model) as called:
            output, seen, doubts, by_interface, refused = watched(model, inputs)
        row.same_bits &= same_bits(plain, output)
        attending = innermost({n: m for n, m in model.named_modules() if n and is_attention(m)})
        reached = {one.name for one, _ in seen} | {name for name, _ in by_interface}
        for doubt in doubts:
            row.unseen[doubt.name] = reason_of(doubt.module) or doubt.reason
        for name, module in attending.items():
            if name not in called:
                continue
            inside = [r for r in reached | set(row.unseen) if r == name or name.startswith(r + ".")]
            if not inside:
                kind: Any = type(module)
                why = refused if calls_interface(kind) and refused else "nothing was computed in it"
                row.unseen[name] = reason_of(module) or why
        truth = truths(model, inputs)
        row.seen = {}
        for name, weights in by_interface:
            row.seen["interface"] = row.seen.get("interface", 0) + 1
            _hold(row, model, name, weights, truth, inputs)
        for one, weights in seen:
            row.seen[one.form] = row.seen.get(one.form, 0) + 1
            if one.form in ("band", "blocks", "buckets", "sampled"):
                row.error = max(row.error, reference.mixing_error(one, weights, noted[one.name], inputs))
                row.held_against = sorted({*row.held_against, "values mixed"})
            else:
                _hold(row, model, one.name, weights, truth, inputs)


def watched(model: Any, inputs: dict[str, Any]) -> tuple[Any, list[tuple[Seen, Tensor]], list[Doubt], Any, str]:
    """(output, seen in own code, doubts, (module name, weights) by the interface, why the interface was refused)."""
    seen: list[tuple[Seen, Tensor]] = []
    doubts: list[Doubt] = []

    def sink(one: Seen | Doubt) -> None:
        if isinstance(one, Doubt):
            doubts.append(one)
        else:
            seen.append((one, one.weights().clone()))

    refused, layers = "", []
    try:
        with told(sink), attach(model, [Overview(resolution=FINE)]) as trace:
            output = answer(model, inputs)
        layers = [(layer.name, traced(trace, layer)) for layer in trace.layers]
    except Unsupported as error:  # the same again without it, so that what the own code shows is still compared
        refused = str(error)
        seen.clear()
        doubts.clear()
        torch.manual_seed(2)
        with watching(model, sink):
            output = answer(model, inputs)
    own = {one.name for one, _ in seen}
    return output, seen, doubts, [(name, weights) for name, weights in layers if name not in own], refused


@contextmanager
def told(sink: Callable[[Seen | Doubt], None]) -> Iterator[None]:
    """Tell `sink` what attached models are handed of their own code, while the block runs."""
    own = OwnCode.sink

    def both(self: OwnCode, one: Seen | Doubt) -> None:
        sink(one)
        own(self, one)

    with unittest.mock.patch.object(OwnCode, "sink", both):
        yield


@contextmanager
def called_modules(model: nn.Module) -> Iterator[set[str]]:
    """The names of the attention modules that are called while the block runs."""
    called: set[str] = set()
    with ExitStack() as leaving:
        for name, module in model.named_modules():
            if is_attention(module):
                hook = module.register_forward_pre_hook(lambda _, __, name=name: called.add(name))
                leaving.callback(hook.remove)
        yield called


def traced(trace: Any, layer: Any) -> Tensor:
    """The weights [B, H, Tq, Tk] that a trace holds of a layer."""
    batch = trace.axes[layer.query_axis].axis.positions.shape[0]
    return torch.stack([torch.stack([trace.weights(layer, h, batch=b) for h in layer.heads]) for b in range(batch)])


def truths(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What there is to compare with: eager's weights by module name, returned attentions, and caught scores."""
    names = {id(m): name for name, m in model.named_modules()}
    takes = "output_attentions" in inspect.signature(model.forward).parameters or "kwargs" in str(
        inspect.signature(model.forward)
    )
    with reference.eager_weights(model) as eager, reference.caught_scores() as scores:
        torch.manual_seed(2)
        answer(model, inputs)
    by_name: dict[str, list[reference.Eager]] = {}
    for one in eager:
        by_name.setdefault(names.get(id(one.module), "?"), []).append(one)
    returned: list[Tensor] = []
    if takes and own_code(model):
        try:
            torch.manual_seed(2)
            returned = reference.returned_attentions(dict(answer(model, inputs, output_attentions=True)))
        except Exception:
            returned = []
    return {"eager": by_name, "returned": returned, "scores": scores}


def _hold(row: Row, model: Any, name: str, weights: Tensor, truth: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Compare one layer's weights with the best witness there is; what has none is told as unseen."""
    calls: list[reference.Eager] = truth["eager"].get(name, [])
    for witness, candidates in (
        ("eager", [call.weights for call in calls]),
        ("output_attentions", truth["returned"]),
        ("scores", truth["scores"]),
    ):
        errors = [e for c in candidates if (e := difference(weights, c, inputs)) is not None]
        if witness == "eager" and errors and min(errors) > BOUND:
            mixed = [e for call in calls if (e := call.mixing_error(weights, inputs)) is not None]
            fused = [e for c in _fused(model, inputs, truth) if (e := difference(weights, c, inputs)) is not None]
            for other, its in (("values mixed", mixed), ("sdpa restated", fused)):
                witness, errors = (other, its) if its and min(its) <= BOUND else (witness, errors)
        if errors and (witness != "output_attentions" or min(errors) <= BOUND):
            row.error = max(row.error, min(errors))
            row.held_against = sorted({*row.held_against, witness})
            return
    row.unseen[name] = "its weights were read, and there is nothing to hold them against"


def _fused(model: Any, inputs: dict[str, Any], truth: dict[str, Any]) -> list[Tensor]:
    """Weights of the fused attention that the model asks torch for, where its eager code computes something else."""
    if "fused" not in truth:
        with torch.no_grad(), reference.caught_scores() as scores:
            torch.manual_seed(2)
            answer(model, inputs)
        truth["fused"] = scores
    return list(truth["fused"])


def difference(weights: Tensor, other: Tensor, inputs: dict[str, Any]) -> float | None:
    """The largest difference in rows that are no padding, or None where the shapes are not the same."""
    if weights.numel() != other.numel() or weights.shape[-1] != other.shape[-1]:
        return None
    if weights.shape == other.shape:  # a row that may see nothing is zero here, and uniform in some eager code
        uniform = other.amax(-1, keepdim=True) - other.amin(-1, keepdim=True) < 1e-6
        other = other.masked_fill(uniform & (weights.sum(-1, keepdim=True) == 0), 0.0)
    if other.ndim == 5:  # groups of tokens that attend apart, before or after the heads
        orders = [other.movedim(axis, -3).reshape(weights.shape) for axis in (1, 2)]
        return min(float((weights.double() - one.double()).abs().max()) for one in orders)
    error = (weights.double() - other.reshape(weights.shape).double()).abs()
    if weights.ndim == 4:
        error = error * reference.real_rows(weights, other.reshape(weights.shape), inputs)[:, None]
    return float(error.max()) if error.numel() else 0.0


def same_bits(a: Any, b: Any) -> bool:
    """Whether two outputs hold the same tensors, caches left out."""
    if isinstance(a, Tensor):
        return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, dict):
        return all(same_bits(a[name], b[name]) for name in a if "past" not in name and "cache" not in name)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    return True
