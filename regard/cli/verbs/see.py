"""`regard see`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard.cli.arguments import layer_heads, numbers_in, one_of, writable
from regard.cli.asked import Asked, Fresh, Saved, asked
from regard.cli.files import FORMATS, SHAPES, write
from regard.cli.printing import as_text
from regard.cli.reading import read_input
from regard.cli.told import numbers, verbose_lines
from regard.errors import UserError

if TYPE_CHECKING:
    from regard.seeing.trace import Trace


def see(
    model: Annotated[str | None, typer.Argument(help="Directory or hub name of a transformers model.")] = None,
    given: Annotated[
        str | None, typer.Argument(metavar="[INPUT]", help="A text, @file, - (standard input), an image or a wav file.")
    ] = None,
    other: Annotated[str | None, typer.Argument(help="A second input, model or Trace, to compare.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers to watch, such as 0,3-5. Default: all.")] = None,
    heads: Annotated[str | None, typer.Option(help="Heads to watch, such as 0,3-5. Default: all.")] = None,
    stat: Annotated[str | None, typer.Option(help="Statistic that colours the heads, such as entropy.")] = None,
    head: Annotated[str | None, typer.Option(help="Heads to draw, as layer.head,… Default: a telling one.")] = None,
    words: Annotated[bool, typer.Option("--words", help="Whole words: pieces summed and averaged.")] = False,
    shape: Annotated[str, typer.Option(help="What png and svg draw: heads, maps (of all heads) or lines.")] = "heads",
    norm: Annotated[bool, typer.Option("--norm", help="Also weigh each link by the length of v_j W_O.")] = False,
    resolution: Annotated[int, typer.Option(help="Cells along each side of the overview maps.")] = 128,
    top: Annotated[int, typer.Option(help="Strongest links kept per row.")] = 8,
    target: Annotated[str | None, typer.Option(help="Target text of an encoder-decoder.")] = None,
    example: Annotated[
        str | None, typer.Option(help="An embedded example: its model on its input, or on the INPUT.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="Of a model that finds its answer in the INPUT.")] = None,
    batch: Annotated[
        Path | None, typer.Option(help="File of inputs, one a line, to answer into --out (jsonl, json or tsv).")
    ] = None,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate, watched, after the input.")] = 0,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut a text at the model's last position.")] = False,
    backend: Annotated[str, typer.Option(help="What computes the output: model, native, strips …")] = "model",
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File to write: html, png, svg, pdf, csv, json, md, safetensors. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers of all heads as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say what of the model can be seen, and why not the rest; no input.")
    ] = False,
    faithful: Annotated[
        bool,
        typer.Option("--faithful", help="Does what is looked at matter? Hide it; each line of the text is an input."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what computed what, and what was left out.")] = False,
    viewer: Annotated[
        bool, typer.Option("--open", help="Open the viewer: a local page with every exact weight.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address that the viewer listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the viewer; 0 takes a free one.")] = 0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that the viewer is reached by, as through a proxy. Repeatable."),
    ] = None,
) -> None:
    """Show what a model's attention looks at.

    Without arguments: the embedded model on a sentence. A single argument with a space in it is an INPUT for the
    embedded model. A Trace that --out wrote (*.safetensors) can be given as MODEL, to look at it again, and a second
    one to compare with. MODEL is run offline where it is a directory or was downloaded before; otherwise its files are
    fetched from the hub, once.
    """
    if example is not None:
        model, given = _example(example, model, given)
    if check:
        _check(model)
        return
    if faithful:
        _faithful(asked(model, given, other), out or [], as_json)
        return
    if batch is not None:
        said = {"question": question, "target": target, "max_new_tokens": new_tokens, "truncate": truncate}
        _answer_file(model, given, batch, out or [], said)
        return
    if question is not None and given is None:
        raise UserError("--question asks about a text: regard see MODEL TEXT --question QUESTION")
    files = [writable(path, FORMATS) for path in out or ()]
    wanted, where = asked(model, given, other), layer_heads(head)
    one_of(shape, SHAPES, "--shape")
    if not 0 <= port <= 65535:
        raise UserError(f"--port lies in 0 … 65535, got {port}")
    if not as_json:
        from regard.view.extras import needed

        needed("rich", "drawing in the terminal")
    options: dict[str, Any] = {
        "layers": numbers_in(layers, "--layers"),
        "heads": numbers_in(heads, "--heads"),
        "backend": backend,
        "target": target,
        "question": question,
        "max_new_tokens": new_tokens,
        "truncate": truncate,
        "keep": "qk" if words else None,
    }
    traces = _traces(wanted, norm, resolution, top, options, deep=viewer)
    traces = [trace.words() for trace in traces] if words else traces
    picked = [_checked(traces, head) for head in where]
    for trace in traces if stat is not None else ():
        trace.heads(stat or "")
    written = [name for path in files for name in write(path, traces, stat, picked, shape)]
    for note in (note for trace in traces for note in trace.made.get("notes", ())):
        print(note, file=sys.stderr)
    _show(traces, stat, picked[0] if picked else None, as_json, verbose)
    for name in written:
        print(name, file=sys.stderr if as_json else sys.stdout)
    if viewer:
        from regard.view.opened import open_traces

        named = [(each.name, trace) for each, trace in zip(wanted, traces, strict=True)]
        open_traces(named, host=host, port=port, allow_hosts=allow_host or (), statistic=stat)


def _quiet() -> None:
    """Of transformers only errors are heard."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    warnings.simplefilter("ignore")


