"""The Trace: what seeing returns, and the only thing that pictures read.

It holds, for each attention layer, the finished statistics of every watched head, and the tokens of its axes. It
saves to one safetensors file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from regard.seeing.answer import Answer
from regard.seeing.drawn import Drawn
from regard.seeing.files import TraceError, write_whole
from regard.seeing.kept import Kept
from regard.seeing.later import Later
from regard.seeing.statistics import every
from regard.statistic import Axis, Statistic

__all__ = ["About", "Layer", "Tokens", "Trace", "TraceError", "write_whole"]

Results = dict[str, dict[str, Tensor]]
"""label -> name -> tensor, as each statistic's `finish` documents."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """What lies along an axis: text[b][t], and the axis as statistics saw it.

    kind: words for "text"; image patches (grid: rows × columns, one leading token may not be a patch), sound frames.
    prompt: slots before this one came with the input, those from it on were generated. picture: what the patches were
    cut from, uint8 [B, height, width, 3]; wave: the sound under the frames as lowest and highest sample of each bin,
    float32 [B, bins, 2], and its spectrogram, uint8 [B, bands, frames], low bands first, 255 the loudest; both are
    `seconds` long in all. loss: how little the model expected each token, -log p, float32 [B, T], NaN where none.
    """

    text: list[list[str]]
    axis: Axis
    kind: Literal["text", "patches", "frames"] = "text"
    grid: tuple[int, int] | None = None
    prompt: int | None = None
    seconds: float | None = None
    picture: Tensor | None = None
    wave: Tensor | None = None
    spectrogram: Tensor | None = None
    loss: Tensor | None = None


@dataclass(frozen=True)
class About:
    """What a statistic is, for legends: its name, formula, unit and the shape of its results.

    title: as pictures write it; head_title and head_unit: of its one number per head.
    """

    name: str
    formula: str
    unit: str
    shape: Literal["row", "key", "bins", "map", "top"]
    title: str = ""
    head_title: str = ""
    head_unit: str = ""

    @staticmethod
    def of(statistic: Statistic) -> About:
        return About(statistic.name, statistic.formula, statistic.unit, statistic.shape, *statistic.titles())

    @staticmethod
    def read(label: str, fields: Mapping[str, Any]) -> About:
        """From a file; the first version wrote no titles, and a statistic that is still here brings its own."""
        about = About(**fields)
        kind = every().get(about.name)
        if about.title or kind is None:
            return about
        return About.of(kind(of="norm" if label.endswith(":norm") else "weights"))


@dataclass(eq=False, repr=False)
class Layer(Later):
    """One attention module. kind: "self" or "cross"; stack: "decoder", "encoder", or a tower's name.

    heads: the watched heads, in the order of the results' head dimension. query_axis, key_axis: names in Trace.axes.
    results and summaries are by statistic label; summaries are float64 [B,H], one number per head. undefined says, by
    label, why a watched statistic means nothing here. kept: queries and keys, where they were kept. A layer that was
    watched finishes its statistics when one of the three is first read.
    """

    name: str
    index: int
    kind: Literal["self", "cross"]
    stack: str
    heads: list[int]
    query_axis: str
    key_axis: str
    results: Results = field(default_factory=dict)
    summaries: dict[str, Tensor] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    kept: Kept | None = None

    @property
    def title(self) -> str:
        """Short and unique in its trace, such as "decoder 3" or "decoder 3 cross"."""
        return f"{self.stack} {self.index}" + (" cross" if self.kind == "cross" else "")

    def __repr__(self) -> str:
        return f"Layer({self.title!r}, {len(self.heads)} heads, {', '.join(self.results) or 'nothing watched'})"

    def head_place(self, head: int) -> int:
        """Where a head lies in the results. Raises TraceError for a head that was not watched."""
        if head not in self.heads:
            raise TraceError(f"head {head} of layer {self.title!r} was not watched; watched: {_listed(self.heads)}")
        return self.heads.index(head)


@dataclass(eq=False, repr=False)
class Trace(Later, Drawn):
    """What was seen: `layers` in the order the model runs them, `axes` by name, `statistics` by label.

    made: how it came about (model class, backend, dtype, versions …), all JSON. earlier: Traces of sequences that
    went through the same `attach` before this one. answers: what the model's head said of each sequence, where `see`
    ran it. While a model is attached, what is read is as of its latest forward.
    """

    model: str = ""
    layers: list[Layer] = field(default_factory=list)
    axes: dict[str, Tokens] = field(default_factory=dict)
    statistics: dict[str, About] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    earlier: list[Trace] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def layer(self, index: int, kind: Literal["self", "cross"] = "self", stack: str | None = None) -> Layer:
        """The layer of a stack (by default the first one that matches). Raises TraceError naming what there is."""
        for layer in self.layers:
            if layer.index == index and layer.kind == kind and stack in (None, layer.stack):
                return layer
        there = ", ".join(layer.title for layer in self.layers) or "nothing"
        raise TraceError(
            f"no {kind}-attention layer {index}{f' in {stack}' if stack else ''} was watched; there is: {there}"
        )

    def heads(self, label: str) -> list[tuple[Layer, int, float]]:
        """(layer, head, number) of every head for a statistic, mean over the batch; layers where it is undefined are
        left out. Raises TraceError if it was not watched."""
        self._known(label)
        return [
            (layer, head, float(layer.summaries[label][:, index].mean()))
            for layer in self.layers
            if label in layer.summaries
            for index, head in enumerate(layer.heads)
        ]

    @property
    def batches(self) -> int:
        """How many sequences were seen together."""
        return max((tokens.axis.positions.shape[0] for tokens in self.axes.values()), default=1)

    @property
    def answer(self) -> Answer | None:
        """What the model's head said of the first sequence; None where nothing asked it (`attach`)."""
        return self.answers[0] if self.answers else None

    @property
    def tokens(self) -> dict[str, list[str]]:
        """The tokens of the first sequence along each axis, by the axis' name; `axes` holds those of the others."""
        return {name: list(tokens.text[0]) if tokens.text else [] for name, tokens in self.axes.items()}

    @overload
    def __getitem__(self, which: int) -> Layer: ...

    @overload
    def __getitem__(self, which: str) -> list[dict[str, Tensor]]: ...

    def __getitem__(self, which: int | str) -> Layer | list[dict[str, Tensor]]:
        """By a number, that layer, as `layer` gives it; by a label, the finished tensors of that statistic, one entry
        a layer (empty where it is undefined)."""
        if isinstance(which, int):
            return self.layer(which)
        self._known(which)
        return [layer.results.get(which, {}) for layer in self.layers]

    def _known(self, label: str) -> None:
        if label not in self.statistics:
            raise TraceError(f"{label!r} was not watched; watched: {', '.join(self.statistics) or 'nothing'}")

    def weights(
        self,
        layer: int | Layer,
        head: int,
        rows: slice = slice(None),
        keys: slice = slice(None),
        *,
        batch: int = 0,
    ) -> Tensor:
        """The exact weights [rows, keys] of a head: from the overview where a cell is one pair, else recomputed.

        Raises TraceError where neither is possible: watch with keep="qk" to ask for any rectangle later.
        """
        seen = self.layer(layer) if isinstance(layer, int) else layer
        index = seen.head_place(head)
        sizes = [self.axes[name].axis.length for name in (seen.query_axis, seen.key_axis)]
        count = self.axes[seen.query_axis].axis.positions.shape[0]
        if not 0 <= batch < count:
            raise TraceError(f"there is no sequence {batch}; there are {count}, counted from 0")
        if any(part.step not in (None, 1) for part in (rows, keys)):
            raise TraceError("a rectangle is whole rows and keys; index what it gives instead of giving a step")
        overview = seen.results.get("overview")
        if overview is not None and not overview["shifts"].any():
            return overview["mean"][batch, index, rows, keys]
        if seen.kept is None:
            raise TraceError(
                f"the exact weights of layer {seen.title!r} were not kept; "
                'attach with keep="qk", or ask for an overview as fine as the input is long'
            )
        begin_end = [slice(*part.indices(size)[:2]) for part, size in zip((rows, keys), sizes, strict=True)]
        axes = self.axes[seen.query_axis].axis, self.axes[seen.key_axis].axis
        return seen.kept.rectangle(batch, index, begin_end[0], begin_end[1], axes)

    def __repr__(self) -> str:
        lengths = ", ".join(f"{name} {tokens.axis.length}" for name, tokens in self.axes.items())
        return f"Trace({self.model!r}, {len(self.layers)} layers, tokens: {lengths or 'none'})"

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all: maps, statistics, and what keep="qk" kept."""
        from regard.seeing import saved

        saved.save(self, path)

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Read a file that `save` wrote; kept queries and keys are mapped, not read, so it may be larger than memory.

        Raises TraceError for any file that is not a whole Trace. What is mapped is not checked for damage.
        """
        from regard.seeing import saved

        return saved.load(path)


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)
