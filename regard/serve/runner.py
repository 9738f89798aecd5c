"""The runner: transformers' own model code over packed tokens and pages. The only file of serving that knows it.

A step's rows are one sequence [1, tokens] to the model, with their own positions; its attention goes to pages, where
each row sees its own sequence. A model is tried at start, pages and chunks against its own plain forward, and refused
by name when the two differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from regard.errors import UserError
from regard.hf.families import HARMLESS, SINKS
from regard.hf.masks import ModelMask, _cells
from regard.hf.seam import AttentionCall, Handler, handling
from regard.serve.fused import Fused, why_not
from regard.serve.linear import WEIGHTS, pack, packed_in, read_by_hand
from regard.serve.look import Looking, Wanted
from regard.serve.pages import Attends, Pages, StepLayout, write_and_attend
from regard.serve.pool import Copy, Group, Pool
from regard.serve.request import Request, Sampling, Stopping
from regard.serve.request import Sequence as Written
from regard.serve.scheduler import Work

KNOWN = HARMLESS | {"softcap", "is_causal", *SINKS}


@dataclass(frozen=True)
class Shape:
    """Query heads of a layer, and what it keeps per token: key-value heads and their widths; how far back it sees."""

    heads: int
    groups: int
    key_width: int
    value_width: int
    window: int | None

    def page_bytes(self, page_size: int, dtype: torch.dtype) -> int:
        """Bytes of one page of this layer."""
        return self.groups * (self.key_width + self.value_width) * page_size * dtype.itemsize


class Runner(Handler):
    """A model that computes steps. page_size: tokens of a page; dtype: of keys and values in pages."""

    masks: Literal["own", "described", "none"] = "described"

    def __init__(
        self,
        model: PreTrainedModel,
        page_size: int = 16,
        dtype: torch.dtype = torch.float32,
        weights: str = "stored",
        fuse: bool = True,
    ) -> None:
        self.model = model
        self.page_size = page_size
        self.dtype = dtype
        self.name = f"{type(model).__name__} ({model.config.model_type})"
        self.max_length = max_length_of(model)
        self.attends: dict[int, Attends] = {}
        self.shapes: dict[int, Shape] = {}
        self.layout: StepLayout | None = None
        self.pages = Pages({}, page_size, dtype)
        self.observer: Looking | None = None
        self.fused: Fused | None = None
        self.rounds = weights == "int8"
        _check(model, self.name)
        self.unfused = why_not(model) if fuse else "what it was told not to fuse"
        probe = _probe_ids(model)
        with torch.inference_mode(), read_by_hand(model) as read:
            plain = [model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in probe]
        self._attached = ExitStack()
        try:
            if self.unfused is not None:
                pack(model, WEIGHTS[weights], read)
            self._attached.enter_context(handling(model, self))
            self._try(probe, plain)
            if self.unfused is None:
                self.fused = Fused(model, list(self.attends.values()), WEIGHTS[weights])
                self._try(probe, plain)
        except Exception as error:
            self._attached.close()
            if self.name in str(error):
                raise
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(f"{self.name} does not run from pages, so it is not served ({said})") from error
        except BaseException:
            self._attached.close()
            raise

    def close(self) -> None:
        """Let go of the model; its linear layers stay packed."""
        self._attached.close()

    @property
    def vocabulary(self) -> int:
        """Number of logits of a row."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def how(self) -> str:
        """How steps are computed, in words."""
        return "fused layers" if self.unfused is None else f"transformers' own layers ({self.unfused} is not fused)"

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as they are held."""
        held = [p for p in self.model.parameters()] + [p.panels for p in packed_in(self.model)]
        if self.fused is not None:
            held += [p.panels for p in self.fused.products]
        return sum(x.numel() * x.element_size() for x in held)

    @property
    def num_heads(self) -> int:
        """Most query heads of a layer."""
        return max((shape.heads for shape in self.shapes.values()), default=0)

    @property
    def num_layers(self) -> int:
        """Layers with attention."""
        return len(self.shapes)

    # ---- pages -----------------------------------------------------------------------------------------------------

    def windows(self) -> list[int | None]:
        """How far back the groups of layers see, those without a window first."""
        found = {shape.window for shape in self.shapes.values()}
        return sorted(found, key=lambda window: (window is not None, window or 0))

    def pool(self, memory_bytes: int, token_budget: int, max_running: int, reuse: bool = True) -> Pool:
        """A pool of at most so many bytes, and its tensors. Layers with a window get the pages that max_running
        sequences can use at once, the others the rest."""
        windows = self.windows()
        costs = {w: 0 for w in windows}
        for shape in self.shapes.values():
            costs[shape.window] += shape.page_bytes(self.page_size, self.dtype)

        def pages_of(window: int | None, num_pages: int) -> int:
            if window is None or len(windows) == 1:
                return num_pages
            band = -(-window // self.page_size) + 2
            return min(num_pages, max_running * band + -(-token_budget // self.page_size))

        def bytes_of(num_pages: int) -> int:
            return sum(pages_of(w, num_pages) * cost for w, cost in costs.items())

        low, high = 0, memory_bytes // max(1, min(costs.values())) + 1
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if bytes_of(middle) <= memory_bytes else (low, middle)
        if low < 2:
            raise UserError(
                f"{memory_bytes / 2**20:.1f} MiB hold {low} pages of {self.page_size} tokens of {self.name}, at "
                f"{sum(costs.values()) / 1024:.0f} KiB each; give --memory more"
            )
        sizes = {w: pages_of(w, low) for w in windows}
        self.pages = Pages({w: (i, sizes[w]) for i, w in enumerate(windows)}, self.page_size, self.dtype)
        return Pool([Group(sizes[w], w) for w in windows], self.page_size, reuse)

    # ---- a step ----------------------------------------------------------------------------------------------------

    def run(
        self,
        work: Sequence[Work],
        copies: Sequence[Copy],
        keep: Tensor | None = None,
        wanted: Sequence[Wanted | None] = (),
    ) -> Tensor:
        """Logits float32 [kept rows, vocabulary] of a step; keep: rows, default all;
        wanted: of each work, the rows whose attention is to be seen."""
        ids = torch.tensor([token for w in work for token in _tokens_of(w)])
        self.pages.copy(copies)
        self.layout = StepLayout(work, self.page_size)
        looking = Looking(wanted, self.num_layers) if any(wanted) else None
        self.observer = looking
        try:
            with torch.inference_mode():
                if self.fused is not None:
                    logits = self.fused.run(ids, self.layout, keep, self.pages, looking)
                    if looking is not None:
                        looking.finish()
                    return logits
                out = self.model(
                    input_ids=ids[None],
                    attention_mask=torch.ones((1, len(ids)), dtype=torch.bool),
                    position_ids=self.layout.positions[None],
                    use_cache=False,
                    logits_to_keep=torch.arange(len(ids)) if keep is None else keep,
                )
        finally:
            self.layout = self.observer = None
        if looking is not None:
            looking.finish()
        return out.logits[0].float()

    def attend(self, call: AttentionCall) -> Tensor:
        """One attention module's call: q [1,H,T,D], k, v [1,G,T,D] -> [1,T,H,Dv]."""
        if self.layout is None:
            raise UserError(f"{self.name} is being served; load it again to call it by itself")
        how = self.attends.get(id(call.module))
        if how is None:
            how = self.attends[id(call.module)] = self._read(call)
        out = write_and_attend(call.query, call.key, call.value, how, self.layout, self.pages)
        if self.observer is not None:
            self.observer(call.query[0].transpose(0, 1), how, self.layout, self.pages)
        return out

    def _read(self, call: AttentionCall) -> Attends:
        """How this module attends, from its first call. Raises UserError for what pages cannot do."""
        q, k, v, mask, keywords = call.query, call.key, call.value, call.mask, call.keywords
        unknown = sorted(name for name, value in keywords.items() if value is not None and name not in KNOWN)
        if unknown:
            raise UserError(f"{self.name} passes {', '.join(unknown)} to its attention, which serving does not know")
        if keywords.get("is_causal") is False or not isinstance(mask, ModelMask):
            raise UserError(f"{self.name} attends without a causal mask, so it cannot be served from pages")
        window = _window(mask.question["mask_function"], self.name)
        layer = len(self.shapes)
        self.shapes[layer] = Shape(q.shape[1], k.shape[1], k.shape[3], v.shape[3], window)
        if window not in self.pages.groups:  # while it is tried, all layers share one group
            self.pages.groups[window] = (0, next(iter(self.pages.groups.values()))[1])
        scale = k.shape[3] ** -0.5 if call.scaling is None else float(call.scaling)
        sink = next((keywords[name] for name in SINKS if keywords.get(name) is not None), None)
        return Attends(layer, window, scale, keywords.get("softcap"), None if sink is None else sink.detach().float())

    # ---- trying ------------------------------------------------------------------------------------------------------

    def _try(self, probe: list[Tensor], plain: list[Tensor]) -> None:
        """The probes in float32 pages, in chunks side by side, against the model's plain forward."""
        windows = {None} | {shape.window for shape in self.shapes.values()}
        self.pages = Pages({window: (0, 16) for window in windows}, self.page_size, torch.float32)
        pool = Pool([Group(16)], self.page_size, reuse=False)
        written = [_written(ids, pool) for ids in probe]
        for w in written:
            pool.reserve(w.table, 0, len(w.tokens))
        lengths = [len(ids) for ids in probe]
        cuts = [[0, 3, 4, lengths[0]], [0, 2, lengths[1] - 1, lengths[1]]]
        found: list[list[Tensor]] = [[] for _ in probe]
        for i in range(3):
            work = [Work(w, cut[i], cut[i + 1]) for w, cut in zip(written, cuts)]
            logits = self.run(work, [])
            for parts, part in zip(found, logits.split([w.stop - w.start for w in work])):
                parts.append(part)
        for own, parts in zip(plain, found):
            scale, off = float(own.abs().max()), float((torch.cat(parts) - own).abs().max())
            if not off <= (0.5 if self.rounds else 2e-3) * max(1.0, scale):
                raise UserError(
                    f"{self.name} computes other logits from pages than alone (off by {off:.2g}, the largest is "
                    f"{scale:.2g}), so it is not served; its attention depends on more than position and window"
                )
        if not self.shapes:
            raise UserError(f"{self.name} computes no attention through transformers' interface, so it is not served")


