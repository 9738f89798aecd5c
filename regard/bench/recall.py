"""`regard bench recall`: what each mechanism can and cannot remember, trained from nothing in as many steps."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from regard.bench.machine import describe
from regard.bench.recall_task import VALUES, Recaller, batch, mixer
from regard.errors import UserError

BATCH, RATE, WARM, LAST = 32, 1e-2, 100, 0.1
TESTED, EVERY = 1024, 200
SOLVED = 0.999


@dataclass(frozen=True)
class Budget:
    """What each training gets. pairs: trained on in turn, then tested; beyond: only tested; steps: the limit, which the
    learning rate's decay is stretched over. minutes: another limit (None: none), which makes results depend on the
    machine and is said in the row when it was hit. seed: of the model's start and the texts it is trained on.
    """

    pairs: tuple[int, ...] = (4, 8, 16, 32)
    beyond: tuple[int, ...] = (64,)
    steps: int = 2400
    minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.pairs or self.steps < 1:
            raise UserError("bench recall needs some lengths and at least 1 step")
        if self.minutes is not None and self.minutes <= 0:
            raise UserError(f"a limit of {self.minutes:g} minutes leaves no time to train; give more, or none")

    @property
    def tested(self) -> tuple[int, ...]:
        return (*self.pairs, *self.beyond)


def run(
    mechanisms: Sequence[str], budget: Budget, folder: Path, report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Train each mechanism on texts of every length in turn, and test each length.

    A mechanism's result is kept in `folder`; one that is there already, trained under the same budget, is not trained
    again. A broken-off training leaves nothing.
    """
    if not mechanisms:
        raise UserError("bench recall needs some mechanisms")
    for name in mechanisms:
        mixer(name)  # a name that is not known is refused before anything is trained or written
    settings = json.loads(json.dumps(asdict(budget)))
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in mechanisms:
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
        found = _kept(path, name, settings)
        if found is None:
            with one_thread():
                found = {"mechanism": name, "settings": settings, **train(name, budget, report)}
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


def train(name: str, budget: Budget, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """One model from nothing: accuracy at each length, steps, seconds, and what ended it.

    It ends early once every trained length is answered to SOLVED.
    """
    torch.manual_seed(budget.seed)
    model, data = Recaller(name), torch.Generator().manual_seed(1 + 1000 * budget.seed)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_rate(step, budget.steps))
    begun, done, ended = perf_counter(), 0, "steps"
    while done < budget.steps:
        tokens, wanted = batch(budget.pairs[done % len(budget.pairs)], BATCH, data)
        loss = cross_entropy(_answers(model, tokens, wanted).flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        done += 1
        if budget.minutes is not None and perf_counter() - begun > 60 * budget.minutes:
            ended = "minutes"
            break
        if done % EVERY == 0:
            found = accuracy(model, budget.pairs)
            report(f"{name}, step {done}: {_said(found)}")
            if min(found.values()) >= SOLVED:
                ended = "solved"
                break
    seconds = perf_counter() - begun
    found = accuracy(model, budget.tested)
    count = sum(p.numel() for p in model.parameters())
    return {"accuracy": found, "steps": done, "seconds": seconds, "ended": ended, "parameters": count}


def share_of_rate(step: int, steps: int) -> float:
    """A linear warm-up over WARM steps, then half a cosine down to LAST."""
    return min(1.0, (step + 1) / WARM) * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * step / steps)))


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
    tested = [*result["pairs"], *result["beyond"]]
    heads = [f"{3 * pairs} tokens" + (" (not trained on)" if pairs in result["beyond"] else "") for pairs in tested]
    lines = [["mechanism", *heads, "steps", "ended by"]]
    for row in result["rows"]:
        cells = [f"{100 * row['accuracy'][str(3 * pairs)]:.0f} %" for pairs in tested]
        lines.append([row["mechanism"], *cells, f"{row['steps']:,}", ENDED[row["ended"]]])
    return lines


ENDED = {"solved": "solved", "steps": "the last step", "minutes": "the limit of minutes"}
