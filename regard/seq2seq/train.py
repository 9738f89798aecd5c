"""regard train: from text to a model directory, in steps that can be stopped anywhere and gone on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from regard.errors import UserError
from regard.seq2seq import checkpoint
from regard.seq2seq.batches import Examples, Sized, epoch_batches
from regard.seq2seq.checkpoint import Counters
from regard.seq2seq.narrow import Quick
from regard.seq2seq.objective import Batch, Objective, batch_of
from regard.seq2seq.recipe import Recipe

SAVE_SECONDS = 120.0
PRODUCTS = {"no": None, "bf16": torch.bfloat16}


class Told(Protocol):
    """Who hears how a training goes."""

    def step(self, counters: Counters, loss: float, tokens: int, left: float | None) -> None: ...

    def evaluated(self, row: dict[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained, and how good it is. evaluate: the model with the weights to keep -> scores, "score" among
    them, higher is better; keep: write the model that scored best so far. batch: the tensors of some examples, by
    default of pairs of texts; loss: the module that makes a batch's summed loss, by default `Objective`."""

    model: Any
    examples: Sized
    pad: int
    causal: bool
    evaluate: Callable[[Any], dict[str, float]]
    keep: Callable[[Any, Counters], None]
    batch: Callable[[list[int]], Batch] | None = None
    loss: Callable[[Any], torch.nn.Module] | None = None


def train(task: Task, recipe: Recipe, folder: Path, told: Told, minutes: float | None, steps: int | None) -> Counters:
    """Train until the recipe's end, for `minutes`, or up to `steps`; goes on where the folder's checkpoint stands."""
    from accelerate import Accelerator

    here = not torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="no" if here else recipe.precision, cpu=here)
    return _Training(task, recipe, folder, told, accelerator).run(minutes, steps)