def quiet() -> None:
    """Let transformers draw no progress bars and give no advice; for a process of our own."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _tokens_of(work: Work) -> list[int]:
    known = work.sequence.tokens[work.start : work.stop]
    return known + list(work.guesses) if work.guesses else known


def _written(ids: Tensor, pool: Pool) -> Written:
    request = Request("probe", tuple(ids.tolist()), Sampling(), Stopping(1))
    return Written(request, 0, (0.0, 0, 0), ids.tolist(), pool.table(), len(ids))


def _probe_ids(model: PreTrainedModel) -> list[Tensor]:
    vocabulary = model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(0, vocabulary, (length,), generator=draw) for length in (23, 17)]


def max_length_of(model: PreTrainedModel) -> int:
    """Positions that the model was made for."""
    config = model.config.get_text_config()
    written = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, Mapping))]
    for kind in kinds:
        # These change with the longest sequence of a forward, so they are the same for all only below that length.
        if kind.get("rope_type") in ("dynamic", "longrope"):
            original = kind.get("original_max_position_embeddings")
            written = min(written, original or getattr(config, "original_max_position_embeddings", None) or written)
    return int(written)


def _check(model: PreTrainedModel, name: str) -> None:
    """Raise UserError for what cannot be tried."""
    if model.config.is_encoder_decoder or not model.can_generate():
        raise UserError(f"{name} is not a causal language model, and serving writes text; give a decoder such as Llama")
    if not type(model)._can_set_attn_implementation():
        raise UserError(f"{name} computes its attention outside transformers' interface, so it cannot be served")
    takes = inspect.signature(model.forward).parameters
    for needed in ("position_ids", "logits_to_keep"):
        if needed not in takes:
            raise UserError(f"{name} takes no {needed}, so requests of different lengths cannot run side by side")


def _window(function: Any, name: str) -> int | None:
    """The window of a causal mask function of transformers, None without one. Raises UserError for other masks."""
    parts = [function]
    windows: list[int] = []
    while parts:
        part = parts.pop()
        match getattr(part, "__qualname__", "").split(".")[0]:
            case "and_masks":
                parts += _cells(part)["mask_functions"]
            case "causal_mask_function":
                pass
            case "sliding_window_overlay":
                windows.append(int(_cells(part)["sliding_window"]))
            case other:
                raise UserError(f"{name} masks its attention by {other}, which serving does not know")
    return min(windows) if windows else None
