"""`regard score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regard.cli.printing import result_of
from regard.errors import UserError


def score(
    hypotheses: Annotated[Path, typer.Argument(help="Translations, one a line.")],
    references: Annotated[Path, typer.Argument(help="What they should be.")],
    alignments: Annotated[
        Path | None, typer.Option(help="Links of the translations as i-j, one sentence a line.")
    ] = None,
    gold: Annotated[Path | None, typer.Option(help="Gold links: i-j sure, i?j possible.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score translations: sacreBLEU, chrF and, with alignments and gold ones, the alignment error rate."""
    from regard.seq2seq.corpus import lines
    from regard.seq2seq.score import aer_of_lines, scores

    if (alignments is None) != (gold is None):
        raise UserError("the alignment error rate takes both --alignments and --gold")
    found = scores(lines(hypotheses), lines(references))
    result: dict[str, Any] = {"BLEU": round(found.bleu, 2), "chrF": round(found.chrf, 2), "signature": found.signature}
    if alignments is not None and gold is not None:
        result["AER"] = round(aer_of_lines(lines(alignments), lines(gold)), 4)
    result_of(result, as_json, lambda found: [[name, str(value)] for name, value in found.items()])
