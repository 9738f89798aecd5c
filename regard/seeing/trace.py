"""The Trace: what seeing returns, and the only thing that pictures read.

It holds, for each attention layer, the finished statistics of every watched head, and the tokens of its axes. It
saves to one safetensors file whose header carries the rest as JSON.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

from torch import Tensor

from regard.errors import UserError
from regard.seeing.drawn import Drawn
from regard.statistic import Axis, Statistic

FORMAT = "regard trace 1"
NO_CHECKSUM = "00000000"

AXIS_PARTS = ("positions", "valid", "ids", "special")
MEDIA_PARTS = ("picture", "wave")
LAYER_FIELDS = ("name", "index", "kind", "stack", "heads", "query_axis", "key_axis", "undefined")

Results = dict[str, dict[str, Tensor]]
"""label -> name -> tensor, as each statistic's `finish` documents."""


class TraceError(UserError):
    """A Trace cannot answer or cannot be read; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """What lies along an axis: text[b][t], and the axis as statistics saw it.

    kind: words for "text"; image patches (grid: rows × columns, one leading token may not be a patch), sound frames.
    prompt: slots before this one came with the input, those from it on were generated. picture: what the patches were
    cut from, uint8 [B, height, width, 3]; wave: the sound under the frames as lowest and highest sample of each bin,
    float32 [B, bins, 2], `seconds` long in all.
    """

    text: list[list[str]]
    axis: Axis
    kind: Literal["text", "patches", "frames"] = "text"
    grid: tuple[int, int] | None = None
    prompt: int | None = None
    seconds: float | None = None
    picture: Tensor | None = None
    wave: Tensor | None = None

    def about(self) -> dict[str, Any]:
        """What a file's header says of it; the tensors are saved beside."""
        return {name: getattr(self, name) for name in ("text", "kind", "grid", "prompt", "seconds")}


@dataclass(frozen=True)
class About:
    """What a statistic is, for legends: its standard name, formula, unit and the shape of its results."""

    name: str
    formula: str
    unit: str
    shape: Literal["row", "key", "bins", "map", "top"]

    @staticmethod
    def of(statistic: Statistic) -> About:
        return About(statistic.name, statistic.formula, statistic.unit, statistic.shape)


