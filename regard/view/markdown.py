"""A Trace's heads as a Markdown table, for notes, issues and reports."""

from __future__ import annotations

from regard.seeing.trace import Trace


def markdown(trace: Trace) -> str:
    """A table with a row for each head and a column for each statistic's one number, mean over the sequences.

    Columns are named by title and unit; "–" where a statistic means nothing in that layer.
    """
    known = [label for label in trace.statistics if any(label in layer.summaries for layer in trace.layers)]
    titles = [_title(trace, label) for label in known]
    lines = [_line(["layer", "head", *titles]), _line(["---", *["---:"] * (len(known) + 1)])]
    for layer in trace.layers:
        for index, head in enumerate(layer.heads):
            numbers = [
                f"{float(layer.summaries[label][:, index].mean()):.3g}" if label in layer.summaries else "–"
                for label in known
            ]
            lines.append(_line([layer.title, str(head), *numbers]))
    return "\n".join(lines) + "\n"


def _title(trace: Trace, label: str) -> str:
    about = trace.statistics[label]
    return f"{about.head_title or about.title or label} ({about.head_unit or about.unit})"


def _line(cells: list[str]) -> str:
    clean = (" ".join(cell.replace("\\", "\\\\").replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(clean)} |"
