"""The command: one short function per verb, each parse → call → print."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from regard.errors import UserError, is_file

try:
    import typer
except ImportError:  # pragma: no cover (the command alone needs it)
    print("regard: the command needs typer: pip install 'regard[all]'", file=sys.stderr)
    sys.exit(2)

from regard.arguments import layer_head, numbers_in, writable
from regard.bench.cli import bench
from regard.view.extras import needed

if TYPE_CHECKING:
    from regard.explain import Explanation
    from regard.seeing.trace import Trace

SENTENCE = "A fluffy blue creature roamed the verdant forest."
FORMATS = (".html", ".png", ".svg", ".json", ".safetensors")
MEDIA = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".wav")
EXTRAS = ("transformers", "huggingface_hub", "safetensors", "tokenizers", "PIL", "numpy", "matplotlib", "rich")

app = typer.Typer(
    name="regard",
    help="See, swap and serve the attention of any transformer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(bench, name="bench")


@app.callback()
def _regard() -> None:
    """See, swap and serve the attention of any transformer."""


@app.command()
def see(
    model: Annotated[str | None, typer.Argument(help="Directory or hub name of a transformers model.")] = None,
    given: Annotated[
        str | None, typer.Argument(metavar="[INPUT]", help="A text, @file, - (standard input), an image or a wav file.")
    ] = None,
    other: Annotated[str | None, typer.Argument(help="A second input, to compare with the first.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers to watch, such as 0,3-5. Default: all.")] = None,
    heads: Annotated[str | None, typer.Option(help="Heads to watch, such as 0,3-5. Default: all.")] = None,
    stat: Annotated[str | None, typer.Option(help="Statistic that colours the heads, such as entropy.")] = None,
    head: Annotated[str | None, typer.Option(help="Head to draw, as layer.head. Default: a telling one.")] = None,
    norm: Annotated[bool, typer.Option("--norm", help="Also weigh each link by the length of v_j W_O.")] = False,
    resolution: Annotated[int, typer.Option(help="Cells along each side of the overview maps.")] = 128,
    top: Annotated[int, typer.Option(help="Strongest links kept per row.")] = 8,
    target: Annotated[str | None, typer.Option(help="Target text of an encoder-decoder.")] = None,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate, watched, after the input.")] = 0,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut a text at the model's last position.")] = False,
    backend: Annotated[str, typer.Option(help="What computes the output: model, native, strips …")] = "model",
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File to write: html, png, svg, json, safetensors. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers of all heads as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what computed what, and what was left out.")] = False,
) -> None:
    """Show what a model's attention looks at.

    Without arguments: the embedded model on a sentence. A single argument with a space in it is an INPUT for the
    embedded model. A Trace that --out wrote (*.safetensors) can be given as MODEL, to look at it again.
    """
    files = [writable(path, FORMATS) for path in out or ()]
    place = layer_head(head)
    if not as_json:
        needed("rich", "drawing in the terminal")
    if model is not None and model.endswith(".safetensors") and given is None:
        from regard.seeing.trace import Trace

        asked = (layers, heads, norm or None, target, new_tokens or None, truncate or None)
        if any(option is not None for option in asked) or (resolution, top, backend) != (128, 8, "model"):
            raise UserError(f"{model} is a saved Trace, which only --head, --stat and --out can show otherwise")
        traces = [Trace.load(model)]
    else:
        model, given = _model_and_input(model, given)
        traces = _seen(
            model,
            [given, *([] if other is None else [other])],
            norm=norm,
            resolution=resolution,
            top=top,
            layers=numbers_in(layers, "--layers"),
            heads=numbers_in(heads, "--heads"),
            backend=backend,
            target=target,
            max_new_tokens=new_tokens,
            truncate=truncate,
        )
    picked = _checked(traces, stat, place)
    written = [name for path in files for name in _write(path, traces, stat, picked)]
    _show(traces, stat, picked, as_json, verbose)
    for name in written:
        print(name, file=sys.stderr if as_json else sys.stdout)


def _model_and_input(model: str | None, given: str | None) -> tuple[str | None, str]:
    alone = model is not None and given is None
    if alone and (len(str(model).split()) > 1 or model == "-" or str(model).startswith("@") or _is_media(str(model))):
        return None, str(model)
    if alone and not str(model).strip():
        raise UserError("the text is empty; give at least one word")
    return model, SENTENCE if given is None else given


def _is_media(given: str) -> bool:
    return Path(given).suffix.lower() in MEDIA and is_file(given)


def _checked(traces: list[Trace], stat: str | None, head: tuple[int, int] | None) -> tuple[int, int] | None:
    """The head that was asked for as (its layer's place, head). Raises UserError where it or `stat` was not watched."""
    for trace in traces:
        if stat is not None:
            trace.heads(stat)
    if head is None:
        return None
    indices = [layer.index for layer in traces[0].layers]
    place = indices.index(head[0]) if head[0] in indices else None
    if place is None:
        there = ", ".join(str(index) for index in dict.fromkeys(indices))
        raise UserError(f"layer {head[0]} of --head was not watched; watched: {there}")
    for trace in traces:
        trace.layers[place].head_place(head[1])
    return place, head[1]


def _seen(
    model: str | None, inputs: list[str], *, norm: bool, resolution: int, top: int, **options: Any
) -> list[Trace]:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from regard.hf.inputs import read_input
    from regard.hf.load import load
    from regard.hf.see import look
    from regard.seeing.statistics import standard

    if resolution < 1 or top < 1:
        raise UserError(f"--resolution and --top are at least 1, got {min(resolution, top)}; give a larger number")
    if options["max_new_tokens"] < 0:
        raise UserError(f"--new-tokens is at least 0, got {options['max_new_tokens']}; give a larger number")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    watch = list(standard(resolution, top))
    watch += [s.norm() for s in watch if norm and s.name not in ("entropy", "span", "mass")]
    read = [read_input(given, sys.stdin) for given in inputs]
    loaded = load(model)
    return [look(loaded, given, watch=watch, **options) for given in read]


def _show(traces: list[Trace], stat: str | None, head: tuple[int, int] | None, as_json: bool, verbose: bool) -> None:
    if as_json:
        found = [numbers(trace) for trace in traces]
        print(json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False))
        return
    from regard.view import terminal

    place, number = (None, None) if head is None else head
    for trace in traces:
        terminal.show(trace, statistic=stat, layer=place, head=number)
    if verbose:
        for trace in traces:
            print(_verbose(trace))


