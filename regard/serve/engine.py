"""The engine: submits requests to the scheduler, has the runner compute steps, chooses tokens, reports what is new.

One thread calls `step`; `submit` and `cancel` may be called from any other.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from regard.errors import UserError
from regard.serve.answers import (
    Choice,
    Event,
    Writing,
    by_work,
    ended,
    kept_rows,
    looked_at,
    may_guess,
    read_prompts,
    report,
    row_of,
)
from regard.serve.grammar import Grammars, Matcher
from regard.serve.look import Wanted
from regard.serve.lookup import guess
from regard.serve.pool import Copy
from regard.serve.request import Reason, Request, Sequence
from regard.serve.sampler import Chances, Row, chances, choose, key_of
from regard.serve.scheduler import QueueFull, Scheduler, Work
from regard.serve.text import Detokeniser, StopStrings


class Computes(Protocol):
    """What an engine needs of a runner."""

    @property
    def vocabulary(self) -> int:
        """Number of logits of a row."""
        ...

    def run(self, work: list[Work], copies: list[Copy], keep: Tensor, wanted: list[Wanted | None]) -> Tensor:
        """Logits of the kept rows, [rows, vocabulary]; fills what is wanted of their attention."""
        ...


@dataclass
class Times:
    """Seconds, as observed since they were last taken: to the first token, between tokens, in the queue."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    tokens: int = 0


