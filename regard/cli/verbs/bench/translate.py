"""`regard bench translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.arguments import writable
from regard.cli.printing import progress, result_of
from regard.errors import UserError


def translate(
    text: Annotated[list[Path], typer.Option(help="Parallel text to score on; repeat for its two files.")],
    models: Annotated[
        list[str] | None, typer.Argument(help="Directories of translators that regard train made.")
    ] = None,
    beams: Annotated[int, typer.Option(help="Hypotheses kept per sentence.")] = 5,
    join: Annotated[int, typer.Option(help="Also join neighbouring sentences, up to so many.")] = 1,
    time_it: Annotated[
        bool, typer.Option("--speed", help="Time the first model against transformers and CTranslate2.")
    ] = False,
    training: Annotated[
        bool,
        typer.Option("--training", help="Time training steps of a GRU against plain torch; no MODELS."),
    ] = False,
    batch: Annotated[int, typer.Option(help="Sentences of a batch that is timed.")] = 32,
    plot: Annotated[Path | None, typer.Option(help="Write BLEU against length to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """How good translators are, overall and by the length of the source; with and without attention side by side."""
    from transformers.utils import logging

    from regard.bench import translate as bench
    from regard.seq2seq.beam import Search
    from regard.seq2seq.corpus import pairs

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    target = None if plot is None else writable(plot, (".png", ".svg"))
    search, found = Search(beams), bench.joined(pairs(text), join)
    if training:
        from regard.bench.translate_training import training as compared
        from regard.seq2seq.recipe import Recipe

        timed = compared(found, Recipe(preset="bahdanau", dropout=0.2, vocabulary=6000, tokens=3072), 4, 3)
        result_of(timed, as_json, lambda given: [[name, str(value)] for name, value in given.items()])
        return
    if not models:
        raise UserError("name at least one directory of a translator, or --training to compare training steps")
    if time_it:
        from regard.bench.translate_speed import speed

        timed = speed(models[0], found.source, search, batch, 3)
        result_of(timed, as_json, lambda given: [[name, str(value)] for name, value in given.items()])
        return
    rows = bench.quality(models, found, search, progress)
    if target is not None:
        bench.plot(rows, target)
    result_of({"models": rows}, as_json, lambda given: bench.table(given["models"]))
