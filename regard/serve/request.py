"""What a client asks for, as frozen records, and a Sequence: one answer while it is being written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from regard.serve.pool import Table

Reason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from logits. Penalties and bias change logits, then temperature, then the filters.

    temperature: 0 takes the best; top_k: 0 keeps all; top_p: the smallest set of tokens with so much probability;
    min_p: at least this share of the best token's probability; repetition_penalty: of prompt and output, divides
    positive logits and multiplies negative ones; presence_penalty, frequency_penalty: subtracted once, or per
    occurrence in the output; logit_bias: (token, added logit); seed: None draws one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is taken, so that filters and the seed do not matter."""
        return self.temperature == 0.0

    @property
    def changes_logits(self) -> bool:
        """Whether anything is added to or scaled in the logits before the choice."""
        return bool(self.logit_bias) or self.penalises

    @property
    def penalises(self) -> bool:
        """Whether the choice depends on which tokens came before."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True)
class Stopping:
    """When an answer ends: after max_tokens; at one of `ids` or `strings`, but not within the first min_tokens.

    keep_stop: leave the stop string in the text.
    """

    max_tokens: int
    min_tokens: int = 0
    ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    keep_stop: bool = False


@dataclass(frozen=True)
class Look:
    """Which attention statistics an answer carries. layers: None for all; heads: "mean" over a layer's heads, "all",
    or indices; sinks: first tokens that count as a sink; spans: (begin, end) of each message in the prompt.
    """

    statistics: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    heads: Literal["mean", "all"] | tuple[int, ...] = "mean"
    top_k: int = 8
    sinks: int = 4
    prompt: bool = False
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Grammar:
    """What the output must match: a JSON schema (as JSON text), a regular expression, or a grammar in Lark's form."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str


@dataclass(frozen=True)
class Request:
    """One request: a prompt of token ids, and how to answer it.

    n: answers; logprobs, prompt_logprobs: so many alternatives beside each token, None for no log-probabilities;
    priority: lower goes first; deadline: seconds of the engine's clock; salt: separates prefix caches.
    """

    id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    stopping: Stopping
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    look: Look | None = None
    grammar: Grammar | None = None
    speculate: int = 0
    priority: int = 0
    deadline: float | None = None
    salt: bytes = b""

    @property
    def reads_prompt(self) -> bool:
        """Whether every row of the prompt must be computed, so that no cached prefix may stand for it."""
        return self.prompt_logprobs is not None or (self.look is not None and self.look.prompt)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that this request may need pages for."""
        return len(self.prompt) + self.stopping.max_tokens


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer of a request: its tokens, how many have keys and values in pages, and where.

    rank: sequences with a lower one go first; read: rows whose results have been handed out, so that a row computed
    again (after a preemption) is not reported twice; extra: what the engine keeps beside it.
    """

    request: Request
    index: int
    rank: tuple[float, int, int]
    tokens: list[int]
    table: Table
    num_prompt: int
    num_computed: int = 0
    num_reused: int = 0
    read: int = 0
    scheduled: int = 0
    state: Literal["waiting", "running", "finished"] = "waiting"
    reason: Reason | None = None
    extra: Any = field(default=None, repr=False)

    @property
    def output(self) -> list[int]:
        """The tokens written so far."""
        return self.tokens[self.num_prompt :]
