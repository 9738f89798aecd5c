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
        str | None, typer.Option(help="Mechanisms or text forms, separated by ;. Default: some of every kind.")
    ] = None,
    pairs: Annotated[str, typer.Option(help="Pairs to remember; a text has three tokens for each.")] = "4,8,16,32",
    beyond: Annotated[str, typer.Option(help="Pairs that are tested and never trained on.")] = "64",
    steps: Annotated[int, typer.Option(help="Steps of one training; one that has solved the task ends sooner.")] = 2400,
    minutes: Annotated[
        float | None, typer.Option(help="Longest training of one mechanism; a row says if this ended it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the model's start and its texts; another shows what chance does.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where each result is kept, to go on after an interruption.")] = Path(
        "out/recall"
    ),
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What each mechanism remembers: associative recall, trained from nothing, accuracy by length."""
    from regard.bench import recall, recall_plot
    from regard.bench.recall_task import DEFAULT

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = DEFAULT if mechanisms is None else [name.strip() for name in mechanisms.split(";") if name.strip()]
    trained, untrained = (numbers_in(text, name) or [] for text, name in ((pairs, "--pairs"), (beyond, "--beyond")))
    budget = recall.Budget(tuple(trained), tuple(untrained), steps, minutes, seed)
    result = recall.run(names, budget, folder, lambda line: print(line, file=sys.stderr))
    if target is not None:
        recall_plot.plot(result, target)
    print(json.dumps(result) if as_json else "\n".join(" | ".join(line) for line in recall.table(result)))


@bench.command("memory")
def bench_memory(
    mechanisms: Annotated[
        str | None, typer.Option(help="Mechanisms, separated by ;. Default: all that claim linear memory.")
    ] = None,
    tokens: Annotated[str, typer.Option(help="Input lengths.")] = "2048,8192,32768",
    seconds: Annotated[float, typer.Option(help="Longest time of one measurement.")] = 600.0,
    backward: Annotated[bool, typer.Option("--backward", help="Forward and backward.")] = False,
    folder: Annotated[Path, typer.Option(help="Where each result is kept, to go on after an interruption.")] = Path(
        "out/memory"
    ),
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this png or svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """How the memory of a mechanism grows with the tokens: the peak of one call, in a process of its own."""
    from regard.bench import memory, memory_plot

    target = None if plot is None else writable(plot, (".png", ".svg"))
    names = memory.claiming() if mechanisms is None else [name.strip() for name in mechanisms.split(";")]
    lengths = numbers_in(tokens, "--tokens") or []
    result = memory.run(names, lengths, folder, seconds, backward, lambda line: print(line, file=sys.stderr))
    if target is not None:
        memory_plot.plot(result, target)
    print(json.dumps(result) if as_json else "\n".join(" | ".join(line) for line in memory.table(result)))
