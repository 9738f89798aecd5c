"""A Session: one attached model. It knows which tokens lie along which axis, and feeds each layer's watching."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.core import ranges
from regard.evaluate import weight_kind
from regard.hf.axes import Axes
from regard.hf.calls import Call, Unsupported, read, swapped
from regard.hf.modules import Place, output_projection, place_of, value_norms
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run.backend import PassedOver
from regard.run.choose import choose, observers
from regard.seeing.kept import Kept
from regard.seeing.trace import About, Layer, Trace
from regard.seeing.watching import Watching
from regard.statistic import Statistic, View


@dataclass(eq=False)
class Watched:
    """One attention module as called once per forward: its statistics, and how far along its sequence it is."""

    place: Place
    call_number: int
    heads: list[int]
    watching: Watching
    rows_seen: int = 0
    forward: int = -1
    last_key: Tensor | None = None
    view: View | None = None
    query_axis: str = ""
    key_axis: str = ""


class Session:
    """Everything about one `attach`. `trace` is filled when the block ends, or earlier by `refresh`."""

    def __init__(
        self,
        model: PreTrainedModel,
        statistics: tuple[Statistic, ...],
        *,
        layers: frozenset[int] | None,
        heads: list[int] | None,
        mechanism: Mechanism | None,
        backend: str,
        tokenizer: Any,
        keep: Literal["qk"] | None,
    ) -> None:
        self.model = model
        self.statistics = statistics
        self.layers = layers
        self.heads = heads
        self.keep = keep
        self.mechanism = mechanism
        self.backend = backend
        self.axes = Axes(model, tokenizer)
        self.places = {id(m): place_of(name, m, model) for name, m in model.named_modules() if name}
        self.watched: dict[tuple[int, int], Watched] = {}
        self.called: set[int] = set()
        self.problems: list[str] = []
        self.output_by: set[str] = set()
        self._passed_over: dict[PassedOver, set[str]] = {}  # for the output: in which layers
        self._calls: dict[int, int] = {}  # by module, in this forward
        self._rows: dict[str, tuple[str, slice]] = {}  # by stack: the axis and rows of its latest self-attention
        self._forward = 0
        self._depth = 0
        self.trace = Trace(model=Path(model.config.name_or_path or "").name or type(model).__name__)
        self.trace.refresh = self._fill

    # ---- forwards -----------------------------------------------------------------------------------------------

    def install_hooks(self) -> list[Callable[[], None]]:
        """Hooks that note token ids and where a forward begins and ends; returns what removes them."""
        handles = []
        for module in self.model.modules():
            if isinstance(module, PreTrainedModel):
                handles.append(module.register_forward_pre_hook(self._enters, with_kwargs=True, prepend=True))
                handles.append(module.register_forward_hook(self._leaves, always_call=True))
        return [handle.remove for handle in handles]

    @torch.compiler.disable
    def _enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._depth == 0:
            self._begin_forward()
        self._depth += 1
        assert isinstance(module, PreTrainedModel)
        self.axes.note_inputs(module, args, kwargs)

    @torch.compiler.disable
    def _leaves(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth = max(0, self._depth - 1)

    def _begin_forward(self) -> None:
        self._forward += 1
        self._calls.clear()
        self._rows.clear()

    # ---- output -------------------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """Whether the model's own attention function makes the output."""
        return self.mechanism is None and self.backend == "model"

    def compute(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        dropout: float,
        scaling: float | None,
        keywords: Mapping[str, Any],
    ) -> Tensor:
        """The output [B,Tq,H,Dv] by regard's own backends, with a swapped mechanism if there is one, and watched."""
        self.called.add(id(module))
        place = self.places[id(module)]
        if dropout:
            raise Unsupported(f"layer {place.name} drops attention weights (p={dropout}); call model.eval() first")
        call = self._swapped(read(module, place.name, query, key, value, mask, scaling, keywords))
        out = None
        if self._watches(place):
            grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
            own = self.backend in ("auto", *(observer.name for observer in observers(self.backend, query.device)))
            together = own and self.heads is None and not grad
            with _aside(query):
                out = self._absorb(module, place, _within_seen(call, place), together)
        if out is None:
            if self._depth == 0:
                self._begin_forward()
            x = self._inputs(place, call, call.v, *self._axes_of(module, place, call))
            choice = choose(call.mechanism, x, self.backend)
            self.output_by.add(choice.taken)
            for other in choice.passed_over:
                self._passed_over.setdefault(other, set()).add(place.name)
            out = choice.output()
        assert out.shape == (query.shape[0], query.shape[1], query.shape[2], value.shape[3])
        return out.to(query.dtype).transpose(1, 2).contiguous()

    def _swapped(self, call: Call) -> Call:
        if self.mechanism is None:
            return call
        if self.heads is not None and self.mechanism.tensors():
            raise Unsupported(f"{self.mechanism.name} holds tensors, so its heads cannot be watched apart; drop heads=")
        return replace(call, mechanism=swapped(call.mechanism, self.mechanism))

    # ---- watching -----------------------------------------------------------------------------------------------

    def observe(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        scaling: float | None,
        keywords: Mapping[str, Any],
    ) -> None:
        """Absorb one call of an attention module. Reads only; the output was made before."""
        self.called.add(id(module))
        place = self.places[id(module)]
        if self._watches(place):
            with _aside(query):
                call = read(module, place.name, query, key, value, mask, scaling, keywords)
                self._absorb(module, place, _within_seen(call, place), output=False)

    def _watches(self, place: Place) -> bool:
        recomputing = torch._C._current_graph_task_id() != -1  # gradient checkpointing calls it again in backward
        wanted = bool(self.statistics or self.keep) and (self.layers is None or place.index in self.layers)
        if wanted and not recomputing and self._depth == 0:
            self._begin_forward()
        return wanted and not recomputing

    def _absorb(self, module: nn.Module, place: Place, call: Call, output: bool) -> Tensor | None:
        """Feed one call to its layer's statistics; with output=True also what a fused backend made of it."""
        number = self._calls.get(id(module), 0)
        self._calls[id(module)] = number + 1
        watched = self.watched.get((id(module), number))
        if watched is not None and watched.rows_seen and self._starts_over(call, watched):
            self._archive()
            watched = None
        if watched is None:
            watched = self._new(module, place, number, call)
        query_axis, rows, key_axis = self._axes_of(module, place, call, watched)
        self._check_continues(watched, rows, call)
        heads = call.of_heads(watched.heads)
        x = self._inputs(place, heads, heads.v if output else None, query_axis, rows, key_axis)
        view = View(
            batch=call.q.shape[0],
            heads=len(watched.heads),
            query=self.axes.by_name[query_axis],
            key=self.axes.by_name[key_axis],
            same_axis=query_axis == key_axis,
            kind=weight_kind(heads.mechanism),
        )
        scale = self._value_norms(module, place, call, watched.heads)
        out = watched.watching.absorb(heads.mechanism, x, view, rows, call.first_key, scale)
        self._note_problems(place, call, view, rows)
        watched.rows_seen, watched.view = rows.stop, view
        watched.query_axis, watched.key_axis = query_axis, key_axis
        watched.last_key = call.k[:, :, -1].clone() if place.kind == "self" else None
        return out

    def _new(self, module: nn.Module, place: Place, number: int, call: Call) -> Watched:
        num_heads = call.q.shape[1]
        heads = list(range(num_heads)) if self.heads is None else self.heads
        outside = [head for head in heads if not 0 <= head < num_heads]
        if outside:
            raise Unsupported(f"layer {place.name} has heads 0 to {num_heads - 1}; head {outside[0]} was asked for")
        fused = observers(self.backend, call.q.device)
        kept = Kept(fused) if self.keep else None
        watched = Watched(place, number, heads, Watching(self.statistics, fused, kept))
        self.watched[(id(module), number)] = watched
        return watched

    def _starts_over(self, call: Call, watched: Watched) -> bool:
        if watched.place.kind == "cross":
            rows = self._rows.get(watched.place.stack)
            return rows is not None and rows[1].start == 0
        return call.first_query == 0 or (call.first_query is None and call.q.shape[2] == call.k.shape[2])

    def _axes_of(
        self, module: nn.Module, place: Place, call: Call, watched: Watched | None = None
    ) -> tuple[str, slice, str]:
        """(query axis, the rows of this call on it, key axis)."""
        if place.kind == "cross":
            return self._cross_axes(module, place, call)
        first = call.first_query
        if first is None:
            seen = 0 if watched is None else watched.rows_seen
            first = seen if call.k.shape[2] == seen + call.q.shape[2] else 0
        padding, documents = (None, None) if call.mask is None else (call.mask.padding(), call.mask.documents())
        name = self.axes.extend(module, place.stack, call.q, first, padding, documents, self._forward)
        rows = slice(first, first + call.q.shape[2])
        self._rows[place.stack] = (name, rows)
        if call.first_key + call.k.shape[2] == rows.stop:
            return name, rows, name
        return name, rows, self.axes.context(place.stack, call.k, None)

    def _cross_axes(self, module: nn.Module, place: Place, call: Call) -> tuple[str, slice, str]:
        flags = None
        if call.mask is not None and (padding := call.mask.padding()) is not None:
            flags = padding[:, : call.k.shape[2]]
        latest = self._rows.get(place.stack)
        if latest is None or latest[1].stop - latest[1].start != call.q.shape[2]:
            name = self.axes.extend(module, f"{place.stack} queries", call.q, 0, None, None, self._forward)
            latest = (name, slice(0, call.q.shape[2]))
        return latest[0], latest[1], self.axes.context(place.stack, call.k, flags)

    def _check_continues(self, watched: Watched, rows: slice, call: Call) -> None:
        name = watched.place.name
        if rows.start != watched.rows_seen:
            raise Unsupported(
                f"layer {name} was seen up to token {watched.rows_seen} and now receives token {rows.start}; attach "
                "before the first forward of a sequence, and do not crop its cache (as assisted decoding does)"
            )
        if watched.view is not None and watched.view.batch != call.q.shape[0]:
            raise Unsupported(f"the batch changed from {watched.view.batch} to {call.q.shape[0]} within one sequence")
        if watched.last_key is not None and rows.start > call.first_key:
            before = call.k[:, :, rows.start - call.first_key - 1]
            if not torch.allclose(before, watched.last_key, rtol=0.05, atol=1e-3 * float(before.abs().max())):
                raise Unsupported(
                    f"the cache of layer {name} was reordered or changed between tokens (beam search does this), so "
                    "its rows no longer belong together; generate without beams to watch"
                )

    def _inputs(
        self, place: Place, call: Call, v: Tensor | None, query_axis: str, rows: slice, key_axis: str
    ) -> Inputs:
        query, key = self.axes.by_name[query_axis], self.axes.by_name[key_axis]
        at = slice(call.first_key, call.first_key + call.k.shape[2])
        return Inputs(
            q=call.q,
            k=call.k,
            v=v,
            query_positions=query.positions[:, rows],
            key_positions=key.positions[:, at],
            allowed=call.allowed,
            layer=place.index,
        )

    def _value_norms(self, module: nn.Module, place: Place, call: Call, heads: list[int]) -> Tensor | None:
        if all(statistic.of == "weights" for statistic in self.statistics):
            return None
        num_heads, width = call.q.shape[1], call.v.shape[3]
        projection = output_projection(module, self.model, place.name, num_heads * width)
        if projection is None:
            raise Unsupported(
                f"layer {place.name} has no output projection that can be told for sure, so norm-weighted statistics "
                "cannot be computed there; use of='weights'"
            )
        return value_norms(call.v, projection, num_heads)[:, heads]

    def _note_problems(self, place: Place, call: Call, view: View, rows: slice) -> None:
        if not all(math.isfinite(float(t.sum(dtype=torch.float32))) for t in (call.q, call.k)):
            self.problems.append(f"layer {place.name} has NaN or infinite queries or keys; check the model's weights")
        empty = (call.allowed.counts() == 0).any(1) & view.query.valid[:, rows]
        if bool(empty.any()):
            row = rows.start + int(empty.any(0).nonzero()[0])
            self.problems.append(f"token {row} of layer {place.name} is not padding, yet it may attend to no key")

    # ---- the trace ----------------------------------------------------------------------------------------------

    def _archive(self) -> None:
        """Set the finished sequence aside; what follows belongs to a new one."""
        self._fill(self.trace)
        done = Trace(self.trace.model, self.trace.layers, self.trace.axes, self.trace.statistics, self.trace.made)
        self.trace.earlier.append(done)
        self.watched = {}
        self.axes.reset()

    def _fill(self, trace: Trace) -> None:
        """Finish every statistic as of now into the trace."""
        trace.statistics = {s.label: About.of(s) for s in self.statistics}
        trace.layers = [self._layer(watched) for watched in self.watched.values() if watched.view is not None]
        trace.axes = {name: self.axes.tokens(name) for name in self.axes.by_name}
        trace.made = self._made()

    def _layer(self, watched: Watched) -> Layer:
        assert watched.view is not None
        results, summaries = watched.watching.finish(watched.view)
        place = watched.place
        shared = sum(1 for _, number in self.watched if number) and len({key for key, _ in self.watched}) == 1
        return Layer(
            name=place.name,
            index=watched.call_number if shared else place.index,
            kind=place.kind,
            stack=place.stack,
            heads=watched.heads,
            query_axis=watched.query_axis,
            key_axis=watched.key_axis,
            results=results,
            summaries=summaries,
            undefined=dict(watched.watching.undefined),
            kept=watched.watching.kept,
        )

    def _made(self) -> dict[str, Any]:
        every = [watched.watching for watched in self.watched.values()]
        output_by = self.output_by.union(*(watching.output_by for watching in every))
        return {
            "model_class": type(self.model).__name__,
            "model_type": self.model.config.model_type,
            "output": "the model's own attention" if self.is_plain else ", ".join(sorted(output_by)) or self.backend,
            "passed_over": self._all_passed_over(),
            "mechanism": None if self.mechanism is None else self.mechanism.name,
            "watched_by": sorted({name for watching in every for name in watching.used}),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
            "not_reached": self.not_reached(),
            "problems": sorted(set(self.problems)),
        }

    def _all_passed_over(self) -> list[dict[str, Any]]:
        """Every backend that was not taken, for the output or the statistics of which layers, and why. All JSON."""
        statistics: dict[PassedOver, set[str]] = {}
        for watched in self.watched.values():
            for other in watched.watching.passed_over:
                statistics.setdefault(other, set()).add(watched.place.name)
        return [
            {"what": what, **vars(other), "layers": sorted(layers)}
            for what, found in (("output", self._passed_over), ("statistics", statistics))
            for other, layers in sorted(found.items())
        ]

    def not_reached(self) -> list[str]:
        """Names of attention-like modules that no call came from."""
        return [name for name, module in self._attention_modules() if id(module) not in self.called]

    def last_layer(self) -> int:
        """The highest index that a layer of this model has."""
        found = [self.places[id(module)].index for _, module in self._attention_modules()]
        # layers that share one module (ALBERT) are more than there are modules
        return max([*found, (getattr(self.model.config.get_text_config(), "num_hidden_layers", None) or 1) - 1])

    def _attention_modules(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self.model.named_modules():
            inner = any("Attention" in type(child).__name__ for child in module.children())
            if name and type(module).__name__.endswith("Attention") and not inner:
                yield name, module

    def close(self) -> None:
        """Finish the trace. Raises Unsupported if the model ran and none of its attention came by."""
        if self._forward and not self.called:
            raise Unsupported(
                f"{type(self.model).__name__} ran, but none of its attention went through transformers' interface"
            )
        self._fill(self.trace)
        self.trace.refresh = None


@contextmanager
def _aside(like: Tensor) -> Iterator[None]:
    """Where watching runs: no gradients, no autocast, and tensors that may be changed later."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield


def _within_seen(call: Call, place: Place) -> Call:
    """Without the slots of a static cache that no token has filled yet; the mask never shows them."""
    if call.first_query is None or place.kind == "cross":
        return call
    seen = call.first_query + call.q.shape[2] - call.first_key
    if not 0 < seen < call.k.shape[2] or call.allowed.hull()[1] > seen:
        return call
    allowed = ranges.Ranges(call.allowed.start.clamp(max=seen), call.allowed.stop.clamp(max=seen), seen)
    return replace(call, k=call.k[:, :, :seen], v=call.v[:, :, :seen], allowed=allowed)
