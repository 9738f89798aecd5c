"""The benchmark: the same load for everyone, one after the other, and the figures side by side."""

from __future__ import annotations

import copy
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regard.bench.machine import describe
from regard.bench.serving import foreign, over_http, peers
from regard.bench.serving.compared import compared
from regard.bench.serving.foreign import Peer
from regard.bench.serving.load import Ask
from regard.bench.serving.measured import Replay, middle
from regard.bench.serving.models import build
from regard.errors import UserError
from regard.serve.request import Look
from regard.serve.runner import Runner

LOOKS = {
    "top 8 of each layer's mean": Look(("top",), heads="mean", top_k=8),
    "top 8 of all heads": Look(("top",), heads="all", top_k=8),
}
OWN = {"regard": "stored", "float32": "float32", "int8": "int8"}  # contestants by how their weights are stored
NAMES = (*OWN, "look", "http", "one", "static", "continuous")


def run(
    shape: str,
    asks: list[Ask],
    contestants: list[str],
    batches: list[int],
    say: Callable[[str], None],
    reuse: bool = True,
    alone: int | None = None,
    others: list[Peer] | None = None,
    turns: int = 1,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Replay a load. contestants: of NAMES; batches: sizes of static batches; reuse: requests share pages; alone: how
    many of the requests are answered one by one, None for all; others: engines of other environments; turns: how often
    regard and the others replay it, the median counts; folder: where the checkpoint that they read is kept, None for
    one that goes with the run. Raises UserError for other names."""
    unknown = next((name for name in contestants if name not in NAMES), None)
    if unknown is not None:
        raise UserError(f"--against {unknown}: one of {', '.join(NAMES)} is needed")
    model = build(shape)
    results: list[Replay] = []
    for name in OWN:
        if name in contestants or (name == "regard" and "look" in contestants):
            looks = LOOKS if name == "regard" and "look" in contestants else {}
            results += _regard(copy.deepcopy(model), name, asks, looks, reuse, turns, say)
            gc.collect()
    if "http" in contestants or others:
        with tempfile.TemporaryDirectory() as temporary:
            at = (folder or Path(temporary)) / shape
            results += _outside(model, at, asks, "http" in contestants, others or [], turns, say)
    for name, play in _others(model, asks, contestants, batches, alone):
        say(name)
        results.append(play())
    figures = [replay.figures() for replay in results]
    for replay, figure in zip(results, figures):
        figure["against_first"] = figures[0]["tokens_per_second"] / figure["tokens_per_second"]
        figure |= compared(model, asks, results[0].tokens, replay.tokens)
    about = {"shape": shape, "requests": len(asks), "prompt_tokens": sum(len(a.prompt) for a in asks)}
    return about | {"new_tokens": sum(a.new_tokens for a in asks), "machine": describe(), "results": figures}


def _regard(
    model: Any, name: str, asks: list[Ask], looks: dict[str, Look], reuse: bool, turns: int, say: Callable[[str], None]
) -> list[Replay]:
    """regard's engine in this process: plain, then with every look, `turns` times."""
    runner = Runner(model, weights=OWN[name])
    peers.with_regard(runner, [Ask(a.prompt[:32], 4) for a in asks[:4]])  # warms up
    title = "regard" if name == "regard" else f"regard, {name} weights"
    kinds: dict[str, Look | None] = {title: None} | {f"{title}, {what}": look for what, look in looks.items()}
    ran: dict[str, list[Replay]] = {kind: [] for kind in kinds}
    for turn in range(turns):
        for kind, look in kinds.items():
            say(f"{kind}{f', turn {turn + 1}' if turns > 1 else ''}")
            ran[kind].append(peers.with_regard(runner, asks, look, reuse, kind))
    runner.close()
    return [middle(replays) for replays in ran.values()]


def _outside(
    model: Any, at: Path, asks: list[Ask], http: bool, others: list[Peer], turns: int, say: Callable[[str], None]
) -> list[Replay]:
    """regard's server and other projects' engines, which are processes of their own and read a checkpoint."""
    if not (at / "model").is_dir():
        foreign.save(model, at / "model")
    found = over_http.contest(at / "model", asks, turns, say) if http else []
    for peer in others:
        say(peer.name)
        found.append(foreign.replay(peer, at, asks, turns))
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
