"""The scheduler: which tokens of which sequences are computed in the next step. Pure Python over plain records.

Every step mixes one token of each sequence that is writing with chunks of prompts, under a budget of tokens. A lower
rank goes first; the rank is the arrival time, moved by so many seconds per level of priority, so nobody waits for
ever. When pages run out, the sequence of highest rank gives all its pages back and is computed again later. The
sequence of lowest rank is never interrupted, and a sequence that could not fit alone is refused when it arrives: so
some sequence always gets on.
"""

from __future__ import annotations

import heapq
from bisect import insort
from dataclasses import dataclass, field
from operator import attrgetter

from regard.errors import UserError
from regard.serve.pool import Copy, Pool
from regard.serve.request import Reason, Request, Sequence

BY_RANK = attrgetter("rank")


class QueueFull(UserError):
    """No room for another waiting request; `retry_after` seconds may help."""


@dataclass(frozen=True)
class Limits:
    """token_budget: rows of one step; max_running: sequences that write at once; max_waiting: requests that queue;
    max_length: tokens of a sequence, the model's limit; priority_seconds: what a level of priority is worth in
    waiting."""

    token_budget: int = 512
    max_running: int = 256
    max_waiting: int = 1024
    max_length: int = 1 << 30
    priority_seconds: float = 10.0


@dataclass(frozen=True)
class Work:
    """Tokens start … stop - 1 of a sequence, of which the last `guesses` are guessed; when they reach the end of what
    is known, a token is chosen."""

    sequence: Sequence
    start: int
    stop: int
    guesses: tuple[int, ...] = ()

    @property
    def chooses(self) -> bool:
        """Whether the last row's logits choose a new token."""
        return self.stop >= len(self.sequence.tokens)


@dataclass(frozen=True)
class Step:
    """One forward: copies of pages to make first, then the work, decodes before chunks of prompts."""

    work: list[Work]
    copies: list[Copy]

    @property
    def num_rows(self) -> int:
        """Tokens to compute."""
        return sum(work.stop - work.start for work in self.work)


@dataclass
class Counters:
    """What happened since the start."""

    preemptions: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    steps: int = 0
    finished: dict[Reason, int] = field(default_factory=dict)


