"""A Trace's numbers as a table for pandas."""

from __future__ import annotations

from typing import Any

from regard.seeing.trace import Trace
from regard.view.extras import needed


def frame(trace: Trace) -> Any:
    """A DataFrame with a row for each (layer, head, sequence): its numbers by statistic, NaN where one is undefined.

    Columns: layer (its number), stack, kind, module, head, batch, then the labels. Raises ImportError without pandas.
    """
    pandas = needed("pandas", "a table of a Trace")
    rows = [
        {"layer": layer.index, "stack": layer.stack, "kind": layer.kind, "module": layer.name, "head": head}
        | {"batch": batch}
        | {label: float(numbers[batch, place]) for label, numbers in layer.summaries.items()}
        for layer in trace.layers
        for place, head in enumerate(layer.heads)
        for batch in range(trace.batches)
    ]
    labels = [label for label in trace.statistics if any(label in layer.summaries for layer in trace.layers)]
    return pandas.DataFrame(rows, columns=["layer", "stack", "kind", "module", "head", "batch", *labels])
