"""`regard bench attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.arguments import writable
from regard.cli.printing import progress, result_of


def attention(
    cases: Annotated[
        str | None,
        typer.Option(help="Cases, or how their names begin, such as causal,decode; or all. Default: the short ones."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Most turns of each case; medians of ratios are reported.")] = 7,
    memory: Annotated[bool, typer.Option("--memory", help="Also each contestant's peak in its own process.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot over lengths to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Every backend against torch SDPA, compiled FlexAttention and the eager form, checked before it is timed."""
    from regard.bench import attention as bench

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = None if cases is None else [name.strip() for name in cases.split(",")]
    drawn = target is not None
    result = bench.run(names, repeats, memory or drawn, drawn, progress)
    if target is not None:
        bench.plot(result, target)
    result_of(result, as_json, bench.table)