class Scheduler:
    """Queues and runs sequences over a pool."""

    def __init__(self, pool: Pool, limits: Limits | None = None) -> None:
        self.pool = pool
        self.limits = limits or Limits()
        self.counters = Counters()
        self.running: list[Sequence] = []
        self._waiting: list[tuple[tuple[float, int, int], Sequence]] = []
        self._deadlines: list[tuple[float, int, Request]] = []
        self._alive: dict[str, list[Sequence]] = {}
        self._arrivals = 0
        self.num_waiting = 0

    # ---- requests come and go -------------------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raise UserError for a request that could never be served."""
        longest = min(self.limits.max_length, self.pool.longest(self.limits.token_budget))
        if request.longest > longest:
            raise UserError(
                f"max_tokens: {len(request.prompt)} prompt tokens and {request.stopping.max_tokens} new ones are "
                f"{request.longest}, and this server holds {int(longest)} per request; ask for fewer"
            )
        if request.n > self.limits.max_running:
            raise UserError(f"n: {request.n} answers were asked for, and {self.limits.max_running} can run at once")

    def add(self, request: Request, now: float = 0.0) -> Sequence:
        """Queue a request. Raises QueueFull, or UserError for one that could never be served."""
        self.check(request)
        if self.num_waiting >= self.limits.max_waiting:
            raise QueueFull(f"{self.num_waiting} requests are waiting, which is all this server queues; try again")
        self._arrivals += 1
        rank = (now + request.priority * self.limits.priority_seconds, self._arrivals, 0)
        sequence = Sequence(
            request, 0, rank, list(request.prompt), self.pool.table(request.salt), num_prompt=len(request.prompt)
        )
        self._alive[request.id] = [sequence]
        self._wait(sequence)
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, self._arrivals, request))
        return sequence

    def fork(self, sequence: Sequence) -> list[Sequence]:
        """The other answers of a request whose prompt is computed: they share its pages and run from now on."""
        others = []
        for index in range(1, sequence.request.n):
            rank = (*sequence.rank[:2], index)
            other = Sequence(
                sequence.request,
                index,
                rank,
                list(sequence.tokens),
                self.pool.fork(sequence.table),
                sequence.num_prompt,
                num_computed=sequence.num_computed,
                read=sequence.read,
                state="running",
            )
            insort(self.running, other, key=BY_RANK)
            others.append(other)
        self._alive[sequence.request.id].extend(others)
        return others

    def finish(self, sequence: Sequence, reason: Reason) -> None:
        """End a sequence and give its pages back."""
        if sequence.state == "finished":
            return
        if sequence.state == "running":
            self.running.remove(sequence)
        else:
            self.num_waiting -= 1
        self.pool.release(sequence.table)
        sequence.state, sequence.reason = "finished", reason
        self.counters.finished[reason] = self.counters.finished.get(reason, 0) + 1
        alive = self._alive[sequence.request.id]
        alive.remove(sequence)
        if not alive:
            del self._alive[sequence.request.id]

    def cancel(self, request_id: str, reason: Reason = "cancelled") -> list[Sequence]:
        """End all sequences of a request at once; those that were alive."""
        ended = list(self._alive.get(request_id, ()))
        for sequence in ended:
            self.finish(sequence, reason)
        return ended

    def expire(self, now: float) -> list[Sequence]:
        """End what is past its deadline."""
        ended: list[Sequence] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, request = heapq.heappop(self._deadlines)
            alive = self._alive.get(request.id)
            if alive and alive[0].request is request:
                ended += self.cancel(request.id, "deadline")
        return ended

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.running and not self.num_waiting

    @property
    def alive(self) -> list[Sequence]:
        """Every sequence that is not finished."""
        return [sequence for group in self._alive.values() for sequence in group]

    # ---- a step -----------------------------------------------------------------------------------------------------

    def schedule(self, guess: dict[str, tuple[int, ...]] | None = None) -> Step:
        """What to compute next: decodes, then prompts under way, then new ones. guess: by request id of sequences
        with index 0, tokens guessed to follow."""
        self.counters.steps += 1
        copies: list[Copy] = []
        planned: list[Work] = []
        preemptions = self.counters.preemptions
        budget = self._plan_decodes(self.limits.token_budget, planned, copies, guess or {})
        budget = self._plan_prompts(budget, planned, copies)
        if self.counters.preemptions == preemptions:
            self._admit(budget, planned, copies)
        else:  # what gave its pages back is not computed; a copy made for it harms nobody
            planned = [work for work in planned if work.sequence.state == "running"]
        return Step(planned, copies)

    def _plan_decodes(
        self, budget: int, planned: list[Work], copies: list[Copy], guess: dict[str, tuple[int, ...]]
    ) -> int:
        """A token for every sequence that is writing, lowest rank first."""
        size, running, i = self.pool.page_size, self.running, 0
        while i < len(running) and budget > 0:
            sequence = running[i]
            start, known = sequence.num_computed, len(sequence.tokens)
            i += 1
            if known - start != 1:
                continue
            guesses: tuple[int, ...] = ()
            if guess and sequence.index == 0:
                guesses = guess.get(sequence.request.id, ())[: budget - 1]
            stop = known + len(guesses)
            # Within its last page a sequence that never forked needs nothing.
            if start % size and stop <= len(sequence.table.pages[0]) * size and sequence.request.n == 1:
                pass
            elif not self._reserve(sequence, start, stop, copies):
                continue
            planned.append(Work(sequence, start, stop, guesses))
            budget -= stop - start
        return budget

    def _plan_prompts(self, budget: int, planned: list[Work], copies: list[Copy]) -> int:
        """Chunks of what runs but is not computed up to its end."""
        i = 0
        while i < len(self.running) and budget > 0:
            sequence = self.running[i]
            start, known = sequence.num_computed, len(sequence.tokens)
            i += 1
            if known - start <= 1:
                continue
            stop = min(known, start + budget)
            if self._reserve(sequence, start, stop, copies):
                planned.append(Work(sequence, start, stop))
                budget -= stop - start
        return budget

    def _admit(self, budget: int, planned: list[Work], copies: list[Copy]) -> None:
        """New sequences in order, as long as all that is known of them fits beside what runs."""
        while budget > 0 and self._waiting:
            sequence = self._waiting[0][1]
            if sequence.state != "waiting":
                heapq.heappop(self._waiting)
                continue
            slots = sequence.request.n if sequence.index == 0 and not sequence.output else 1
            if self.running and len(self.running) + self._promised() + slots > self.limits.max_running:
                return
            if not self._adopt(sequence):
                return
            heapq.heappop(self._waiting)
            self.num_waiting -= 1
            sequence.state = "running"
            insort(self.running, sequence, key=BY_RANK)
            start = sequence.num_computed
            stop = min(len(sequence.tokens), start + budget)
            if not self._reserve(sequence, start, stop, copies):
                return
            planned.append(Work(sequence, start, stop))
            budget -= stop - start

    def _promised(self) -> int:
        """Slots that running requests will take when they fork."""
        return sum(s.request.n - 1 for s in self.running if s.request.n > 1 and s.index == 0 and not s.output)

    def _adopt(self, sequence: Sequence) -> bool:
        """Take over a cached beginning if all of the rest fits as well."""
        # Rows that were not handed out yet must be computed by somebody who watches.
        most = sequence.read if sequence.request.reads_prompt else len(sequence.tokens) - 1
        reused = self.pool.adopt(sequence.table, sequence.tokens, min(most, len(sequence.tokens) - 1))
        spare = len(self.running)
        if not self.pool.fits(sequence.table, len(sequence.tokens) + 1, self.limits.token_budget, spare):
            self.pool.release(sequence.table)
            return False
        sequence.num_computed = reused
        self.counters.prompt_tokens += len(sequence.tokens)
        self.counters.reused_tokens += reused
        if sequence.read == 0:
            sequence.num_reused = reused
        return True

    def _reserve(self, sequence: Sequence, start: int, stop: int, copies: list[Copy]) -> bool:
        """Pages for this sequence, if need be from those of higher rank; False if it had to give up its own."""
        while True:
            made = self.pool.reserve(sequence.table, start, stop)
            if made is not None:
                copies += made
                return True
            victim = self.running[-1]
            self.preempt(victim)
            if victim is sequence:
                return False

    def preempt(self, sequence: Sequence) -> None:
        """Take a sequence's pages; it waits, and is computed again from its tokens."""
        self.running.remove(sequence)
        self.pool.release(sequence.table)
        sequence.num_computed = 0
        self.counters.preemptions += 1
        self._wait(sequence)

    def _wait(self, sequence: Sequence) -> None:
        sequence.state = "waiting"
        self.num_waiting += 1
        heapq.heappush(self._waiting, (sequence.rank, sequence))

    # ---- results ----------------------------------------------------------------------------------------------------

    def commit(self, work: Work, new_tokens: list[int]) -> None:
        """The work is computed; new_tokens follow what was known: none for a chunk, one chosen, or the guesses that
        were right and one chosen."""
        sequence = work.sequence
        sequence.tokens.extend(new_tokens)
        computed = work.stop - len(work.guesses) + max(0, len(new_tokens) - 1)
        sequence.num_computed = computed
        sequence.read = max(sequence.read, computed)
        self.pool.advance(sequence.table, sequence.tokens, computed)
        if work.guesses:
            self.pool.trim(sequence.table, len(sequence.tokens))
