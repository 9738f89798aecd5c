"""The load: prompts of random tokens with lengths of a chat, how many tokens each answer has, when each arrives."""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from pathlib import Path

from regard.errors import UserError


@dataclass(frozen=True)
class Ask:
    """One request of a load. arrives: seconds after the start."""

    prompt: list[int]
    new_tokens: int
    arrives: float = 0.0


def lognormal(count: int, vocabulary: int, seed: int = 0, rate: float | None = None, shared: int = 0) -> list[Ask]:
    """Prompts of median 100 tokens (σ 0.8, 8 … 512), answers of median 55 (σ 0.7, 8 … 192), `shared` tokens before
    each prompt the same; all at once, or Poisson arrivals at `rate` per second."""
    draw = random.Random(seed)
    prefix = [draw.randrange(vocabulary) for _ in range(shared)]
    asks, at = [], 0.0
    for _ in range(count):
        long = _clipped(draw.lognormvariate(math.log(100), 0.8), 8, 512)
        new = _clipped(draw.lognormvariate(math.log(55), 0.7), 8, 192)
        if rate is not None:
            at += draw.expovariate(rate)
        asks.append(Ask(prefix + [draw.randrange(vocabulary) for _ in range(long)], new, at))
    return asks


def equal(count: int, vocabulary: int, long: int, new: int, shared: int = 0, seed: int = 0) -> list[Ask]:
    """Prompts of `long` own tokens after `shared` common ones, and `new` to write; all at once."""
    draw = random.Random(seed)
    prefix = [draw.randrange(vocabulary) for _ in range(shared)]
    return [Ask(prefix + [draw.randrange(vocabulary) for _ in range(long)], new) for _ in range(count)]


def trace(
    path: Path, count: int, vocabulary: int, scale: float, faster: float, seed: int = 0, clipped: bool = True
) -> list[Ask]:
    """The first requests of a trace (a table with columns TIMESTAMP, ContextTokens, GeneratedTokens), lengths times
    `scale`, clipped to 8 … 512 and 8 … 192 or else as they are, arrivals `faster` times as fast. Raises UserError for
    another file."""
    from datetime import datetime

    draw = random.Random(seed)
    asks: list[Ask] = []
    begin = None
    least, most = (8, (512, 192)) if clipped else (1, (1 << 30, 1 << 30))
    try:
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                when = datetime.fromisoformat(row["TIMESTAMP"][:26])
                begin = begin or when
                long = _clipped(int(row["ContextTokens"]) * scale, least, most[0])
                new = _clipped(int(row["GeneratedTokens"]) * scale, least, most[1])
                prompt = [draw.randrange(vocabulary) for _ in range(long)]
                asks.append(Ask(prompt, new, (when - begin).total_seconds() / faster))
                if len(asks) == count:
                    break
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no trace with TIMESTAMP, ContextTokens and GeneratedTokens: {error}") from None
    return asks


def _clipped(x: float, low: int, high: int) -> int:
    return min(high, max(low, round(x)))
