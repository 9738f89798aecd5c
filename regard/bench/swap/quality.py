"""Quality against budget: accuracy and bits per token of every policy, and of mechanisms in the model's place.

A policy gives up what it does after the prompt of a task; the tokens after it are fed one by one. A mechanism computes
the same tokens, prompt and all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import regard
from regard.bench.swap import asking
from regard.bench.swap.recaller import as_transformers
from regard.bench.swap.task import Task, passage_tasks, text_task
from regard.hf.plan import plan_of
from regard.swap.cost import OWN, costs
from regard.swap.retrieval import retrieval
from regard.swap.running import running
from regard.swap.staying import plan_held, swap

BUDGETS = (0.1, 0.25, 0.5, 0.75)
SINKS, TEXTS = 4, 64
STATES = ("linear_recurrent", "gla", "delta")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """What quality is measured on beside recall. text: any text. passages: lines of JSON, see `passage_tasks`; most:
    how many of them. model: a directory or name, None for the embedded model. steps: recall's training."""

    text: str | None = None
    passages: str | None = None
    model: str | None = None
    most: int = 16
    steps: int = asking.STEPS


@dataclass(frozen=True)
class Said:
    """What a model says at the wanted tokens: the share that is right, and mean −log₂ p of what is right."""

    accuracy: float
    bits: float


def quality_rows(sources: Sources, report: Report = lambda line: None) -> list[dict[str, Any]]:
    """A row for every task, and every policy and mechanism at each of its budgets.

    keeps: the share of the prompt's tokens that is kept; for what keeps all and reads some, the share that is read; for
    a state, its bytes as a share of the cache's.
    """
    rows: list[dict[str, Any]] = []
    for name, tasks in _tasks(sources, report):
        report(f"measuring {name}")
        rows += [{"task": name, **row} for row in task_rows(tasks)]
    return rows


def _tasks(sources: Sources, report: Report) -> Iterator[tuple[str, list[Task]]]:
    """Recall twice, then the text and the passages that there are."""
    recaller = as_transformers(asking.trained(sources.steps, report))
    for name, form in (("recall, asked again", asking.AGAIN), ("recall, asked first", asking.FIRST)):
        tokens, wanted = form.batch(TEXTS, torch.Generator().manual_seed(2))
        yield name, [Task(recaller, tokens, wanted[:, form.before :], form.prompt, recent=8, kernel=1)]
    if sources.text is None and sources.passages is None:
        return
    loaded = regard.load(sources.model)
    if sources.text is not None:
        yield "text", [text_task(loaded, sources.text)]
    if sources.passages is not None:
        yield "last words", passage_tasks(loaded, sources.passages, sources.most)


@torch.no_grad()
def task_rows(tasks: Sequence[Task], budgets: Sequence[float] = BUDGETS) -> list[dict[str, Any]]:
    """The rows of tasks that are counted together."""
    first = tasks[0]
    measured = retrieval(first.model, first.tokens[:1, : first.prompt], sinks=SINKS, recent=first.recent)
    rows = [_row("own", "all", 1.0, 1.0, tasks, [_with_mechanism(task, None) for task in tasks])]
    for budget in budgets:
        for form in policies(first):
            policy = form.format(budget)
            given = measured if policy.startswith("duo") else None
            both = [_with_policy(task, policy, given) for task in tasks]
            kept = budget if policy.startswith("quest") else sum(kept for _, kept in both) / len(both)
            rows.append(_row(form.split("(")[0], policy, budget, kept, tasks, [logits for logits, _ in both]))
        for name, form in mechanisms(first, budget).items():
            rows.append(_row(name, form, budget, budget, tasks, [_with_mechanism(task, form) for task in tasks]))
    for name in STATES:
        changed = swap(copy.deepcopy(first.model), name)
        plans = [OWN, plan_held(changed)]
        own, state = (cost.cache_bytes_per_token for cost in costs(changed, plans, first.tokens[0, : first.prompt]))
        moved = [replace(task, model=changed) for task in tasks]
        rows.append(_row(name, name, state / own, state / own, tasks, [_with_mechanism(t, None) for t in moved]))
    return rows


def policies(task: Task) -> tuple[str, ...]:
    """Every policy, with a gap for the budget and the sizes that suit the task."""
    votes = f"window={task.recent}, kernel={task.kernel}"
    voting = tuple(f"{name}({{}}, {votes})" for name in ("snapkv", "pyramid", "ada"))
    ends = f"duo({{}}, sinks={SINKS}, recent={task.recent})"
    return ("sinks({})", "h2o({})", "tova({})", *voting, "expected({})", ends, "quest({}, skip=0)")


def mechanisms(task: Task, budget: float) -> dict[str, str]:
    """The mechanisms that a budget can be given, with as many tokens as the policies."""
    tokens = max(int(budget * task.prompt), SINKS + 2)
    return {
        "window": f"window({tokens})",
        "window | sinks": f"window({tokens - SINKS}) | sinks({SINKS})",
        "topk": f"topk({tokens})",
    }


def _with_policy(task: Task, policy: str, measured: Tensor | None) -> tuple[Tensor, float]:
    """(logits [B,W,V] at the wanted tokens, the share of the prompt that is kept)."""
    cache = regard.cache(task.model, policy, measured=measured)
    task.model(task.tokens[:, : task.prompt], past_key_values=cache, use_cache=True)
    lengths = [layer.pages.lengths for layer in cache.managed if layer.pages is not None]
    kept = float(torch.stack(lengths).double().mean()) / task.prompt
    logits = []
    for at in range(task.prompt, task.tokens.shape[1]):
        logits.append(task.model(task.tokens[:, at : at + 1], past_key_values=cache, use_cache=True).logits)
    return torch.cat(logits, 1)[:, -task.wanted.shape[1] :], kept


def _with_mechanism(task: Task, form: str | None) -> Tensor:
    """Logits [B,W,V] of the whole computed at once; None: by the model's own attention."""
    if form is None:
        found = task.model(task.tokens, use_cache=False).logits
    else:
        with running(task.model, plan_of(form)):
            found = task.model(task.tokens, use_cache=False).logits
    logits: Tensor = found[:, -task.wanted.shape[1] :]
    return logits


def _row(
    name: str, form: str, budget: float, keeps: float, tasks: Sequence[Task], logits: Sequence[Tensor]
) -> dict[str, Any]:
    said = scored(tasks, logits)
    return {
        "attention": name,
        "form": form,
        "budget": budget,
        "keeps": keeps,
        "accuracy": said.accuracy,
        "bits": said.bits,
    }


def scored(tasks: Sequence[Task], logits: Sequence[Tensor]) -> Said:
    """What is right and how surely, over all tasks."""
    right = counted = tokens = 0
    nats = 0.0
    for task, mine in zip(tasks, logits, strict=True):
        equal = mine.argmax(-1) == task.wanted
        hits = equal.all(-1) if task.whole else equal
        right, counted, tokens = right + int(hits.sum()), counted + hits.numel(), tokens + equal.numel()
        nats -= float(mine.double().log_softmax(-1).gather(-1, task.wanted[..., None]).sum())
    return Said(right / counted, nats / tokens / math.log(2))
