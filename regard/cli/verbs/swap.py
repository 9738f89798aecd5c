"""`regard swap`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli.arguments import numbers_in, writable
from regard.cli.printing import as_text, progress
from regard.errors import UserError

if TYPE_CHECKING:
    from regard.swap.records import Comparison


def swap(
    model: Annotated[str, typer.Argument(help="Directory or hub name of a causal language model; - for the embedded.")],
    mechanisms: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MECHANISM ...",
            help="Text forms such as 'window(256) | sinks(4)', or plans such as '0,1: causal; *: window(256)'.",
        ),
    ] = None,
    text: Annotated[Path | None, typer.Option(help="File of text to predict.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers to change, such as 0,3-5. Default: all.")] = None,
    heads: Annotated[str | None, typer.Option(help="Heads to change, such as 0,3-5. Default: all.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens in a row. Default: as many as fit, up to 1024.")] = None,
    blocks: Annotated[int | None, typer.Option(help="Rows of tokens to predict at most.")] = 16,
    backend: Annotated[str, typer.Option(help="What computes it: model, native, strips …")] = "model",
    budget_loss: Annotated[
        float | None,
        typer.Option(help="Choose where one MECHANISM goes, for at most so many bits per token; prints a plan."),
    ] = None,
    heal: Annotated[
        int | None, typer.Option(help="Train each MECHANISM for so many steps; rows before and after.")
    ] = None,
    heal_text: Annotated[Path | None, typer.Option(help="File of text to heal on; TEXT is held out.")] = None,
    heal_to: Annotated[
        Path | None, typer.Option(help="Directory for the healed models; a healing that it holds goes on.")
    ] = None,
    out: Annotated[list[Path] | None, typer.Option(help="File to write: html, png, svg, json. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Put another attention into a model you have, and say what it costs.

    The model's own attention and each MECHANISM side by side: bits per token, how far its predictions are from the
    model's own, the pairs it reads, its speed, its memory and its cache.
    """
    from transformers.utils import logging

    from regard.swap.compare import compare
    from regard.swap.report import lines

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name, given = None if model == "-" else model, mechanisms or []
    if budget_loss is not None:
        _choose(name, given, _text_of(text), budget_loss, context, blocks, as_json)
        return
    files = [writable(path, (".html", ".png", ".svg", ".json")) for path in out or ()]
    some_layers, some_heads = numbers_in(layers, "--layers"), numbers_in(heads, "--heads")
    predicted = _text_of(text)
    if heal is not None:
        comparison = _healed(name, given, predicted, heal, heal_text, heal_to, context, blocks, some_layers, some_heads)
    elif heal_text is not None or heal_to is not None:
        raise UserError("--heal-text and --heal-to say how to heal; give --heal with a number of steps")
    else:
        comparison = compare(
            name,
            given,
            predicted,
            layers=some_layers,
            heads=some_heads,
            context=context,
            blocks=blocks,
            backend=backend,
            report=progress,
        )
    for path in files:
        _write(path, comparison)
        print(f"wrote {path}", file=sys.stderr)
    print(as_text(comparison.json()) if as_json else "\n".join(lines(comparison)))


def _healed(
    model: str | None,
    mechanisms: list[str],
    text: str,
    steps: int,
    heal_text: Path | None,
    heal_to: Path | None,
    context: int | None,
    blocks: int | None,
    layers: list[int] | None,
    heads: list[int] | None,
) -> Comparison:
    from regard.swap.healing.compare import compare_healed
    from regard.swap.healing.recipe import Recipe

    if heal_text is None:
        raise UserError("healing trains on a text that is not the one predicted; give --heal-text FILE")
    recipe = Recipe(steps=steps, context=context)
    return compare_healed(
        model,
        mechanisms,
        text,
        _text_of(heal_text),
        recipe,
        layers=layers,
        heads=heads,
        context=context,
        blocks=blocks,
        folder=heal_to,
        report=progress,
    )


def _choose(
    model: str | None,
    mechanisms: list[str],
    text: str,
    budget: float,
    context: int | None,
    blocks: int | None,
    as_json: bool,
) -> None:
    """Print the plan that a budget allows: on standard output the text that swap takes, the figures beside it."""
    from regard.swap.choosing import choose_plan

    if len(mechanisms) != 1:
        raise UserError(f"--budget-loss chooses where one mechanism goes, and {len(mechanisms)} were given; give one")
    chosen = choose_plan(model, mechanisms[0], text, budget, context=context, blocks=blocks, report=progress)
    lost = chosen.bits - chosen.own
    progress(f"{chosen.taken:.0%} of heads for {lost:+.4f} bits per token ({chosen.own:.3f} → {chosen.bits:.3f})")
    print(as_text(chosen.json()) if as_json else chosen.plan)


def _text_of(path: Path | None) -> str:
    from regard.cli.reading import read_input

    if path is None:
        raise UserError("a comparison predicts a text; give --text FILE")
    return str(read_input(f"@{path}"))


def _write(path: Path, comparison: Comparison) -> None:
    from regard.seeing.trace import write_whole
    from regard.swap.page import html
    from regard.swap.plot import picture

    kind = path.suffix.lower()
    if kind == ".json":
        write_whole(path, as_text(comparison.json()))
    elif kind == ".html":
        write_whole(path, html(comparison))
    else:
        write_whole(path, picture(comparison, kind[1:]))
