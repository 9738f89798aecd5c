"""Numbers for Prometheus, read from the engine when asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from regard.serve.engine import Engine, Times

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """A registry of its own, so that two servers in one process do not meet."""

    def __init__(self, engine: Engine) -> None:
        import prometheus_client
        import prometheus_client.core

        self._library: Any = prometheus_client
        self._engine = engine
        self._lock = threading.Lock()
        self._registry = prometheus_client.CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry, "buckets": SECONDS}
        self._first = prometheus_client.Histogram("regard_time_to_first_token_seconds", "Since arrival.", **made)
        self._between = prometheus_client.Histogram("regard_time_between_tokens_seconds", "Of one answer.", **made)
        self._queue = prometheus_client.Histogram("regard_queue_seconds", "From arrival to the first step.", **made)
        self._tokens = prometheus_client.Counter("regard_generated_tokens", "Tokens written.", registry=self._registry)
        self._registry.register(_Gauges(engine, prometheus_client))

    def text(self) -> tuple[bytes, str]:
        """(the metrics, their content type)."""
        with self._lock:
            times, self._engine.times = self._engine.times, Times()
            for histogram, values in (
                (self._first, times.first),
                (self._between, times.between),
                (self._queue, times.queue),
            ):
                for value in values:
                    histogram.observe(value)
            self._tokens.inc(times.tokens)
            return self._library.generate_latest(self._registry), self._library.CONTENT_TYPE_LATEST


class _Gauges:
    """What can be read off at any time."""

    def __init__(self, engine: Engine, library: Any) -> None:
        self._engine = engine
        self._core = library.core

    def collect(self) -> Iterator[Any]:
        """One family for each number."""
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        scheduler = self._engine.scheduler
        pool, counters = scheduler.pool, scheduler.counters
        yield gauge("regard_requests_running", "Sequences that are being written.", len(scheduler.running))
        yield gauge("regard_requests_waiting", "Sequences that wait.", scheduler.num_waiting)
        yield gauge("regard_pages_total", "Pages of all groups.", sum(g.num_pages for g in pool.groups))
        yield gauge("regard_pages_used", "Pages owned by sequences.", pool.used)
        yield counter("regard_prompt_tokens", "Prompt tokens admitted.", counters.prompt_tokens)
        yield counter("regard_prefix_hit_tokens", "Prompt tokens found in cached pages.", counters.reused_tokens)
        yield counter("regard_preemptions", "Sequences that gave their pages back.", counters.preemptions)
        yield counter("regard_steps", "Steps computed.", counters.steps)
        ended = counter("regard_requests_finished", "Answers that ended, by reason.", labels=["reason"])
        for reason, count in list(counters.finished.items()):
            ended.add_metric([reason], count)
        yield ended
