"""`regard bench generation`."""

from __future__ import annotations

from typing import Annotated

import typer

from regard.cli.printing import progress, result_of


def generation(
    tokens: Annotated[int, typer.Option(help="How many tokens are written, one by one.", min=4)] = 4096,
    window: Annotated[int, typer.Option(help="How many of the first and of the last are compared.", min=1)] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What watching costs while a model writes token by token: whether a late token costs more than an early one."""
    from regard.bench import generation
    from regard.errors import UserError

    if 2 * window > tokens:
        raise UserError(f"--window {window} counts tokens twice of --tokens {tokens}; give at most {tokens // 2}")
    result_of(generation.run(tokens, window, progress), as_json, generation.table)
