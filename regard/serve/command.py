"""`regard serve`: from the words of the command line to a running server."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.errors import UserError
from regard.serve.asked import About
from regard.serve.embedder import Embedder, pooling_of
from regard.serve.engine import Engine
from regard.serve.linear import WEIGHTS
from regard.serve.prompt import Prompts
from regard.serve.runner import Runner, quiet
from regard.serve.scheduler import Limits, Scheduler
from regard.serve.service import Service, Settings

if TYPE_CHECKING:
    from regard.hf.load import Loaded

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PART_OF_FREE = 0.3  # of the memory that is free at start goes to pages, unless --memory says how much


@dataclass(frozen=True)
class Options:
    """What the command was told. memory: bytes for pages, None for a part of what is free."""

    model: str | None = None
    name: str | None = None
    memory: int | None = None
    page_size: int = 16
    page_dtype: str = "float32"
    max_running: int = 64
    max_waiting: int = 1024
    token_budget: int = 512
    max_length: int | None = None
    max_seconds: float = 600.0
    reuse: bool = True
    api_key: str | None = None
    chat_template: Path | None = None
    body_bytes: int = 8 << 20
    look_bytes: int = 32 << 20
    patience: float = 30.0
    weights: str = "stored"
    cache_policy: str | None = None


def serving(options: Options, loaded: Loaded | None = None) -> tuple[Service, str]:
    """A service of a model, and one sentence on what memory it takes. Raises UserError."""
    from regard.hf.load import load

    if options.page_dtype not in DTYPES:
        raise UserError(f"--page-dtype {options.page_dtype}: one of {', '.join(DTYPES)} is needed")
    if options.weights not in WEIGHTS:
        raise UserError(f"--weights {options.weights}: one of {', '.join(WEIGHTS)} is needed")
    template = _template(options.chat_template)
    loaded = loaded or load(options.model)
    if options.cache_policy is not None:
        return _keeping(options, loaded, template)
    runner = Runner(loaded.model.float(), options.page_size, DTYPES[options.page_dtype], options.weights)
    longest = min(runner.max_length, options.max_length or runner.max_length)
    cost = sum(s.page_bytes(runner.page_size, runner.dtype) for s in runner.shapes.values())
    memory = options.memory if options.memory is not None else _default_memory(cost, longest, options)
    pool = runner.pool(memory, options.token_budget, options.max_running, options.reuse)
    limits = Limits(options.token_budget, options.max_running, options.max_waiting, longest)
    engine = Engine(runner, Scheduler(pool, limits), tokenizer=loaded.tokenizer)
    fits = int(min(longest, pool.longest(options.token_budget)))
    about = About(
        _name(options), runner.vocabulary, fits, runner.num_layers, runner.num_heads, _ends(loaded.model),
        max_n=min(64, options.max_running), max_seconds=options.max_seconds,
    )  # fmt: skip
    tokens = pool.groups[0].num_pages * runner.page_size
    said = (
        f"{runner.how}; weights take {_mib(runner.weight_bytes)}; keys and values of {tokens:,} tokens "
        f"{_mib(pool_bytes(runner, pool))}, which "
        f"--memory {'says' if options.memory is not None else 'changes'}; up to {options.max_running} answers at once"
    )
    prompts = Prompts(loaded.tokenizer, runner.vocabulary, template)
    return Service(engine, about, prompts, _settings(options), {"attention": {"layers": runner.num_layers}}), said


def _keeping(options: Options, loaded: Loaded, template: str | None) -> tuple[Service, str]:
    """A service whose sequences keep what --cache-policy says. Raises UserError for what cannot go with it."""
    from regard.serve.evicting import KeepingRunner, KeptScheduler

    against = {
        "--prefix-cache (give --no-prefix-cache)": options.reuse,
        f"--page-dtype {options.page_dtype}": options.page_dtype != "float32",
        f"--weights {options.weights}": options.weights == "int8",
    }
    for option, asked in against.items():
        if asked:
            raise UserError(f"--cache-policy does not go with {option}: heads keep tokens of their own in float32")
    runner = KeepingRunner(loaded.model.float(), str(options.cache_policy), options.page_size)
    longest = min(runner.max_length, options.max_length or runner.max_length)
    page_bytes = runner.token_bytes * runner.page_size
    memory = options.memory if options.memory is not None else _default_memory(page_bytes, longest, options)
    pool = runner.pool(memory)
    limits = Limits(options.token_budget, options.max_running, options.max_waiting, longest)
    engine = Engine(runner, KeptScheduler(pool, limits), tokenizer=loaded.tokenizer)
    fits = int(min(longest, pool.longest(options.token_budget)))
    about = About(
        _name(options), runner.vocabulary, fits, runner.num_layers, runner.num_heads, _ends(loaded.model),
        max_n=1, max_seconds=options.max_seconds,
    )  # fmt: skip
    num_pages = pool.groups[0].num_pages
    said = (
        f"{runner.how}; weights take {_mib(runner.weight_bytes)}; pages of {num_pages * runner.page_size:,} "
        f"tokens {_mib(num_pages * page_bytes)}; up to {options.max_running} answers at once"
    )
    prompts = Prompts(loaded.tokenizer, runner.vocabulary, template)
    described = {"attention": {"layers": runner.num_layers}, "cache_policy": str(runner.policy)}
    return Service(engine, about, prompts, _settings(options), described), said


def embedding(options: Options, loaded: Loaded) -> tuple[Embedder, Prompts, str]:
    """An encoder that makes vectors of texts, and one sentence on what memory it takes. Raises UserError."""
    model = loaded.model.float()
    if not hasattr(model.config, "hidden_size") or model.main_input_name != "input_ids":
        raise UserError(
            f"{options.model}: {type(model).__name__} neither writes text nor encodes it; serve another model"
        )
    pad = getattr(loaded.tokenizer, "pad_token_id", None) or 0
    embedder = Embedder(model.base_model, pooling_of(Path(str(options.model))), pad)
    prompts = Prompts(loaded.tokenizer, int(model.config.vocab_size))
    weights = sum(p.numel() * 4 for p in model.parameters())
    pooled = f"{embedder.pooling.kind} pooling{', length 1' if embedder.pooling.normalised else ''}"
    return embedder, prompts, f"an encoder: /v1/embeddings, {embedder.width} numbers by {pooled}; {_mib(weights)}"


def _settings(options: Options) -> Settings:
    return Settings(options.api_key, options.body_bytes, options.look_bytes, options.patience)


def _name(options: Options) -> str:
    return options.name or (Path(options.model).name if options.model else "regard-default")


def pool_bytes(runner: Runner, pool: Any) -> int:
    """Bytes of all pages."""
    by_window = {group.window: group.num_pages for group in pool.groups}
    return sum(s.page_bytes(runner.page_size, runner.dtype) * by_window[s.window] for s in runner.shapes.values())


def _default_memory(cost: int, longest: int, options: Options) -> int:
    """A part of the free memory, but no more than all running sequences at full length can use."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        free = 4 << 30
    return min(int(free * PART_OF_FREE), cost * -(-longest // options.page_size) * options.max_running)


def _mib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _ends(model: Any) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    return frozenset(() if ends is None else ends if isinstance(ends, list) else [ends])


def _template(path: Path | None) -> str | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(f"--chat-template {path}: there is no such file")
    return path.read_text(encoding="utf-8")


def serve(options: Options, host: str, port: int) -> None:
    """Serve until interrupted. Raises UserError for a port that is taken or a model that cannot be served."""
    from regard.hf.load import load

    try:
        import uvicorn

        from regard.serve import embeddings
        from regard.serve.app import make_app
    except ImportError as error:
        raise UserError(f"serving needs {error.name}: pip install 'regard[serve]'") from None
    listening = _listen(host, port)
    quiet()
    loaded = load(options.model)
    name = _name(options)
    if loaded.model.can_generate():
        service, said = serving(options, loaded)
        app = make_app(service)
    else:
        embedder, prompts, said = embedding(options, loaded)
        app = embeddings.make_app(embedder, prompts, name, _settings(options))
    at = listening.getsockname()[:2]
    print(f"regard serves {name} on http://{_host(at[0])}:{at[1]}  ({said})", flush=True)
    wait = int(options.patience) + 5
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=wait)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise UserError(f"cannot listen on {host}:{port}: {error}; give another --port or --host") from None
    return found


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read_memory(text: str | None) -> int | None:
    """Bytes of "2GiB", "500MiB" or "1.5" (GiB). Raises UserError."""
    if text is None:
        return None
    number, factor = text.strip(), 2**30
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("GB", 10**9), ("MB", 10**6)):
        if number.lower().endswith(unit.lower()):
            number, factor = number[: -len(unit)].strip(), size
            break
    try:
        found = int(float(number) * factor)
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise UserError(f"--memory {json.dumps(text)}: say how much as 2GiB or 500MiB")
    return found
