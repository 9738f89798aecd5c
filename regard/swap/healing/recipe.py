"""How a swapped model is healed: numbers alone, so that two healings with the same recipe and text are the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from regard.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """steps: in all. transfer: share of them in which each layer learns its old attention's output, where the
    mechanism has parameters; in the others the whole is trained by matrices of low rank. rank: of those. tokens: a
    step's. context: tokens in a row, None for as many as fit. transfer_rate, rate: Adam's, falling in a straight line
    to 0 in each part. seed: of batches and first weights."""

    steps: int = 300
    transfer: float = 0.4
    rank: int = 32
    tokens: int = 2048
    context: int | None = None
    transfer_rate: float = 1e-2
    rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "rank", "tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"healing's {name} are at least 1, not {getattr(self, name)}")
        if not 0 <= self.transfer <= 1:
            raise UserError(f"transfer is a share of the steps, from 0 to 1, not {self.transfer}")

    def json(self) -> str:
        """The recipe as JSON."""
        return json.dumps(asdict(self))
