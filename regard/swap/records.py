"""What a comparison of mechanisms says: a record for each, and the whole with its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Quality:
    """How a model predicts with one attention, over the same tokens for all.

    bits_per_token: mean -log2 p(next token). kl_bits: mean KL divergence of its predictions from the own attention's,
    in bits. equal_first: share of tokens whose likeliest next token is the same. layer_error: by layer,
    ‖o' - o‖ / ‖o‖ of its attention's output o, own, and o', changed, everything before it changed too.
    """

    bits_per_token: float
    kl_bits: float
    equal_first: float
    layer_error: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """What an attention reads and keeps, at one context length.

    pairs: query-key pairs whose weight is computed, of one sequence, all layers and heads; None where some layer has
    none (a state). pairs_share: of the own attention's. cache_bytes_per_token: keys, values and states that later
    tokens need, at this length, by token.
    """

    pairs: int | None
    pairs_share: float | None
    cache_bytes_per_token: float


@dataclass(frozen=True)
class Speed:
    """Tokens per second of reading (a whole context at once) and of writing (one token at a time, with a cache), and
    the memory that the reading took beyond the model, in bytes; None where the system does not tell."""

    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Row:
    """One attention in a comparison. name: as it was written, "own" for the model's."""

    name: str
    quality: Quality
    cost: Cost
    speed: Speed | None

    def json(self) -> dict[str, Any]:
        """All numbers, flat."""
        speed = {} if self.speed is None else asdict(self.speed)
        return {"name": self.name, **asdict(self.quality), **asdict(self.cost), **speed}


@dataclass(frozen=True)
class Comparison:
    """A model's own attention, the first row, and what was tried in its place.

    tokens: predicted tokens; context: tokens that stand in a row; made: what computed it, and on what.
    """

    model: str
    tokens: int
    context: int
    rows: tuple[Row, ...]
    made: dict[str, Any]

    @property
    def own(self) -> Row:
        """The model's own attention."""
        return self.rows[0]

    def json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "model": self.model,
            "tokens": self.tokens,
            "context": self.context,
            "rows": [row.json() for row in self.rows],
            "made": self.made,
        }
