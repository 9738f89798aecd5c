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
    text: Annotated[Path | None, typer.Option(help="File of text that quality is measured on, beside recall.")] = None,
    passages: Annotated[Path | None, typer.Option(help="Lines of JSON, context and continuation (LAMBADA).")] = None,
    most: Annotated[int, typer.Option(help="How many passages.")] = 16,
    model: Annotated[str | None, typer.Option(help="Model for text and passages; by default the embedded one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Picture of quality against budget: .png or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What caches that keep less give back, what a window saves, what deciding costs, and what quality stays."""
    from regard.bench import swap as bench
    from regard.bench.swap import picture
    from regard.bench.swap.quality import Sources
    from regard.cli.reading import read_input

    wanted = [part.strip() for part in parts.split(",")]
    if out is not None:
        picture.check(out, wanted)
    words, lines = (None if path is None else str(read_input(f"@{path}")) for path in (text, passages))
    sources = Sources(words, lines, model, most)
    result = bench.run(wanted, context, budget, repeats, layers, sources, progress)
    if out is not None:
        picture.plot(result["quality"], out)
    result_of(result, as_json, bench.table)
