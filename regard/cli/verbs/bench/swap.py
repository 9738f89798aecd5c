"""`regard bench swap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.printing import progress, result_of


def swap(
    parts: Annotated[str, typer.Option(help="What to measure: cache, window, statistics, quality.")] = "cache,window",
    context: Annotated[int, typer.Option(help="Tokens in the filled cache.")] = 32768,
    budget: Annotated[float, typer.Option(help="Share of the cache that policies keep.")] = 0.125,
    repeats: Annotated[int, typer.Option(help="Times each is measured; medians are reported.")] = 5,
    layers: Annotated[int, typer.Option(help="Layers of the model whose window is measured.")] = 12,
    text: Annotated[Path | None, typer.Option(help="File of text that quality is measured on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What caches that keep less give back, what a window saves, what deciding costs, and what quality stays."""
    from regard.bench import swap as bench
    from regard.cli.reading import read_input

    words = None if text is None else str(read_input(f"@{text}"))
    result = bench.run([part.strip() for part in parts.split(",")], context, budget, repeats, layers, words, progress)
    result_of(result, as_json, bench.table)
