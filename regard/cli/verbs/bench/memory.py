"""`regard bench memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.arguments import numbers_in, writable
from regard.cli.printing import progress, result_of


def memory(
    mechanisms: Annotated[
        str | None, typer.Option(help="Mechanisms, separated by ;. Default: all that claim linear memory.")
    ] = None,
    tokens: Annotated[str, typer.Option(help="Input lengths.")] = "2048,8192,32768",
    seconds: Annotated[float, typer.Option(help="Longest time of one measurement.")] = 600.0,
    backward: Annotated[bool, typer.Option("--backward", help="Forward and backward.")] = False,
    folder: Annotated[Path, typer.Option(help="Where each result is kept, to go on after an interruption.")] = Path(
        "out/memory"
    ),
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """How the memory of a mechanism grows with the tokens: the peak of one call, in a process of its own."""
    from regard.bench import memory, memory_plot

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = memory.claiming() if mechanisms is None else [name.strip() for name in mechanisms.split(";")]
    lengths = numbers_in(tokens, "--tokens") or []
    result = memory.run(names, lengths, folder, seconds, backward, progress)
    if target is not None:
        memory_plot.plot(result, target)
    result_of(result, as_json, memory.table)
