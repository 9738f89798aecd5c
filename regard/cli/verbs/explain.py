"""`regard explain`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
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
    page: Annotated[
        Path | None,
        typer.Option(help="HTML file to write: a page that teaches, from the bottleneck to the Transformer, live."),
    ] = None,
) -> None:
    """Explain a mechanism: equation, source, cost, what it can attend to, and every step on a sentence.

    Without arguments: the catalogue, by family. --page FILE writes a page that teaches instead, on the sentence TEXT if
    it is given; it computes every mechanism, and the embedded models, on whatever is typed into it.
    """
    if page is not None:
        return _write_lesson(writable(page, (".html",)), name, text, out or ())
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


def _write_lesson(path: Path, name: str | None, text: str | None, out: Sequence[Path]) -> None:
    """The page that teaches. NAME is no mechanism here: where it is the only word given, it is the sentence."""
    from transformers.utils import logging

    from regard.cli.printing import progress
    from regard.hf.load import load
    from regard.lesson.page import SENTENCE, page
    from regard.seeing.trace import write_whole
    from regard.seq2seq.translate import opened

    if out or (name is not None and text is not None):
        raise UserError("--page FILE writes the page that teaches and takes a sentence only; leave out NAME and --out")
    logging.disable_progress_bar()
    tenths = set()

    def told(share: float) -> None:
        if int(10 * share) not in tenths:
            tenths.add(int(10 * share))
            progress(f"recording the catalogue: {10 * int(10 * share)} %")

    write_whole(path, page(load(), opened(None), text or name or SENTENCE, told=told))
    print(path)


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
