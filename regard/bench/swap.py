"""`regard bench swap`: what smaller caches give back, what windows save, what deciding costs, what quality stays."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import transformers as tf
from torch import Tensor
from transformers.cache_utils import DynamicCache

import regard
from regard import resident
from regard.bench.machine import describe
from regard.errors import UserError
from regard.hf.attach import attach
from regard.inputs import inputs
from regard.mechanism import Mechanism
from regard.parts.masks import Full, causal
from regard.parts.mixes import WeightedSum
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot
from regard.run import choose
from regard.swap.cache.cache import PolicyCache
from regard.swap.cache.pages import HeadPages
from regard.swap.policies import policy_of
from regard.swap.policies.policy import Prompt
from regard.swap.retrieval import retrieval

PARTS = ("cache", "window", "statistics", "quality")
HEADS, WIDTH = 12, 64
FORM = "window(1024) | sinks(4)"
QUALITY = (
    "sinks({})",
    "h2o({})",
    "tova({})",
    "snapkv({}, window=32)",
    "expected({})",
    "pyramid({}, window=32)",
    "ada({}, window=32)",
    "duo({}, recent=32)",
    "quest({}, skip=0)",
)
OWN = Mechanism("dot", "Vaswani 2017", (Dot(WIDTH**-0.5),), Full(), Softmax(), mix=WeightedSum())


def run(
    parts: Sequence[str],
    context: int = 32768,
    budget: float = 0.125,
    repeats: int = 5,
    layers: int = 12,
    text: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The parts that are asked for, each with its peers in the same run.

    layers: of the model whose window is measured, all of which cost the same. text: what quality is measured on.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise UserError(f"bench swap measures {', '.join(PARTS)}, not {unknown or 'nothing'}")
    if not 0 < budget < 1 or context < 256:
        raise UserError(f"a budget above 0 and below 1 and a context of at least 256, not {budget} and {context}")
    found: dict[str, Any] = {"machine": describe(), "threads": torch.get_num_threads()}
    with torch.inference_mode():
        for part in parts:
            report(f"measuring {part}")
            match part:
                case "cache":
                    found[part] = cache_rows(context, budget, repeats)
                case "window":
                    found[part] = window_rows(16384, layers, repeats)
                case "statistics":
                    found[part] = statistics_rows(4096, repeats)
                case "quality":
                    found[part] = quality_rows(text)
    return found


# ---- memory and time of writing ---------------------------------------------------------------------------------


def gpt2(positions: int, layers: int = 12) -> Any:
    """GPT-2 small's shape with random weights."""
    torch.manual_seed(0)
    return tf.GPT2LMHeadModel(tf.GPT2Config(n_positions=positions, n_layer=layers)).eval()


