"""The bench verbs: each parse → call → print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from regard.arguments import numbers_in, writable

bench = typer.Typer(help="Benchmarks, each against its peers in one run.", no_args_is_help=True)


@bench.command("see")
def bench_see(
    tokens: Annotated[str, typer.Option(help="Input lengths, such as 1024,4096.")] = "1024,4096",
    repeats: Annotated[int, typer.Option(help="Times each is measured; medians are reported.")] = 3,
    backend: Annotated[str, typer.Option(help="What computes the watched model's output.")] = "model",
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What watching every layer and head costs, against plain sdpa and against eager attention with its weights."""
    from regard.bench import see as bench

    target = None if plot is None else writable(plot, (".png", ".svg"))
    result = bench.run(
        numbers_in(tokens, "--tokens") or [], repeats, backend, lambda line: print(line, file=sys.stderr)
    )
    if target is not None:
        bench.plot(result, target)
    print(json.dumps(result) if as_json else "\n".join(" | ".join(line) for line in bench.table(result)))


@bench.command("attention")
def bench_attention(
    cases: Annotated[
        str | None,
        typer.Option(help="Cases, or how their names begin, such as causal,decode; or all. Default: the short ones."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Most turns of each case; medians of ratios are reported.")] = 7,
    memory: Annotated[bool, typer.Option("--memory", help="Also each contestant's peak in its own process.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot over lengths to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Every backend against torch SDPA, compiled FlexAttention and the eager form, checked before it is timed."""
    from regard.bench import attention as bench

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = None if cases is None else [name.strip() for name in cases.split(",")]
    drawn = target is not None
    result = bench.run(names, repeats, memory or drawn, drawn, lambda line: print(line, file=sys.stderr))
    if target is not None:
        bench.plot(result, target)
    print(json.dumps(result) if as_json else "\n".join(" | ".join(line) for line in bench.table(result)))


@bench.command("recall")
def bench_recall(
    mechanisms: Annotated[
        str | None, typer.Option(help="Mechanisms or text forms, separated by ;. Default: a dozen.")
    ] = None,
    pairs: Annotated[str, typer.Option(help="Pairs to remember; a text has three tokens for each.")] = "4,8,16,32",
    minutes: Annotated[float, typer.Option(help="Longest training of one mechanism.")] = 3.0,
    steps: Annotated[int, typer.Option(help="Most steps of one training.")] = 3000,
    folder: Annotated[Path, typer.Option(help="Where each result is kept, to go on after an interruption.")] = Path(
        "out/recall"
    ),
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What each mechanism remembers: associative recall, trained from nothing, accuracy by length."""
    from regard.bench import recall as bench
    from regard.bench.recall_task import DEFAULT

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = DEFAULT if mechanisms is None else [name.strip() for name in mechanisms.split(";") if name.strip()]
    counts = numbers_in(pairs, "--pairs") or []
    result = bench.run(names, counts, minutes, steps, folder, lambda line: print(line, file=sys.stderr))
    if target is not None:
        bench.plot(result, target)
    print(json.dumps(result) if as_json else "\n".join(" | ".join(line) for line in bench.table(result)))