def _check(model: str | None) -> None:
    from regard.hf.check import said
    from regard.hf.load import load

    _quiet()
    for line in said(load(model).model):
        print(line)


def _example(name: str, given: str | None, more: str | None) -> tuple[str, str]:
    from regard.cli.examples import example

    folder, own = example(name)
    if more is not None:
        raise UserError("--example brings its model; give the INPUT alone")
    return folder, own if given is None else given


def _answer_file(model: str | None, given: str | None, batch: Path, out: list[Path], options: dict[str, Any]) -> None:
    from regard.cli.answering import ANSWERS, answer_file

    if given is not None or len(out) != 1:
        raise UserError("--batch takes its inputs from a file: regard see MODEL --batch FILE --out FILE")
    target = writable(out[0], ANSWERS)
    _quiet()
    print(answer_file(model, batch, target, options))


def _checked(traces: list[Trace], head: tuple[int, int]) -> tuple[int, int]:
    """A head that was asked for as (its layer's place, head). Raises UserError where it was not watched."""
    indices = [layer.index for layer in traces[0].layers]
    if head[0] not in indices:
        there = ", ".join(str(index) for index in dict.fromkeys(indices))
        raise UserError(f"layer {head[0]} of --head was not watched; watched: {there}")
    place = indices.index(head[0])
    for trace in traces:
        if place >= len(trace.layers):
            raise UserError(f"{trace.model} has no layer {head[0]} to compare; leave --head out")
        trace.layers[place].head_place(head[1])
    return place, head[1]


def _traces(
    wanted: list[Asked], norm: bool, resolution: int, top: int, options: dict[str, Any], deep: bool
) -> list[Trace]:
    """The Traces that are asked for. deep: what fresh ones need for any exact weight is kept."""
    from regard.seeing.trace import Trace

    if resolution < 1 or top < 1:
        raise UserError(f"--resolution and --top are at least 1, got {min(resolution, top)}; give a larger number")
    if options["max_new_tokens"] < 0:
        raise UserError(f"--new-tokens is at least 0, got {options['max_new_tokens']}; give a larger number")
    fresh = [each for each in wanted if isinstance(each, Fresh)]
    changed = norm or (resolution, top) != (128, 8) or any(options[name] not in (None, "model", 0) for name in options)
    if not fresh and changed:
        name = next(each.path for each in wanted if isinstance(each, Saved))
        raise UserError(f"{name} is a saved Trace, which only --head, --stat and --out can show otherwise")
    options = options | ({"keep": "qk"} if deep else {})
    seen = iter(_seen(fresh, norm, resolution, top, options) if fresh else [])
    return [Trace.load(each.path) if isinstance(each, Saved) else next(seen) for each in wanted]


def _seen(fresh: list[Fresh], norm: bool, resolution: int, top: int, options: dict[str, Any]) -> list[Trace]:
    """Run the models, each loaded once, quietly: of transformers only errors are heard."""
    from regard.hf.load import load
    from regard.hf.see import look
    from regard.seeing.statistics import standard
    from regard.seq2seq import make_known

    _quiet()
    watch = list(standard(resolution, top))
    watch += [s.norm() for s in watch if norm and s.name not in ("entropy", "span", "mass")]
    read = {given: read_input(given, sys.stdin) for given in dict.fromkeys(each.given for each in fresh)}
    for each in fresh:
        make_known(each.model)
    loaded = {name: load(name) for name in dict.fromkeys(each.model for each in fresh)}
    return [look(loaded[each.model], read[each.given], watch=watch, **options) for each in fresh]


def _show(traces: list[Trace], stat: str | None, head: tuple[int, int] | None, as_json: bool, verbose: bool) -> None:
    if as_json:
        found = [numbers(trace) for trace in traces]
        print(as_text(found[0] if len(found) == 1 else found))
        return
    from regard.view import terminal

    place, number = (None, None) if head is None else head
    for trace in traces:
        terminal.show(trace, statistic=stat, layer=place, head=number)
    if verbose:
        for trace in traces:
            print(verbose_lines(trace))


def _faithful(wanted: list[Any], out: list[Path], as_json: bool) -> None:
    """Print what hiding the links that are shown does to what the model says."""
    from regard.cli.printing import progress
    from regard.hf.load import load
    from regard.seeing.trace import write_whole
    from regard.swap.faithful import faithful, picture

    files = [writable(path, (".png", ".svg", ".json")) for path in out]
    if len(wanted) != 1 or not isinstance(wanted[0], Fresh):
        raise UserError("--faithful asks one model about one text, a line an input; give no Trace and no second input")
    text = read_input(wanted[0].given, sys.stdin)
    if not isinstance(text, str):
        raise UserError("--faithful hides links between words; give a text")
    result = faithful(load(wanted[0].model), [line for line in text.splitlines() if line.strip()], report=progress)
    for path in files:
        kind = path.suffix.lower()
        write_whole(path, as_text(result.json()) if kind == ".json" else picture(result, kind[1:]))
    print(as_text(result.json()) if as_json else "\n".join(result.lines()))