def cache_rows(context: int, budget: float, repeats: int) -> list[dict[str, Any]]:
    """One token written on a filled cache: our full pages, the budget by policies, transformers' own cache."""
    model = gpt2(context + 64)
    rows: list[dict[str, Any]] = []
    shares = {"full pages": 1.0, f"snapkv({budget:g})": budget, f"ada({budget:g})": budget}
    for name, share in shares.items():
        cache = filled(model, "snapkv(1.0)" if share == 1.0 else name, context, share, name.startswith("ada"))
        rows.append({"cache": name, "bytes": cache.nbytes, "seconds": _writing(model, cache, repeats)})
        del cache
        gc.collect()
    plain = DynamicCache(config=model.config)
    for layer in range(model.config.n_layer):
        plain.update(torch.randn(1, HEADS, context, WIDTH), torch.randn(1, HEADS, context, WIDTH), layer)
    size = model.config.n_layer * 2 * HEADS * context * WIDTH * 4
    rows.append({"cache": "transformers", "bytes": size, "seconds": _writing(model, plain, max(repeats // 2, 2))})
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) - model.transformer.wpe.weight.numel() * 4
    full = rows[0]
    for row in rows:
        row["memory"] = row["bytes"] / full["bytes"]
        row["times faster"] = full["seconds"] / row["seconds"]
        row["bytes allow"] = (weights + full["bytes"]) / (weights + row["bytes"])
    return rows


def filled(model: Any, policy: str, context: int, share: float, uneven: bool) -> PolicyCache:
    """A cache as a prompt of so many tokens leaves it, with random keys and values; uneven: budgets by head."""
    cache = regard.cache(model, policy)
    for layer in cache.managed:
        lengths = torch.full((HEADS,), int(context * share))
        if uneven:
            weight = torch.rand(HEADS, generator=torch.Generator().manual_seed(1)) + 0.2
            lengths = (weight / weight.sum() * HEADS * context * share).long()
        pages = HeadPages(HEADS, WIDTH, WIDTH, torch.float32, torch.device("cpu"))
        pages.claim(lengths)
        pages.keys.normal_()
        pages.values.normal_()
        layer.pages, layer.batch, layer.seen, layer.mechanism = pages, 1, context, OWN
        layer.lazy_initialization(pages.keys, pages.values)
    return cache


def _writing(model: Any, cache: Any, repeats: int) -> float:
    """Seconds of one token, the median."""
    token, seconds = torch.tensor([[5]]), []
    model(token, past_key_values=cache, use_cache=True)
    for _ in range(repeats):
        start = time.perf_counter()
        model(token, past_key_values=cache, use_cache=True)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


# ---- a window in a whole model ----------------------------------------------------------------------------------


def window_rows(tokens: int, layers: int, repeats: int) -> list[dict[str, Any]]:
    """One forward of GPT-2 small's shape: plain sdpa, and a window with sinks in its place, in turns."""
    model, ids = gpt2(tokens, layers).transformer, torch.randint(0, 50000, (1, tokens))
    seconds: dict[str, list[float]] = {"sdpa": [], FORM: []}
    peaks: dict[str, int] = {}

    def once(name: str) -> float:
        before = resident.begun_bytes()
        start = time.perf_counter()
        if name == "sdpa":
            model(ids, use_cache=False)
        else:
            with attach(model, watch=(), mechanism=FORM):
                model(ids, use_cache=False)
        took = time.perf_counter() - start
        peaks[name] = resident.peak_so_far() - before
        return took

    for _ in range(max(min(repeats, 3), 1)):
        for name, times in seconds.items():
            times.append(once(name))
    base = median(seconds["sdpa"])
    return [
        {"attention": name, "seconds": median(t), "of sdpa": median(t) / base, "peak bytes": peaks[name]}
        for name, t in seconds.items()
    ]


# ---- what deciding costs ----------------------------------------------------------------------------------------


def statistics_rows(tokens: int, repeats: int) -> list[dict[str, Any]]:
    """What each policy's scores cost at one layer of GPT-2 small's shape, beside its attention and its prefill."""
    torch.manual_seed(0)
    model, ids = gpt2(tokens).transformer, torch.randint(0, 50000, (1, tokens))
    q, k, v = (torch.randn(HEADS, tokens, WIDTH) for _ in range(3))
    x, meant = inputs(q[None], k[None], v[None]), OWN.masked(causal())
    run_of: dict[str, Callable[[], Any]] = {"attention": lambda: choose.attend(meant, x)}
    for name in ("sinks(0.25)", "h2o(0.25)", "tova(0.25)", "snapkv(0.25)", "expected(0.25)", "ada(0.25)"):
        policy = policy_of(name)

        def decide(policy: Any = policy) -> Any:
            prompt = Prompt(q, k, v, OWN, 0, 12)
            return policy.keep(prompt, policy.scores(prompt))

        run_of[name] = decide
    seconds = {name: _median(once, repeats) for name, once in run_of.items()}
    prefill = _median(lambda: model(ids, use_cache=False), max(repeats // 2, 1)) / model.config.n_layer
    return [
        {"what": name, "seconds": t, "of attention": t / seconds["attention"], "of prefill": t / prefill}
        for name, t in seconds.items()
    ]


def _median(once: Callable[[], Any], repeats: int) -> float:
    once()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


# ---- quality against budget -------------------------------------------------------------------------------------


def quality_rows(
    text: str | None, prompt: int = 448, written: int = 64, budgets: Sequence[float] = (0.1, 0.25, 0.5)
) -> list[dict[str, Any]]:
    """Bits per token of the embedded model on the tokens after a prompt, under each policy and budget."""
    if text is None:
        raise UserError("quality is measured on a text; give --text FILE")
    loaded = regard.load()
    ids = loaded.tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
    size = prompt + written
    if len(ids) < size:
        raise UserError(f"the text has {len(ids)} tokens, and {size} are needed; give a longer one")
    blocks = ids[: min(len(ids) // size, 2) * size].reshape(-1, size)
    measured = retrieval(loaded.model, blocks[:1], recent=32)
    rows = [{"cache": "all", "budget": 1.0, "bits": _bits(loaded.model, blocks, prompt, None, None)}]
    for form in QUALITY:
        for budget in budgets:
            given = measured if form.startswith("duo") else None
            bits = _bits(loaded.model, blocks, prompt, form.format(budget), given)
            rows.append({"cache": form.format(budget), "budget": budget, "bits": bits})
    return rows


def _bits(model: Any, blocks: Tensor, prompt: int, policy: str | None, measured: Tensor | None) -> float:
    nats, count = 0.0, 0
    for ids in blocks:
        cache = None if policy is None else regard.cache(model, policy, measured=measured)
        out = model(ids[None, :prompt], past_key_values=cache, use_cache=True)
        for at in range(prompt, len(ids)):
            nats -= float(out.logits[0, -1].log_softmax(-1)[ids[at]])
            out = model(ids[None, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            count += 1
        del cache, out
    return nats / count / math.log(2)


def table(result: dict[str, Any]) -> list[list[str]]:
    """Every part's rows, a head before each."""
    lines = []
    for part in PARTS:
        rows = result.get(part, [])
        if rows:
            lines += [[part], list(rows[0]), *([_said(value) for value in row.values()] for row in rows)]
    return lines


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
