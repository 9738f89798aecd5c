"""`regard serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.errors import UserError


def serve(
    model: Annotated[str | None, typer.Argument(help="Directory or hub name. Default: the embedded model.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Name of the model in requests. Default: its directory's.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory for keys and values, such as 2GiB. Default: 30 % of what is free at most."),
    ] = None,
    page_size: Annotated[int, typer.Option(help="Tokens of a page: 16, 32, 64, 128 or 256.")] = 16,
    page_dtype: Annotated[str, typer.Option(help="Keys and values as float32, bfloat16 or float16.")] = "float32",
    weights: Annotated[
        str, typer.Option(help="Weights as stored, as float32, or as int8 (faster; answers change a little).")
    ] = "stored",
    max_running: Annotated[int, typer.Option(help="Answers written at once.")] = 64,
    max_waiting: Annotated[int, typer.Option(help="Requests that may queue; more get 429.")] = 1024,
    token_budget: Annotated[int, typer.Option(help="Tokens computed in one step.")] = 512,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a prompt and its answer. Default: the model's.")
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Longest time of one request.")] = 600.0,
    api_key: Annotated[
        str | None, typer.Option(help="Key that requests must send.", envvar="REGARD_API_KEY", show_default=False)
    ] = None,
    chat_template: Annotated[Path | None, typer.Option(help="A chat template to use in place of the model's.")] = None,
    prefix_cache: Annotated[bool, typer.Option(help="Share pages of prompts that begin alike.")] = True,
    cache_policy: Annotated[
        str | None, typer.Option(help="Keep less of each prompt, such as 'h2o(0.25)'; needs --no-prefix-cache.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds that answers may take to finish when stopping.")] = 30.0,
) -> None:
    """Serve a causal language model to many users; answers can say what they attended to.

    OpenAI's routes under /v1, a page to type in at /, metrics at /metrics. The field `attention` of a request asks for
    exact statistics of what each token attended to.
    """
    from regard.serve.command import Options, read_memory
    from regard.serve.command import serve as run

    counts = {"--max-running": max_running, "--token-budget": token_budget, "--max-waiting": max_waiting}
    for option, value in counts.items():
        if value < 1:
            raise UserError(f"{option} is at least 1, got {value}")
    if page_size not in (16, 32, 64, 128, 256):
        raise UserError(f"--page-size is 16, 32, 64, 128 or 256, got {page_size}")
    if not 0 <= port <= 65535:
        raise UserError(f"--port lies in 0 … 65535, got {port}")
    options = Options(
        model, name, read_memory(memory), page_size, page_dtype, max_running, max_waiting, token_budget, max_length,
        max_seconds, prefix_cache, api_key, chat_template, patience=patience, weights=weights,
        cache_policy=cache_policy,
    )  # fmt: skip
    run(options, host, port)
