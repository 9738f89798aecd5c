"""`regard bench see`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.arguments import numbers_in, writable
from regard.cli.printing import progress, result_of


def see(
    tokens: Annotated[str, typer.Option(help="Input lengths, such as 1024,4096.")] = "1024,4096",
    repeats: Annotated[int, typer.Option(help="Times each is measured; medians are reported.")] = 3,
    backend: Annotated[str, typer.Option(help="What computes the watched model's output.")] = "model",
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What watching every layer and head costs, against plain sdpa and against eager attention with its weights."""
    from regard.bench import see as bench

    target = None if plot is None else writable(plot, (".png", ".svg"))
    result = bench.run(numbers_in(tokens, "--tokens") or [], repeats, backend, progress)
    if target is not None:
        bench.plot(result, target)
    result_of(result, as_json, bench.table)
