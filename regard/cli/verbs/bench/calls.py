"""`regard bench calls`."""

from __future__ import annotations

from typing import Annotated

import typer

from regard.cli.printing import progress, result_of


def calls(
    rounds: Annotated[int, typer.Option(help="How often every call is measured.", min=1)] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What a call costs before and around its kernel: small calls, plans used again, steps on pages, watching."""
    from regard.bench import calls

    result_of(calls.run(rounds, progress), as_json, calls.table)
