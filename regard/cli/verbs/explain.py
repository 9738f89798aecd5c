"""`regard explain`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli.arguments import writable
from regard.cli.printing import as_text
from regard.errors import UserError

if TYPE_CHECKING:
    from regard.explain import Explanation


def explain(
    name: Annotated[
        str | None,
        typer.Argument(help='Its name, author, paper or model; or a text form: "causal & window(4) | sinks(1)".'),
    ] = None,
    text: Annotated[str | None, typer.Argument(help="The words of the worked example.")] = None,
    out: Annotated[list[Path] | None, typer.Option(help="File to write: html, png, svg or json. Repeatable.")] = None,
    keys_down: Annotated[
        bool, typer.Option("--keys-down", help="Keys down and queries across: columns of weights sum to 1.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation, or the catalogue, as JSON.")] = False,
) -> None:
    """Explain a mechanism: equation, source, cost, what it can attend to, and every step on a sentence.

    Without arguments: the catalogue, by family.
    """
    from regard.explain import build, terminal
    from regard.explain.turned import turned

    files = [writable(path, (".html", ".png", ".svg", ".json")) for path in out or ()]
    if name is None:
        if files:
            raise UserError("there is nothing to write without a NAME; say which mechanism to explain")
        found = {family: dict(entries) for family, entries in build.listing()}
        print(as_text(found)) if as_json else terminal.catalogue()
        return
    made = build.explain(name, build.SENTENCE if text is None else text)
    made = turned(made) if keys_down else made
    print(as_text(made.json())) if as_json else terminal.show(made)
    for path in files:
        _write_explanation(path, made)
        print(path, file=sys.stderr if as_json else sys.stdout)


def _write_explanation(path: Path, made: Explanation) -> None:
    from regard.explain.image import image
    from regard.explain.page import html
    from regard.seeing.trace import write_whole

    kind = path.suffix.lower()
    if kind == ".html":
        write_whole(path, html(made))
    elif kind == ".json":
        write_whole(path, json.dumps(made.json()))
    else:
        write_whole(path, image(made, kind[1:]))