@dataclass(eq=False, repr=False)
class Layer:
    """One attention module. kind: "self" or "cross"; stack: "decoder", "encoder", or a tower's name.

    heads: the watched heads, in the order of the results' head dimension. query_axis, key_axis: names in Trace.axes.
    results and summaries are by statistic label; summaries are float64 [B,H], one number per head. undefined says, by
    label, why a watched statistic means nothing here. rectangle, where kept, computes exact weights.
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
    rectangle: Callable[[int, int, slice, slice], Tensor] | None = None

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
class Trace(Drawn):
    """What was seen: `layers` in the order the model runs them, `axes` by name, `statistics` by label.

    made: how it came about (model class, backend, dtype, versions …), all JSON. earlier: Traces of sequences that
    went through the same `attach` before this one.
    """

    model: str = ""
    layers: list[Layer] = field(default_factory=list)
    axes: dict[str, Tokens] = field(default_factory=dict)
    statistics: dict[str, About] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    earlier: list[Trace] = field(default_factory=list)
    refresh: Callable[[Trace], None] | None = None  # while attached: finishes the statistics as of now

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
            (layer, head, float(layer.summaries[label][:, place].mean()))
            for layer in self.layers
            if label in layer.summaries
            for place, head in enumerate(layer.heads)
        ]

    @property
    def batches(self) -> int:
        """How many sequences were seen together."""
        return max((tokens.axis.positions.shape[0] for tokens in self.axes.values()), default=1)

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
        if self.refresh is not None:
            self.refresh(self)
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
        found = self.layer(layer) if isinstance(layer, int) else layer
        place = found.head_place(head)
        sizes = [self.axes[name].axis.length for name in (found.query_axis, found.key_axis)]
        count = self.axes[found.query_axis].axis.positions.shape[0]
        if not 0 <= batch < count:
            raise TraceError(f"there is no sequence {batch}; there are {count}, counted from 0")
        if any(part.step not in (None, 1) for part in (rows, keys)):
            raise TraceError("a rectangle is whole rows and keys; index what it gives instead of giving a step")
        overview = found.results.get("overview")
        if overview is not None and not overview["shifts"].any():
            return overview["mean"][batch, place, rows, keys]
        if found.rectangle is None:
            raise TraceError(
                f"the exact weights of layer {found.title!r} were not kept; "
                'attach with keep="qk", or ask for an overview as fine as the input is long'
            )
        begin_end = [slice(*part.indices(size)) for part, size in zip((rows, keys), sizes, strict=True)]
        return found.rectangle(batch, place, *begin_end)

    def __repr__(self) -> str:
        lengths = ", ".join(f"{name} {tokens.axis.length}" for name, tokens in self.axes.items())
        return f"Trace({self.model!r}, {len(self.layers)} layers, tokens: {lengths or 'none'})"

    # ---- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all. Rectangles are not saved; maps and statistics are."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        for name, tokens in self.axes.items():
            parts = {part: getattr(tokens.axis, part) for part in AXIS_PARTS}
            parts |= {part: getattr(tokens, part) for part in MEDIA_PARTS}
            tensors |= {f"axis/{name}/{part}": value for part, value in parts.items() if value is not None}
        for number, layer in enumerate(self.layers):
            for label, results in layer.results.items():
                tensors |= {f"layer/{number}/result/{label}/{name}": value for name, value in results.items()}
            tensors |= {f"layer/{number}/summary/{label}": value for label, value in layer.summaries.items()}
        apart = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
        header = {"format": FORMAT, "checksum": NO_CHECKSUM, "trace": json.dumps(self._header())}
        content = save(apart, metadata=header)
        write_whole(path, content.replace(_quoted(NO_CHECKSUM), _quoted(_checksum(BytesIO(content), NO_CHECKSUM)), 1))

    def _header(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "made": self.made,
            "statistics": {label: vars(about) for label, about in self.statistics.items()},
            "axes": {name: tokens.about() for name, tokens in self.axes.items()},
            "layers": [{name: getattr(layer, name) for name in LAYER_FIELDS} for layer in self.layers],
        }

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Read a file that `save` wrote. Raises TraceError for any file that is not a whole Trace."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file, open(path, "rb") as raw:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise TraceError(
                        f"{path} is no Trace of this version ({FORMAT!r}); give a file that Trace.save wrote"
                    )
                checksum = metadata.get("checksum", NO_CHECKSUM)
                if checksum != _checksum(raw, checksum):
                    raise TraceError(f"{path} was changed or damaged after it was saved; save it again")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except FileNotFoundError:
            raise TraceError(f"there is no Trace file {path}; give one that Trace.save wrote") from None
        except TraceError:
            raise
        except (SafetensorError, OSError, ValueError) as error:
            raise TraceError(f"{path} is not a whole Trace file ({_one_line(error)}); save it again") from None
        try:
            return _assembled(json.loads(metadata["trace"]), tensors)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(f"{path} is a damaged Trace file ({error!r}); save it again") from None


def _checksum(file: BinaryIO, written: str) -> str:
    """crc32 of a safetensors file in which NO_CHECKSUM stands in place of the written checksum."""
    size = file.read(8)
    header = file.read(int.from_bytes(size, "little"))
    found = zlib.crc32(size + header.replace(_quoted(written), _quoted(NO_CHECKSUM), 1))
    while chunk := file.read(1 << 20):
        found = zlib.crc32(chunk, found)
    return f"{found:08x}"


def _quoted(checksum: str) -> bytes:
    return f'"checksum":"{checksum}"'.encode()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _assembled(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> Trace:
    axes = {}
    for name, about in header["axes"].items():
        parts = {part: tensors.get(f"axis/{name}/{part}") for part in AXIS_PARTS}
        grid = tuple(about["grid"]) if about["grid"] else None
        media: dict[str, Any] = {part: tensors.get(f"axis/{name}/{part}") for part in MEDIA_PARTS}
        media |= {part: about.get(part) for part in ("prompt", "seconds")}  # files of 2026 may lack them
        axes[name] = Tokens(about["text"], Axis(**parts), about["kind"], grid, **media)  # type: ignore[arg-type]
    layers = [Layer(**fields) for fields in header["layers"]]
    for path, value in tensors.items():
        kind, number, rest = path.split("/", 2)
        if kind != "layer":
            continue
        what, label = rest.split("/", 1)
        if what == "result":
            label, name = label.rsplit("/", 1)
            layers[int(number)].results.setdefault(label, {})[name] = value
        else:
            layers[int(number)].summaries[label] = value
    statistics = {label: About(**about) for label, about in header["statistics"].items()}
    return Trace(header["model"], layers, axes, statistics, header["made"])


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all: to a temporary neighbour, then renamed. Raises TraceError if it cannot."""
    target = Path(path)
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".regard.", delete=False) as file:
            temporary = file.name
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, "it is read-only")
        os.replace(temporary, target)
        temporary = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TraceError(f"cannot write {target}: {reason}; choose another path") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)
