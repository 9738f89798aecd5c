"""`regard bench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.arguments import numbers_in
from regard.cli.printing import progress, result_of
from regard.errors import UserError


def serve(
    shape: Annotated[str, typer.Option(help="Shape of a model of random weights: smollm-135m, tiny.")] = "smollm-135m",
    requests: Annotated[int, typer.Option(help="Requests of the load.")] = 32,
    rate: Annotated[float | None, typer.Option(help="Arrivals per second (Poisson). Default: all at once.")] = None,
    shared: Annotated[int, typer.Option(help="Tokens that all prompts begin with.")] = 0,
    trace: Annotated[Path | None, typer.Option(help="A trace (csv) in place of drawn lengths.")] = None,
    scale: Annotated[float, typer.Option(help="Factor on a trace's lengths.")] = 0.1,
    faster: Annotated[float, typer.Option(help="Factor on a trace's arrivals.")] = 1.0,
    against: Annotated[
        str, typer.Option(help="Any of regard, float32, int8 (its weights), look, http, one, static, continuous.")
    ] = "regard,static",
    batches: Annotated[str, typer.Option(help="Sizes of static batches.")] = "8,16,32",
    alone: Annotated[int | None, typer.Option(help="Requests that `one` answers. Default: all.")] = None,
    long: Annotated[int | None, typer.Option(help="Own tokens of every prompt, in place of drawn lengths.")] = None,
    new: Annotated[int, typer.Option(help="Tokens to write, where --long says how long prompts are.")] = 32,
    reuse: Annotated[bool, typer.Option(help="Requests share pages of equal beginnings.")] = True,
    simulate: Annotated[
        bool, typer.Option(help="Only schedule the trace's own lengths, without a model: how full pages are.")
    ] = False,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="openvino=PYTHON, openvino:f32,int8=PYTHON, vllm=PYTHON: a Python that has the engine."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the checkpoint that peers read, and what they make of it, there.")
    ] = None,
    turns: Annotated[int, typer.Option(help="Turns of regard and of peers; the median counts.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """One load of requests served by regard and by transformers: one by one, in padded batches, continuously.

    `http` is regard's server with its clients. Engines of other projects replay the same load with the same weights,
    each run by the Python of an environment that has it: openvino-genai with optimum-intel, or vllm.
    """
    from regard.bench.serving import load, waste
    from regard.bench.serving import run as bench
    from regard.bench.serving.foreign import read_peers
    from regard.bench.serving.models import vocabulary

    size = vocabulary(shape)
    if simulate:
        if trace is None:
            raise UserError("--simulate schedules the lengths of a trace; give one with --trace")
        asks = load.trace(trace, requests, size, 1.0, 1.0, clipped=False)
        result_of(waste.simulate(asks), as_json, waste.table)
        return
    if trace is not None:
        asks = load.trace(trace, requests, size, scale, faster)
    elif long is not None:
        asks = load.equal(requests, size, long, new, shared)
    else:
        asks = load.lognormal(requests, size, rate=rate, shared=shared)
    names = [name.strip() for name in against.split(",")]
    others = read_peers(peer or [])
    result = bench.run(
        shape, asks, names, numbers_in(batches, "--batches") or [], progress, reuse, alone, others, turns, folder
    )
    result_of(result, as_json, bench.table)