def numbers(trace: Trace) -> dict[str, Any]:
    """Every head's number for every statistic, the tokens and the strongest links, as plain JSON."""
    from regard.view.links import strongest

    heads = [
        {"layer": layer.title, "module": layer.name, "head": head}
        | {label: round(float(value[:, place].mean()), 6) for label, value in layer.summaries.items()}
        for layer in trace.layers
        for place, head in enumerate(layer.heads)
    ]
    links = [
        {
            "layer": (layer := trace.layers[link.layer]).title,
            "head": link.head,
            "query": trace.axes[layer.query_axis].text[0][link.row],
            "key": trace.axes[layer.key_axis].text[0][link.key],
            "row": link.row,
            "column": link.key,
            "weight": round(link.weight, 6),
        }
        for link in strongest(trace, 20)
    ]
    tokens = {name: axis.text for name, axis in trace.axes.items()}
    return {"model": trace.model, "made": trace.made, "tokens": tokens, "heads": heads, "links": links}


def _verbose(trace: Trace) -> str:
    made = trace.made
    lines = [
        f"output by {made['output']}; statistics by {', '.join(made['watched_by']) or 'nothing'}; {made['dtype']}",
        *(_passed_over(other) for other in made.get("passed_over", ())),
        *(f"not reached: {name}" for name in made["not_reached"]),
        *sorted({f"left out: {reason}" for layer in trace.layers for reason in layer.undefined.values()}),
    ]
    return "\n".join(lines)


