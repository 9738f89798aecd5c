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
    "top 8 of each layer's mean": Look(("top",), heads="mean", top_k=8),
    "top 8 of all heads": Look(("top",), heads="all", top_k=8),
}
OWN = {"regard": "stored", "float32": "float32", "int8": "int8"}  # contestants by how their weights are stored
NAMES = (*OWN, "look", "one", "static", "continuous")


def run(
    shape: str,
    asks: list[Ask],
    contestants: list[str],
    batches: list[int],
    say: Callable[[str], None],
    reuse: bool = True,
    alone: int | None = None,
) -> dict[str, Any]:
    """Replay a load. contestants: of NAMES; batches: sizes of static batches; reuse: requests share pages; alone: how
    many of the requests are answered one by one, None for all. Raises UserError for other names."""
    unknown = next((name for name in contestants if name not in NAMES), None)
    if unknown is not None:
        raise UserError(f"--against {unknown}: one of {', '.join(NAMES)} is needed")
    model = build(shape)
    results: list[Replay] = []
    for name in OWN:
        if name in contestants or (name == "regard" and "look" in contestants):
            results += _regard(copy.deepcopy(model), name, asks, "look" in contestants and name == "regard", reuse, say)
            gc.collect()
    for name, play in _others(model, asks, contestants, batches, alone):
        say(name)
        results.append(play())
    figures = [replay.figures() for replay in results]
    for replay, figure in zip(results, figures):
        figure["against_first"] = figures[0]["tokens_per_second"] / figure["tokens_per_second"]
        figure["same_tokens"] = _same(results[0], replay)
    about = {"shape": shape, "requests": len(asks), "prompt_tokens": sum(len(a.prompt) for a in asks)}
    return about | {"new_tokens": sum(a.new_tokens for a in asks), "machine": describe(), "results": figures}


def _regard(
    model: Any, name: str, asks: list[Ask], looks: bool, reuse: bool, say: Callable[[str], None]
) -> list[Replay]:
    runner = Runner(model, weights=OWN[name])
    peers.with_regard(runner, [Ask(a.prompt[:32], 4) for a in asks[:4]])  # warms up
    title = "regard" if name == "regard" else f"regard, {name} weights"
    say(title)
    found = [peers.with_regard(runner, asks, reuse=reuse, name=title)]
    for what, look in LOOKS.items() if looks else ():
        say(what)
        found.append(peers.with_regard(runner, asks, look, name=f"{title}, {what}"))
    runner.close()
    return found


def _others(
    model: Any, asks: list[Ask], contestants: list[str], batches: list[int], alone: int | None
) -> list[tuple[str, Callable[[], Replay]]]:
    found: list[tuple[str, Callable[[], Replay]]] = []
    if "one" in contestants:
        found.append(("generate, one by one", lambda: peers.one_by_one(model, asks[:alone])))
    for size in batches if "static" in contestants else ():
        found.append((f"static batches of {size}", lambda size=size: peers.static(model, asks, size)))  # type: ignore[misc]
    if "continuous" in contestants:
        found.append(("transformers' continuous batching", lambda: peers.continuous(model, asks)))
    return found


def _same(a: Replay, b: Replay) -> float:
    """The share of b's requests that were answered with the same tokens as a's."""
    return sum(x == y for x, y in zip(a.tokens, b.tokens)) / max(1, len(b.tokens))


def table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of text, a head first."""
    lines = [["", "tokens/s", "the first is", "first token", "between p50", "p99", "goodput/s", "same tokens"]]
    for r in result["results"]:
        numbers = [_seconds(r[name]) for name in ("first_token", "between_p50", "between_p99")]
        lines.append(
            [r["name"], f"{r['tokens_per_second']:.1f}", f"{r['against_first']:.2f} ×", *numbers,
             f"{r['goodput']:.2f}", f"{100 * r['same_tokens']:.0f} %"]
        )  # fmt: skip
    return lines


def _seconds(x: float | None) -> str:
    return "" if x is None else f"{1000 * x:.0f} ms"
