"""One answer while it is written: what of a step's rows it needs, what its next token does to it, what is reported."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from regard.serve.grammar import Matcher
from regard.serve.look import Received, Seen, Wanted
from regard.serve.request import Reason, Sequence
from regard.serve.sampler import Chances, Row, chances
from regard.serve.scheduler import Work
from regard.serve.text import Detokeniser, StopStrings


@dataclass(frozen=True)
class Event:
    """What is new of one answer. text: characters that are now sure; tokens: of this step, with their chances where
    asked for; attention: of the rows that chose them; prompt_chances, prompt_attention: of the prompt, reported once
    it is computed; reason: set when the answer is complete; message: what an error was."""

    request_id: str
    index: int
    text: str = ""
    tokens: tuple[int, ...] = ()
    chances: tuple[Chances, ...] = ()
    attention: tuple[Seen, ...] = ()
    prompt_chances: tuple[Chances, ...] | None = None
    prompt_attention: tuple[Seen, ...] = ()
    received: Tensor | None = None
    reused: int = 0
    reason: Reason | None = None
    stop: str | int | None = None
    message: str = ""


@dataclass(eq=False)
class Writing:
    """What the engine keeps beside one sequence."""

    key: int
    words: Detokeniser | None
    stops: StopStrings
    matcher: Matcher | None = None
    prompt_chances: list[Chances] = field(default_factory=list)
    prompt_attention: list[Seen] = field(default_factory=list)
    received: Received = field(default_factory=Received)
    queued: float = 0.0
    started: bool = False
    first: float | None = None
    last: float = 0.0


@dataclass(frozen=True)
class Choice:
    """The tokens chosen for one sequence in a step, with their chances where asked for."""

    sequence: Sequence
    tokens: list[int]
    chances: list[Chances]


def ended(sequence: Sequence, reason: Reason, message: str) -> list[Event]:
    """Events for a sequence that ended early; for its request's other answers too where they never began."""
    indices = [sequence.index]
    if sequence.index == 0 and not sequence.output:
        indices = list(range(sequence.request.n))
    return [Event(sequence.request.id, i, reason=reason, message=message) for i in indices]


def kept_rows(work: list[Work]) -> tuple[list[int], list[tuple[int, int]]]:
    """Rows whose logits are wanted, and of each work where among them its prompt rows and its choosing rows begin."""
    keep: list[int] = []
    spans = []
    base = 0
    for w in work:
        rows = w.stop - w.start
        at = len(keep)
        if w.sequence.request.prompt_logprobs is not None:
            last = min(w.stop, w.sequence.num_prompt - 1)
            keep += range(base + max(w.start, w.sequence.read) - w.start, base + last - w.start)
        spans.append((at, len(keep)))
        if w.chooses:
            keep += range(base + rows - 1 - len(w.guesses), base + rows)
        base += rows
    return keep, spans


def looked_at(work: Work) -> Wanted | None:
    """The positions of a work whose attention is asked for and was not handed out yet."""
    sequence = work.sequence
    look = sequence.request.look
    if look is None:
        return None
    begin = max(work.start, sequence.read, 0 if look.prompt else sequence.num_prompt - 1)
    return Wanted(look, range(begin, work.stop), sequence.extra.received, []) if begin < work.stop else None


def may_guess(sequence: Sequence) -> bool:
    """Whether tokens may be guessed ahead: not where a wrong guess's row would be added up, nor in a grammar."""
    look = sequence.request.look
    return sequence.extra.matcher is None and (look is None or "received" not in look.statistics)


def row_of(sequence: Sequence, guesses: tuple[int, ...]) -> Row:
    request, writing = sequence.request, sequence.extra
    output = sequence.output if request.sampling.penalises or not request.sampling.is_greedy else ()
    length = len(sequence.tokens) - sequence.num_prompt + len(guesses)
    banned = tuple(request.stopping.ids) if length < request.stopping.min_tokens else ()
    allowed = None if writing.matcher is None else writing.matcher.allowed()
    return Row(request.sampling, request.prompt, [*output, *guesses], writing.key, banned, allowed)


def by_work(
    entries: list[tuple[Work, Sequence, int, Row]], tokens: list[int], told: dict[int, Chances]
) -> dict[int, list[Choice]]:
    """The choices of each work's sequences; of guesses as many as were right, and the token after them."""
    found: dict[int, list[Choice]] = {}
    i = 0
    while i < len(entries):
        w, sequence, *_ = entries[i]
        count = 1 + len(w.guesses)
        right = 0
        while right < len(w.guesses) and tokens[i + right] == w.guesses[right]:
            right += 1
        mine = [told[j] for j in range(i, i + right + 1) if j in told]
        found.setdefault(id(w), []).append(Choice(sequence, tokens[i : i + right + 1], mine))
        i += count
    return found


def read_prompts(work: list[Work], spans: list[tuple[int, int]], logits: Tensor, looks: list[Wanted | None]) -> None:
    """Keep the chances and attention of prompt rows that were computed for the first time."""
    for w, (prompt_at, choose_at), look in zip(work, spans, looks):
        request, writing = w.sequence.request, w.sequence.extra
        if choose_at > prompt_at:
            begin = max(w.start, w.sequence.read)
            following = w.sequence.tokens[begin + 1 : begin + 1 + choose_at - prompt_at]
            most = [request.prompt_logprobs or 0] * len(following)
            writing.prompt_chances += chances(logits[prompt_at:choose_at], following, most)
        if look is not None and request.look is not None and request.look.prompt:
            writing.prompt_attention += [row for row in look.rows if row.position < w.sequence.num_prompt]


def report(choice: Choice, attention: list[Seen], first: bool) -> tuple[Event, int]:
    """(what is new of an answer, how many of its new tokens belong to it: up to where it ends)."""
    sequence, writing = choice.sequence, choice.sequence.extra
    text, used = "", 0
    reason: Reason | None = None
    stop: str | int | None = None
    length = len(sequence.output) - len(choice.tokens)
    for token in choice.tokens:
        used += 1
        reason, stop, new = _one(writing, sequence, token, length + used)
        text += new
        if reason is not None:
            break
    reads = first and sequence.request.prompt_logprobs is not None
    event = Event(
        sequence.request.id,
        sequence.index,
        text,
        tuple(choice.tokens[:used]),
        tuple(choice.chances[:used]),
        tuple(attention[:used]),
        tuple(writing.prompt_chances) if reads else None,
        tuple(writing.prompt_attention) if first else (),
        None if reason is None else writing.received.total,
        sequence.num_reused,
        reason,
        stop,
    )
    return event, used


def _one(writing: Writing, sequence: Sequence, token: int, length: int) -> tuple[Reason | None, str | int | None, str]:
    """(why the answer ends here or None, what stopped it, new text)."""
    stopping = sequence.request.stopping
    if writing.matcher is not None:
        writing.matcher.take(token)
    if token in stopping.ids and length > stopping.min_tokens:
        return "stop", token, writing.stops.rest()
    new = "" if writing.words is None else writing.words.add(token)
    ends = length >= stopping.max_tokens
    if ends and writing.words is not None:
        new += writing.words.rest()
    shown, met = writing.stops.add(new)
    if met is not None and length > stopping.min_tokens:
        return "stop", met, shown
    if writing.matcher is not None and writing.matcher.is_done:
        return "stop", None, shown + writing.stops.rest()
    if ends:
        return "length", None, shown + writing.stops.rest()
    return None, None, shown