def _passed_over(other: dict[str, Any]) -> str:
    layers = other["layers"]
    said = ", ".join(layers) if len(layers) < 4 else f"{layers[0]} and {len(layers) - 1} more"
    return f"{other['what']} of {said} by {other['taken']}, not {other['backend']}: {other['reason']}"


def _write(path: Path, traces: list[Trace], stat: str | None, head: tuple[int, int] | None) -> list[Path]:
    """Write one file (one for each trace where it is a saved Trace); the paths of what was written."""
    from regard.seeing.trace import write_whole
    from regard.view.difference import difference
    from regard.view.scene import scene

    if path.suffix == ".safetensors":
        paths = [path, path.with_stem(f"{path.stem}-2")][: len(traces)]
        for trace, each in zip(traces, paths, strict=True):
            trace.save(each)
        return paths
    alone = len(traces) == 1
    drawn = scene(traces[0], statistic=stat) if alone else difference(traces[0], traces[1], statistic=stat)
    if path.suffix == ".html":
        from regard.view.page import html

        write_whole(path, html(drawn))
    elif path.suffix == ".json":
        write_whole(path, json.dumps(drawn))
    else:
        from regard.view.image import image

        write_whole(path, image(drawn, path.suffix[1:], statistic=stat, heads=[] if head is None else [head]))
    return [path]


@app.command()
def explain(
    name: Annotated[
        str | None, typer.Argument(help='A mechanism, or a text form such as "causal & window(4) | sinks(1)".')
    ] = None,
    text: Annotated[str | None, typer.Argument(help="The words of the worked example.")] = None,
    out: Annotated[list[Path] | None, typer.Option(help="File to write: html, png, svg or json. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation, or the catalogue, as JSON.")] = False,
) -> None:
    """Explain a mechanism: equation, source, cost, what it can attend to, and every step on a sentence.

    Without arguments: the catalogue, by family.
    """
    from regard.explain import build, terminal

    files = [writable(path, (".html", ".png", ".svg", ".json")) for path in out or ()]
    if name is None:
        if files:
            raise UserError("there is nothing to write without a NAME; say which mechanism to explain")
        found = {family: dict(entries) for family, entries in build.listing()}
        print(json.dumps(found, ensure_ascii=False)) if as_json else terminal.catalogue()
        return
    made = build.explain(name, build.SENTENCE if text is None else text)
    print(json.dumps(made.json(), ensure_ascii=False)) if as_json else terminal.show(made)
    for path in files:
        _write_explanation(path, made)
        print(path, file=sys.stderr if as_json else sys.stdout)


def _write_explanation(path: Path, made: Explanation) -> None:
    from regard.explain.image import image
    from regard.explain.page import html
    from regard.seeing.trace import write_whole

    if path.suffix == ".html":
        write_whole(path, html(made))
    elif path.suffix == ".json":
        write_whole(path, json.dumps(made.json()))
    else:
        write_whole(path, image(made, path.suffix[1:]))


def main() -> None:
    """Run the command; a user's mistake is one sentence on standard error and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UserError as error:
        _refuse(str(error))
    except ImportError as error:
        name = (error.name or "").split(".")[0]
        if "pip install" not in str(error) and name not in EXTRAS:
            raise
        _refuse(str(error) if "pip install" in str(error) else f"this needs {name}: pip install 'regard[all]'")
    except typer.TyperException as error:
        _refuse(error.format_message())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _refuse(sentence: str) -> None:
    """One line on standard error, with nothing in it that moves a terminal's cursor; exit code 2.

    A text and the marks below it that point at a place (regard.text.TextError) keep their lines.
    """
    said, *pointing = sentence.rsplit("\n", 2) if set(sentence.rpartition("\n")[2]) <= {" ", "^"} else [sentence]
    lines = [f"regard: {' '.join(said.split())}" if said.strip() else "", *pointing]
    for line in filter(None, lines):
        print("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line), file=sys.stderr)
    sys.exit(2)
