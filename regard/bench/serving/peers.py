"""What replays a load: regard's engine, and transformers in three ways. Each takes a model of its own."""

from __future__ import annotations

import time
from typing import Any

import torch

from regard.bench.serving.load import Ask
from regard.bench.serving.measured import Replay
from regard.serve.answers import Event
from regard.serve.engine import Engine
from regard.serve.request import Look, Request, Sampling, Stopping
from regard.serve.runner import Runner
from regard.serve.scheduler import Limits, Scheduler
from regard.serve.shown import row_json


def with_regard(
    runner: Runner, asks: list[Ask], look: Look | None = None, reuse: bool = True, name: str = "regard", **limits: Any
) -> Replay:
    """regard's engine in this thread; a request is submitted when its time has come."""
    bounds = Limits(**({"token_budget": 512, "max_running": 64, "max_length": runner.max_length} | limits))
    pool = runner.pool(1 << 30, bounds.token_budget, bounds.max_running, reuse)
    times: list[list[float]] = [[] for _ in asks]
    tokens: list[list[int]] = [[] for _ in asks]
    told = [0] * len(asks)
    begin = time.perf_counter()

    def deliver(events: list[Event]) -> None:
        now = time.perf_counter() - begin
        for event in events:
            i = int(event.request_id)
            times[i] += [now - asks[i].arrives] * len(event.tokens)
            tokens[i] += event.tokens
            for row in event.attention:
                told[i] += len(row_json(row))  # as the server writes it

    engine = Engine(runner, Scheduler(pool, bounds), deliver)
    waiting = sorted(range(len(asks)), key=lambda i: asks[i].arrives)
    used = slots = 0
    while waiting or not engine.scheduler.is_idle:
        now = time.perf_counter() - begin
        while waiting and asks[waiting[0]].arrives <= now:
            engine.submit(_request(waiting.pop(0), asks, look))
        if not engine.step() and waiting:
            time.sleep(max(0.0, asks[waiting[0]].arrives - (time.perf_counter() - begin)))
        slots += sum(len(s.table.pages[0]) * pool.page_size for s in engine.scheduler.running)
        used += sum(s.num_computed for s in engine.scheduler.running)
    counters = engine.scheduler.counters
    notes: dict[str, Any] = {
        "page_waste": 1 - used / slots if slots else 0.0,
        "preemptions": counters.preemptions,
        "prefix_hits": counters.reused_tokens / max(1, counters.prompt_tokens),
    }
    if look is not None:
        notes["attention_bytes"] = sum(told)
    return Replay(name, times, time.perf_counter() - begin, tokens, notes)


def _request(i: int, asks: list[Ask], look: Look | None) -> Request:
    greedy = Sampling(temperature=0.0)
    return Request(str(i), tuple(asks[i].prompt), greedy, Stopping(max_tokens=asks[i].new_tokens), look=look)


def one_by_one(model: Any, asks: list[Ask]) -> Replay:
    """transformers' generate, one request after the other."""
    replay = static(model, asks, 1)
    replay.name = f"generate, one by one ({len(asks)})"
    return replay


def static(model: Any, asks: list[Ask], size: int) -> Replay:
    """transformers' generate on padded batches in order of arrival, each as long as its longest answer."""
    times: list[list[float]] = [[] for _ in asks]
    tokens: list[list[int]] = [[] for _ in asks]
    begin = time.perf_counter()
    for at in range(0, len(asks), size):
        part = asks[at : at + size]
        _wait(begin, max(ask.arrives for ask in part))
        long, new = max(len(ask.prompt) for ask in part), max(ask.new_tokens for ask in part)
        ids = torch.zeros((len(part), long), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, ask in enumerate(part):
            ids[row, long - len(ask.prompt) :] = torch.tensor(ask.prompt)
            mask[row, long - len(ask.prompt) :] = 1
        clock = _Clock()
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0,
                streamer=clock if size == 1 else None, stopping_criteria=[clock.tick] if size > 1 else None,
            )  # fmt: skip
        for row, ask in enumerate(part):
            tokens[at + row] = out[row, long : long + ask.new_tokens].tolist()
            times[at + row] = [t - begin - ask.arrives for t in clock.times[: ask.new_tokens]]
    return Replay(f"static batches of {size}", times, time.perf_counter() - begin, tokens)


class _Clock:
    """Notes when each token comes, as a streamer or as a stopping criterion."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._begun = False

    def put(self, value: Any) -> None:
        """A streamer is shown the prompt first."""
        if self._begun:
            self.times.append(time.perf_counter())
        self._begun = True

    def end(self) -> None:
        """Nothing more comes."""

    def tick(self, ids: Any, scores: Any, **_: Any) -> Any:
        """A stopping criterion that never stops."""
        self.times.append(time.perf_counter())
        return torch.zeros(ids.shape[0], dtype=torch.bool)


def _wait(begin: float, arrives: float) -> None:
    time.sleep(max(0.0, arrives - (time.perf_counter() - begin)))


def continuous(model: Any, asks: list[Ask]) -> Replay:
    """transformers' continuous batching, all requests at once."""
    import transformers as tf

    config = tf.GenerationConfig(max_new_tokens=max(a.new_tokens for a in asks), do_sample=False, eos_token_id=-1)
    model.generation_config.eos_token_id = None
    settings = tf.generation.ContinuousBatchingConfig(max_memory_percent=0.2)
    begin = time.perf_counter()
    times: list[list[float]] = [[] for _ in asks]
    tokens: list[list[int]] = [[] for _ in asks]
    model.set_attn_implementation("sdpa")
    manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=settings)
    manager.start()
    try:
        names = {
            manager.add_request(a.prompt, max_new_tokens=a.new_tokens, streaming=True): i for i, a in enumerate(asks)
        }
        left = len(asks)
        while left:
            result = manager.get_result(timeout=60)
            if result is None:
                raise RuntimeError("transformers' continuous batching gave no result within a minute")
            i = names[result.request_id]
            now = time.perf_counter() - begin
            new = len(result.generated_tokens) - len(tokens[i])
            tokens[i] = list(result.generated_tokens)
            times[i] += [now] * new
            left -= result.is_finished()
    finally:
        manager.stop(block=True)
    return Replay("transformers' continuous batching", times, time.perf_counter() - begin, tokens)
