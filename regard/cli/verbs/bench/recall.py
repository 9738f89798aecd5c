"""`regard bench recall`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.arguments import numbers_in, writable
from regard.cli.printing import progress, result_of


def recall(
    mechanisms: Annotated[
        str | None, typer.Option(help="Mechanisms or text forms, separated by ;. Default: some of every kind.")
    ] = None,
    pairs: Annotated[str, typer.Option(help="Pairs to remember; a text has three tokens for each.")] = "4,8,16,32",
    beyond: Annotated[str, typer.Option(help="Pairs that are tested and never trained on.")] = "64",
    steps: Annotated[int, typer.Option(help="Steps of one training; one that has solved the task ends sooner.")] = 2400,
    minutes: Annotated[
        float | None, typer.Option(help="Longest training of one mechanism; a row says if this ended it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the model's start and its texts; another shows what chance does.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where each result is kept, to go on after an interruption.")] = Path(
        "out/recall"
    ),
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What each mechanism remembers: associative recall, trained from nothing, accuracy by length."""
    from regard.bench import recall, recall_plot
    from regard.bench.recall_task import DEFAULT

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = DEFAULT if mechanisms is None else [name.strip() for name in mechanisms.split(";") if name.strip()]
    trained, untrained = (numbers_in(text, name) or [] for text, name in ((pairs, "--pairs"), (beyond, "--beyond")))
    budget = recall.Budget(tuple(trained), tuple(untrained), steps, minutes, seed)
    result = recall.run(names, budget, folder, progress)
    if target is not None:
        recall_plot.plot(result, target)
    result_of(result, as_json, recall.table)
