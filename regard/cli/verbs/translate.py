"""`regard translate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from regard.cli.printing import as_text, progress

SAMPLES = ("mardi 3 mai 1988", "vierhundertsiebenundzwanzig", "le vingt et un juin", "neuf mille quatre-vingt-douze")


def translate(
    model: Annotated[
        str | None, typer.Argument(help="Directory or hub name of a translator. Default: the embedded one.")
    ] = None,
    text: Annotated[
        str | None, typer.Argument(help="A sentence, @file or - (standard input), a sentence a line.")
    ] = None,
    beams: Annotated[int, typer.Option(help="Hypotheses kept per sentence; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Scores are divided by length to this power.")] = 1.0,
    longest: Annotated[int, typer.Option(help="Tokens written at most.")] = 128,
    align: Annotated[bool, typer.Option("--align", help="Also which word looked at which, and as i-j.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line a sentence.")] = False,
) -> None:
    """Translate a sentence, a file or standard input.

    Without arguments: the embedded translator of dates and numbers (French and German in words to English) on some of
    its own. A single argument with a space in it, @file or - is TEXT for the embedded translator.
    """
    from transformers.utils import logging

    from regard.seq2seq.alignments import pharaoh
    from regard.seq2seq.beam import Search
    from regard.seq2seq.heat import heat_map
    from regard.seq2seq.translate import translations

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    search = Search(beams, length_penalty, longest)
    model, text = _alone(model, text)
    sentences = list(SAMPLES) if model is None and text is None else _sentences(text)
    for made in translations(model, sentences, search, align=align, note=progress):
        if as_json:
            print(as_text(made.json()))
            continue
        print(made.text)
        if align:
            print(pharaoh(made.links()), heat_map(made), sep="\n")


def _alone(model: str | None, text: str | None) -> tuple[str | None, str | None]:
    """A single word is a model, unless it can only be text."""
    if model is not None and text is None and (" " in model.strip() or model == "-" or model.startswith("@")):
        return None, model
    return model, text


def _sentences(text: str | None) -> list[str]:
    from regard.seq2seq.corpus import lines

    if text is None or text == "-":
        return [line.rstrip("\n") for line in sys.stdin]
    return lines(Path(text[1:])) if text.startswith("@") else [text]