class _Training:
    """One run: the objects that change from step to step."""

    def __init__(self, task: Task, recipe: Recipe, folder: Path, told: Told, accelerator: Any) -> None:
        self.task, self.recipe, self.folder, self.told, self.accelerator = task, recipe, folder, told, accelerator
        self.model = task.model.to(accelerator.device)
        torch.manual_seed(recipe.seed + 7919 * accelerator.process_index)
        self.weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.weights, lr=0.0, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.average = [weight.detach().clone() for weight in self.weights] if recipe.average else []
        self.counters = Counters()
        self._go_on()
        made = Objective(self.model, recipe.smoothing) if task.loss is None else task.loss(self.model)
        self.objective = accelerator.prepare(made)

    def _go_on(self) -> None:
        found = checkpoint.load(self.folder)
        if found is not None:
            tensors, self.counters, kept = found
            self.recipe.check_same(kept, self.folder)
            checkpoint.restore(self.model, self.optimizer, self.average, tensors)

    def run(self, minutes: float | None, steps: int | None) -> Counters:
        begun = saved = time.monotonic()
        until = math.inf if minutes is None else begun + 60 * minutes
        self._clock = (begun, time.process_time())
        self._end_seconds = until
        if self.counters.done and (steps is None or self.counters.step >= steps):
            return self.counters
        self.counters.done = ""
        self.model.train()
        for rows, last in self._rows():
            self._step(rows, steps)
            now = time.monotonic()
            if self._due(last):
                self._evaluate()
                saved = self._save()
            elif now - saved > SAVE_SECONDS:
                saved = self._save()
            reached = steps is not None and self.counters.step >= steps
            if self.counters.done or reached or now > until:
                break
        else:
            self.counters.done = f"{self.recipe.epochs} epochs"
            if [row["step"] for row in self.counters.history[-1:]] != [self.counters.step]:
                self._evaluate()
        self._save()
        return self.counters

    def _rows(self) -> Iterator[tuple[list[int], bool]]:
        """The batches still to come, in order, and whether one is its epoch's last. Counts epochs and batches."""
        counters, count = self.counters, self.accelerator.num_processes
        while counters.epoch < self.recipe.epochs:
            batches = epoch_batches(self.task.examples, self.recipe.tokens, self.recipe.seed, counters.epoch)
            whole = max(len(batches) // count, 1)
            while counters.batch < whole:
                rows = batches[(counters.batch * count + self.accelerator.process_index) % len(batches)]
                counters.batch += 1
                last = counters.batch == whole
                if last:
                    counters.epoch, counters.batch = counters.epoch + 1, 0
                yield rows, last
                if last:
                    break

    def _step(self, rows: list[int], steps: int | None) -> None:
        recipe, counters = self.recipe, self.counters
        batch = self._batch(rows)
        labels = int((batch["labels"] != -100).sum())
        counters.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(counters.step)
        with self.accelerator.autocast(), Quick(PRODUCTS[recipe.precision]):
            loss = self.objective(**batch) / labels
        self.accelerator.backward(loss)
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.weights, recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._mean()
        counters.tokens += labels
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"the loss became {value} at step {counters.step}; lower --rate, the checkpoint is kept")
        self.told.step(counters, value, labels, self._seconds_left(steps))

    def _batch(self, rows: list[int]) -> Batch:
        task = self.task
        if task.batch is not None:
            made = task.batch(rows)
        else:
            assert isinstance(task.examples, Examples)
            made = batch_of(task.examples, rows, task.pad, task.causal)
        return {name: tensor.to(self.accelerator.device) for name, tensor in made.items()}

    @torch.no_grad()
    def _mean(self) -> None:
        """w̄ ← w̄ + (1 - d)(w - w̄), d growing to recipe.average, so that early weights are soon forgotten."""
        if self.average:
            step = self.counters.step
            decay = min(self.recipe.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, self.weights, 1 - decay)

    def _due(self, last: bool) -> bool:
        every = self.recipe.evaluate
        return last if every == 0 else self.counters.step % every == 0

    def _evaluate(self) -> None:
        counters = self.counters
        self._tick()
        self._exchange()
        self.model.eval()
        try:
            scores = self.task.evaluate(self.model)
            counters.history.append(self._row(scores))
            if scores["score"] > counters.best:
                counters.best, counters.waited = scores["score"], 0
                if self.accelerator.is_main_process:
                    self.task.keep(self.model, counters)
            else:
                counters.waited += 1
        finally:
            self.model.train()
            self._exchange()
        if counters.waited >= self.recipe.patience:
            counters.done = f"no better score in {counters.waited} evaluations"
        self.told.evaluated(counters.history[-1])

    def _row(self, scores: dict[str, float]) -> dict[str, Any]:
        """An evaluation for the history: where it was, how good, and the time that training has taken."""
        counters, told = self.counters, {name: round(value, 4) for name, value in scores.items()}
        spent = {"minutes": round(counters.wall_seconds / 60, 2), "core_minutes": round(counters.cpu_seconds / 60, 2)}
        return {"step": counters.step, "epoch": counters.epoch, **told, **spent}

    @torch.no_grad()
    def _exchange(self) -> None:
        """The running mean in the model's stead, and back."""
        for weight, mean in zip(self.weights, self.average):
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)

    def _save(self) -> float:
        self._tick()
        if self.accelerator.is_main_process:
            tensors = checkpoint.tensors_of(self.model, self.optimizer, self.average)
            checkpoint.save(self.folder, tensors, self.counters, self.recipe.json())
        return time.monotonic()

    def _tick(self) -> None:
        """Count the time since the last call."""
        wall, cpu = self._clock
        self._clock = (time.monotonic(), time.process_time())
        self.counters.wall_seconds += self._clock[0] - wall
        self.counters.cpu_seconds += self._clock[1] - cpu

    def _seconds_left(self, steps: int | None) -> float | None:
        """Until the nearest end that is known: of the minutes, or of the steps."""
        spent = self.counters.wall_seconds + time.monotonic() - self._clock[0]
        by_time = self._end_seconds - time.monotonic()
        by_steps = math.inf if steps is None else spent / max(self.counters.step, 1) * (steps - self.counters.step)
        least = min(by_time, by_steps)
        return None if math.isinf(least) else max(least, 0.0)


def mean_loss(objective: Objective, examples: Examples, pad: int, causal: bool, tokens: int) -> float:
    """Nats per label of held-out examples, without smoothing."""
    total: Tensor | float = 0.0
    count = 0
    for rows in epoch_batches(examples, tokens, 0, 0):
        batch = batch_of(examples, rows, pad, causal)
        batch = {name: tensor.to(objective.model.device) for name, tensor in batch.items()}
        first = batch["labels"][:, 1:] if causal else batch["labels"]
        count += int((first != -100).sum())
        with torch.no_grad():
            total += float(objective(**batch))
    return float(total) / max(count, 1)
