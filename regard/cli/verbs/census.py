"""`regard census`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from regard.errors import UserError


def census(
    model: Annotated[str, typer.Argument(help="Directory or hub name of a causal language model, or default.")],
    corpus: Annotated[Path, typer.Argument(help="A text file, read a piece at a time.")],
    out: Annotated[Path, typer.Option(help="JSON file of the numbers; a census that was stopped goes on from it.")],
    window: Annotated[int, typer.Option(help="Tokens that the model sees at once.")] = 256,
    most: Annotated[int | None, typer.Option(help="Windows to stop after. Default: the whole corpus.")] = None,
    stat: Annotated[str, typer.Option(help="Statistic that the printed heads are sorted by.")] = "induction",
) -> None:
    """What each head of a model does over a whole corpus: mean, spread, and the windows where it was highest."""
    from regard.hf.census import census as run
    from regard.hf.census import plan
    from regard.hf.load import load

    if most is not None and most < 1:
        raise UserError(f"--most is at least 1, got {most}")
    of = plan(model, corpus, window)
    loaded = load(None if model == "default" else model)
    tally = run(loaded, corpus, of, out, most=most, told=_told)
    lines = [(key, numbers) for key, numbers in tally.numbers.items() if key[2] == stat]
    if not lines:
        labels = ", ".join(dict.fromkeys(key[2] for key in tally.numbers))
        raise UserError(f"{stat!r} was not tallied; there are: {labels}")
    lines.sort(key=lambda line: -line[1].mean)
    print(f"{stat} over {tally.inputs:,} windows of {window} tokens")
    for (layer, head, _), numbers in lines[:12]:
        best = ", ".join(f"{which} ({value:.3g})" for value, which in numbers.best)
        print(f"{layer} head {head}: mean {numbers.mean:.4g}, spread {numbers.spread:.3g}; highest in windows {best}")
    print(out)


def _told(windows: int, tokens: int) -> None:
    print(f"{windows:,} windows, {tokens:,} tokens", file=sys.stderr)
