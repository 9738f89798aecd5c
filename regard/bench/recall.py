"""`regard bench recall`: what each mechanism can and cannot remember, trained from nothing in minutes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from regard.bench.machine import describe
from regard.bench.recall_task import VALUES, Recaller, batch
from regard.errors import UserError

BATCH, RATE, TESTED, EVERY = 32, 3e-3, 256, 100
GOOD = 0.995


def run(
    mechanisms: Sequence[str],
    pairs: Sequence[int],
    minutes: float,
    steps: int,
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train each mechanism for at most `minutes` and `steps`, on texts of every length in turn; test each length.

    A mechanism's result is kept in `folder`; one that is there already, trained under the same settings, is not
    trained again. A broken-off training leaves nothing.
    """
    if minutes <= 0 or steps < 1 or not pairs or not mechanisms:
        raise UserError("bench recall needs some mechanisms and lengths, more than 0 minutes and at least 1 step")
    settings = {"pairs": list(pairs), "minutes": minutes, "steps": steps}
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in mechanisms:
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
        found = _kept(path, name, settings)
        if found is None:
            with one_thread():
                found = {"mechanism": name, "settings": settings, **train(name, pairs, minutes, steps, report)}
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        report(f"{name}: {_said(found['accuracy'])}, {found['steps']} steps in {found['seconds']:.0f} s")
        rows.append(found)
    return {"machine": describe(), **settings, "chance": 1 / VALUES, "rows": rows}


@contextmanager
def one_thread() -> Iterator[None]:
    """These products are too small to share among threads; two would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kept(path: Path, name: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found if (found["mechanism"], found["settings"]) == (name, settings) else None


def train(
    name: str, pairs: Sequence[int], minutes: float, steps: int, report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """One model from nothing: accuracy at each length, steps, seconds, and what ended it. The same seed for all."""
    torch.manual_seed(0)
    model, data = Recaller(name), torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    begun, done, ended, found = perf_counter(), 0, "steps", {}
    while done < steps:
        tokens, wanted = batch(pairs[done % len(pairs)], BATCH, data)
        loss = cross_entropy(_answers(model, tokens, wanted).flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        done += 1
        if perf_counter() - begun > 60 * minutes:
            ended = "minutes"
            break
        if done % EVERY == 0:
            found = accuracy(model, pairs)
            report(f"{name}, step {done}: {_said(found)}")
            if min(found.values()) >= GOOD:
                ended = "solved"
                break
    count = sum(p.numel() for p in model.parameters())
    seconds = perf_counter() - begun
    return {"accuracy": accuracy(model, pairs), "steps": done, "seconds": seconds, "ended": ended, "parameters": count}


def _answers(model: Recaller, tokens: Tensor, wanted: Tensor) -> Tensor:
    logits: Tensor = model(tokens)
    return logits[:, -wanted.shape[1] :]


@torch.no_grad()
def accuracy(model: Recaller, pairs: Sequence[int]) -> dict[str, float]:
    """Share of right answers on texts never trained on, by number of tokens."""
    generator, found = torch.Generator().manual_seed(2), {}
    for count in pairs:
        tokens, wanted = batch(count, max(8, TESTED // count), generator)
        right = _answers(model, tokens, wanted).argmax(-1) == wanted
        found[str(3 * count)] = float(right.double().mean())
    return found


def _said(found: dict[str, float]) -> str:
    return ", ".join(f"{100 * value:.0f} % at {length}" for length, value in found.items())


def table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows as text: accuracy in per cent at each number of tokens."""
    lengths = [str(3 * count) for count in result["pairs"]]
    lines = [["mechanism", *(f"{length} tokens" for length in lengths), "steps", "seconds", "ended by"]]
    for row in result["rows"]:
        cells = [f"{100 * row['accuracy'][length]:.0f} %" for length in lengths]
        lines.append([row["mechanism"], *cells, f"{row['steps']:,}", f"{row['seconds']:.0f}", row["ended"]])
    return lines


def plot(result: dict[str, Any], path: Path) -> None:
    """Accuracy against the number of tokens, a line per mechanism, as an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.add_subplot()
    markers = "osD^v<>phX*P"
    for place, row in enumerate(result["rows"]):
        lengths = [int(length) for length in row["accuracy"]]
        values = [100 * value for value in row["accuracy"].values()]
        style = "-" if place < 10 else "--"
        axes.plot(lengths, values, style, marker=markers[place % len(markers)], label=row["mechanism"])
    axes.axhline(100 * result["chance"], color="#999999", linewidth=1, linestyle=":")
    axes.text(lengths[0], 100 * result["chance"] + 1, "chance", fontsize=8, color="#777777")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.set_ylim(-3, 103)
    axes.set_xlabel("tokens (a third of them pairs' keys, a third values, a third questions)")
    axes.set_ylabel("right answers, %")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    axes.set_title(f"Associative recall after at most {result['minutes']:g} min or {result['steps']:,} steps")
    figure.savefig(path, dpi=120)
