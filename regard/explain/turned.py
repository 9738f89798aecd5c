"""The other layout of matrices of pairs: keys run down and queries across, so that columns of weights sum to 1."""

from __future__ import annotations

from dataclasses import replace

from regard.explain.record import Explanation, Panel, Step

PAIRS = ("scores", "weights", "signed", "flags")


def turned(given: Explanation) -> Explanation:
    """The same explanation with every matrix of pairs turned; its numbers per token stay rows."""
    pattern = None if given.pattern is None else _step(given.pattern, False)
    return replace(given, steps=[_step(step, True) for step in given.steps], pattern=pattern)


def _step(step: Step, sums: bool) -> Step:
    panels = [_panel(panel, sums) if panel.kind in PAIRS else panel for panel in step.panels]
    if all(new is old for new, old in zip(panels, step.panels, strict=True)):
        return step
    said = "; ".join(part for part in (step.said, "keys down, queries across") if part)
    return replace(step, panels=panels, said=said)


def _panel(panel: Panel, sums: bool) -> Panel:
    columns = [list(column) for column in zip(*panel.values, strict=True)]
    rows = list(panel.columns)
    if sums and panel.kind in ("weights", "signed"):
        columns.append([sum(value or 0.0 for value in row) for row in panel.values])
        rows.append("sum")
    return replace(panel, rows=rows, columns=list(panel.rows), values=columns, turned=True)
