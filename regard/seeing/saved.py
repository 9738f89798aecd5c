"""A Trace as named tensors and a JSON text, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from regard.run.choose import observers
from regard.seeing import files
from regard.seeing.answer import Answer
from regard.seeing.files import STORE, TraceError
from regard.seeing.kept import Kept
from regard.seeing.store import Store
from regard.seeing.trace import About, Layer, Tokens, Trace
from regard.statistic import Axis

AXIS_PARTS = ("positions", "valid", "ids", "special")
TOKEN_FIELDS = ("text", "kind", "grid", "prompt", "seconds")
MEDIA_PARTS = ("picture", "wave", "spectrogram", "loss")
LAYER_FIELDS = ("name", "index", "kind", "stack", "heads", "query_axis", "key_axis", "undefined")


def save(trace: Trace, path: str | Path) -> None:
    """Write one safetensors file, whole or not at all. Raises TraceError if it cannot be written."""
    tensors: dict[str, Tensor] = {}
    for name, tokens in trace.axes.items():
        parts = {part: getattr(tokens.axis, part) for part in AXIS_PARTS}
        parts |= {part: getattr(tokens, part) for part in MEDIA_PARTS}
        tensors |= {f"axis/{name}/{part}": value for part, value in parts.items() if value is not None}
    stores: dict[str, Any] = {}
    for number, layer in enumerate(trace.layers):
        for label, results in layer.results.items():
            tensors |= {f"layer/{number}/result/{label}/{name}": value for name, value in results.items()}
        tensors |= {f"layer/{number}/summary/{label}": value for label, value in layer.summaries.items()}
        if layer.kept is not None and layer.kept.store.scorings:
            stores[str(number)], its = layer.kept.store.saved()
            tensors |= {f"{STORE}{number}/{name}": value for name, value in its.items()}
    header = {
        "model": trace.model,
        "made": trace.made,
        "answers": [answer.json() for answer in trace.answers],
        "statistics": {label: vars(about) for label, about in trace.statistics.items()},
        "axes": {n: {field: getattr(t, field) for field in TOKEN_FIELDS} for n, t in trace.axes.items()},
        "layers": [{name: getattr(layer, name) for name in LAYER_FIELDS} for layer in trace.layers],
    }
    files.save(path, tensors, json.dumps(header | ({"stores": stores} if stores else {})))


def load(path: str | Path) -> Trace:
    """Read a file that `save` wrote. Raises TraceError for any file that is not a whole Trace."""
    about, tensors = files.load(path)
    try:
        return _assembled(json.loads(about), tensors)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"{path} is a damaged Trace file ({error!r}); save it again") from None


def _assembled(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> Trace:
    axes = {}
    for name, about in header["axes"].items():
        parts = {part: tensors.get(f"axis/{name}/{part}") for part in AXIS_PARTS}
        grid = tuple(about["grid"]) if about["grid"] else None
        media: dict[str, Any] = {part: tensors.get(f"axis/{name}/{part}") for part in MEDIA_PARTS}
        media |= {part: about.get(part) for part in ("prompt", "seconds")}  # older files do not have them
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
    for number, about in header.get("stores", {}).items():
        start = f"{STORE}{number}/"
        its = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        layers[int(number)].kept = Kept(observers(), Store.read(about, its))
    statistics = {label: About.read(label, about) for label, about in header["statistics"].items()}
    answers = [Answer.read(each) for each in header.get("answers", ())]
    return Trace(header["model"], layers, axes, statistics, header["made"], answers=answers)
