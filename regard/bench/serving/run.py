"""The benchmark: the same load for everyone, one after the other, and the figures side by side."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

from regard.bench.machine import describe
from regard.bench.serving import peers
from regard.bench.serving.load import Ask
from regard.bench.serving.measured import Replay
from regard.bench.serving.models import build
from regard.errors import UserError
from regard.serve.request import Look
from regard.serve.runner import Runner

LOOKS = {
    "regard, top 8 of each layer's mean": Look(("top",), heads="mean", top_k=8),
    "regard, top 8 of all heads": Look(("top",), heads="all", top_k=8),
}
NAMES = ("regard", "look", "one", "static", "continuous")


def run(
    shape: str, asks: list[Ask], contestants: list[str], batches: list[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """Replay a load. contestants: of NAMES; batches: sizes of static batches. Raises UserError for other names."""
    unknown = next((name for name in contestants if name not in NAMES), None)
    if unknown is not None:
        raise UserError(f"--against {unknown}: one of {', '.join(NAMES)} is needed")
    model = build(shape)
    results: list[Replay] = []
    if {"regard", "look"} & set(contestants):
        results += _regard(copy.deepcopy(model), asks, "look" in contestants, say)
        gc.collect()
    for name, play in _others(model, asks, contestants, batches):
        say(name)
        results.append(play())
    figures = [replay.figures() for replay in results]
    for replay, figure in zip(results, figures):
        figure["against_regard"] = figures[0]["tokens_per_second"] / figure["tokens_per_second"]
        figure["same_tokens"] = _same(results[0], replay)
    about = {"shape": shape, "requests": len(asks), "prompt_tokens": sum(len(a.prompt) for a in asks)}
    return about | {"new_tokens": sum(a.new_tokens for a in asks), "machine": describe(), "results": figures}


def _regard(model: Any, asks: list[Ask], looks: bool, say: Callable[[str], None]) -> list[Replay]:
    runner = Runner(model)
    peers.with_regard(runner, [Ask(a.prompt[:32], 4) for a in asks[:4]])  # warms up
    say("regard")
    found = [peers.with_regard(runner, asks)]
    for name, look in LOOKS.items() if looks else ():
        say(name)
        found.append(peers.with_regard(runner, asks, look, name=name))
    return found


def _others(
    model: Any, asks: list[Ask], contestants: list[str], batches: list[int]
) -> list[tuple[str, Callable[[], Replay]]]:
    found: list[tuple[str, Callable[[], Replay]]] = []
    if "one" in contestants:
        found.append(("generate, one by one", lambda: peers.one_by_one(model, asks)))
    for size in batches if "static" in contestants else ():
        found.append((f"static batches of {size}", lambda size=size: peers.static(model, asks, size)))  # type: ignore[misc]
    if "continuous" in contestants:
        found.append(("transformers' continuous batching", lambda: peers.continuous(model, asks)))
    return found


def _same(a: Replay, b: Replay) -> float:
    """The share of requests that were answered with the same tokens."""
    return sum(x == y for x, y in zip(a.tokens, b.tokens)) / max(1, len(a.tokens))


def table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of text, a head first."""
    lines = [["", "tokens/s", "regard is", "first token", "between p50", "p99", "goodput/s", "same tokens"]]
    for r in result["results"]:
        numbers = [_seconds(r[name]) for name in ("first_token", "between_p50", "between_p99")]
        lines.append(
            [r["name"], f"{r['tokens_per_second']:.1f}", f"{r['against_regard']:.2f} ×", *numbers,
             f"{r['goodput']:.2f}", f"{100 * r['same_tokens']:.0f} %"]
        )  # fmt: skip
    return lines


def _seconds(x: float | None) -> str:
    return "" if x is None else f"{1000 * x:.0f} ms"