class Engine:
    """deliver: called with the events of a step, in the engine's thread."""

    def __init__(
        self,
        runner: Computes,
        scheduler: Scheduler,
        deliver: Callable[[list[Event]], None] = lambda events: None,
        tokenizer: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.scheduler = scheduler
        self.deliver = deliver
        self.tokenizer = tokenizer
        self.clock = clock
        self.times = Times()
        self.failure: str | None = None
        self._grammars: Grammars | None = None
        self._inbox: deque[tuple[str, Any]] = deque()
        self._pending: set[str] = set()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ---- from other threads -----------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue a request. Raises UserError or QueueFull at once for one that cannot be taken."""
        if self.failure is not None or self._stopping:
            raise QueueFull(self.failure or "the server is stopping and takes no new requests")
        self.scheduler.check(request)
        if self.scheduler.num_waiting + len(self._pending) >= self.scheduler.limits.max_waiting:
            raise QueueFull(f"{self.scheduler.num_waiting} requests are waiting, which is all this server queues")
        matcher = None if request.grammar is None else self.grammars().matcher(request.grammar)
        with self._wake:
            self._pending.add(request.id)
            self._inbox.append(("submit", (request, matcher, self.clock())))
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        """End a request, wherever it is; pages are free before the next step."""
        with self._wake:
            self._inbox.append(("cancel", request_id))
            self._wake.notify()

    def grammars(self) -> Grammars:
        """The compiler of grammars for this tokenizer."""
        if self._grammars is None:
            if self.tokenizer is None:
                raise UserError("response_format: this model has no tokenizer to constrain")
            self._grammars = Grammars(self.tokenizer, self.runner.vocabulary)
        return self._grammars

    def start(self) -> None:
        """Run steps in a thread of its own."""
        self._thread = threading.Thread(target=self._loop, name="regard-engine", daemon=True)
        self._thread.start()

    def stop(self, patience: float = 30.0) -> None:
        """Take nothing new; let what runs finish for so many seconds, then cancel it."""
        self._stopping = True
        ends = time.monotonic() + patience
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < ends:
            if self.scheduler.is_idle and not self._inbox:
                break
            time.sleep(0.02)
        with self._wake:
            self._inbox.append(("stop", None))
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def _loop(self) -> None:
        try:
            while True:
                with self._wake:
                    while not self._inbox and self.scheduler.is_idle:
                        self._wake.wait()
                    if any(what == "stop" for what, _ in self._inbox):
                        break
                self.step()
            self._end_all("cancelled", "the server stopped")
        except Exception as error:
            self.failure = f"the engine stopped: {type(error).__name__}: {error}"
            self._end_all("error", self.failure)
            raise

    def _end_all(self, reason: Reason, message: str) -> None:
        events = []
        for sequence in self.scheduler.alive:
            self.scheduler.finish(sequence, reason)
            events.append(Event(sequence.request.id, sequence.index, reason=reason, message=message))
        for what, given in list(self._inbox):
            if what == "submit":
                events += [Event(given[0].id, i, reason=reason, message=message) for i in range(given[0].n)]
        self.deliver(events)

    # ---- a step -----------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Take in what was submitted, compute one step, report; False when there was nothing to compute."""
        events = self._take_in()
        now = self.clock()
        for sequence in self.scheduler.expire(now):
            events += ended(sequence, "deadline", "the request's time ran out")
        plan = self.scheduler.schedule(self._guesses())
        if plan.work:
            events += self._compute(plan.work, plan.copies)
        if events:
            self.deliver(events)
        return bool(plan.work)

    def _take_in(self) -> list[Event]:
        events: list[Event] = []
        while self._inbox:
            what, given = self._inbox.popleft()
            if what == "submit":
                request, matcher, queued = given
                try:
                    sequence = self.scheduler.add(request, queued)
                    sequence.extra = self._writing(sequence, matcher)
                    sequence.extra.queued = queued
                except UserError as error:
                    events += [Event(request.id, i, reason="error", message=str(error)) for i in range(request.n)]
                self._pending.discard(request.id)
            elif what == "cancel":
                for sequence in self.scheduler.cancel(given):
                    events += ended(sequence, "cancelled", "")
        return events

    def _writing(self, sequence: Sequence, matcher: Matcher | None) -> Writing:
        request = sequence.request
        seed = random.getrandbits(63) if request.sampling.seed is None else request.sampling.seed
        words = None if self.tokenizer is None else Detokeniser(self.tokenizer, list(request.prompt))
        stops = StopStrings(request.stopping.strings, request.stopping.keep_stop)
        return Writing(key_of(seed, sequence.index), words, stops, matcher)

    def _guesses(self) -> dict[str, tuple[int, ...]]:
        """Tokens guessed to follow, of the sequences that ask for it."""
        found = {}
        for sequence in self.scheduler.running:
            wanted = sequence.request.speculate
            left = sequence.request.stopping.max_tokens - len(sequence.tokens) + sequence.num_prompt - 1
            if wanted and left > 0 and sequence.index == 0 and may_guess(sequence):
                tokens = guess(sequence.tokens, min(wanted, left))
                if tokens:
                    found[sequence.request.id] = tokens
        return found

    @torch.inference_mode()
    def _compute(self, work: list[Work], copies: list[Copy]) -> list[Event]:
        keep, spans = kept_rows(work)
        now = self.clock()
        for w in work:
            if not w.sequence.extra.started:
                w.sequence.extra.started = True
                self.times.queue.append(now - w.sequence.extra.queued)
        looks = [looked_at(w) for w in work]
        logits = self.runner.run(work, copies, torch.tensor(keep, dtype=torch.long), looks)
        read_prompts(work, spans, logits, looks)
        events: list[Event] = []
        chosen = self._choose(work, spans, logits)
        for w, look in zip(work, looks):
            if w.chooses:
                events += self._write(w, chosen[id(w)], look)
            else:
                self.scheduler.commit(w, [])
        return events

    def _choose(self, work: list[Work], spans: list[tuple[int, int]], logits: Tensor) -> dict[int, list[Choice]]:
        """By work: what is chosen for its sequences, several when its request forks now."""
        entries: list[tuple[Work, Sequence, int, Row]] = []
        for w, (_, choose_at) in zip(work, spans):
            if not w.chooses:
                continue
            forks = w.sequence.request.n > 1 and w.sequence.index == 0 and not w.sequence.output
            for sequence in (w.sequence, *(self._others(w) if forks else ())):
                for i in range(1 + len(w.guesses)):
                    entries.append((w, sequence, choose_at + i, row_of(sequence, w.guesses[:i])))
        if not entries:
            return {}
        rows = [row for _, _, row, _ in entries]
        mine = logits if len(rows) == len(logits) and rows[-1] == len(rows) - 1 else logits[rows]
        # The model's own chances are of the logits before the options change them.
        asked = [i for i, entry in enumerate(entries) if entry[1].request.logprobs is not None]
        own = mine[asked] if asked else None
        tokens = choose(mine, [row for *_, row in entries])
        told: dict[int, Chances] = {}
        if own is not None:
            most = [entries[i][1].request.logprobs or 0 for i in asked]
            told = dict(zip(asked, chances(own, [tokens[i] for i in asked], most)))
        return by_work(entries, tokens, told)

    def _others(self, w: Work) -> list[Sequence]:
        """The other answers of a request, whose prompt is now computed."""
        self.scheduler.commit(w, [])
        others = self.scheduler.fork(w.sequence)
        for other in others:
            matcher: Matcher | None = w.sequence.extra.matcher
            other.extra = self._writing(other, None if matcher is None else matcher.copy())
            begin, own = w.sequence.extra, other.extra
            own.queued, own.started, own.received = begin.queued, True, begin.received.copy()
            own.prompt_chances, own.prompt_attention = begin.prompt_chances, begin.prompt_attention
        return others

    def _write(self, w: Work, choices: list[Choice], look: Wanted | None) -> list[Event]:
        """Add what was chosen to its sequences."""
        events = []
        for choice in choices:
            sequence = choice.sequence
            first = not sequence.output
            rows = [] if look is None else [row for row in look.rows if row.position >= sequence.num_prompt - 1]
            if len(choices) > 1:
                sequence.tokens.extend(choice.tokens)  # the work was committed when its request forked
            else:
                self.scheduler.commit(w, choice.tokens)
            event, used = report(choice, rows, first)
            self._observe(sequence.extra, used)
            if used < len(choice.tokens):
                del sequence.tokens[used - len(choice.tokens) :]
            if event.reason is not None:
                self.scheduler.finish(sequence, event.reason)
            events.append(event)
        return events

    def _observe(self, writing: Writing, tokens: int) -> None:
        now = self.clock()
        self.times.tokens += tokens
        if writing.first is None:
            writing.first = now
            self.times.first.append(now - writing.queued)
        else:
            self.times.between += [(now - writing.last) / tokens] * tokens
        writing.last = now
