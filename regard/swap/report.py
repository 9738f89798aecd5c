"""A comparison as a table of words."""

from __future__ import annotations

from regard.swap.records import Comparison, Row

COLUMNS = (
    "attention",
    "bits per token",
    "KL, bits",
    "same first",
    "layer error",
    "pairs read",
    "read tok/s",
    "write tok/s",
    "peak MiB",
    "cache B/token",
)


def table(comparison: Comparison) -> list[list[str]]:
    """The rows of a table, its head first. Layer error: the mean over layers."""
    return [list(COLUMNS), *([*_quality(row), *_cost(row), *_speed(row)] for row in comparison.rows)]


def lines(comparison: Comparison) -> list[str]:
    """The table as lines of text, columns aligned, with what it was measured on."""
    cells = table(comparison)
    widths = [max(len(row[at]) for row in cells) for at in range(len(COLUMNS))]
    text = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in cells
    ]
    tokens, context = comparison.tokens, comparison.context
    return [f"{comparison.model}: {tokens:,} tokens predicted, {context:,} in a row", *text]


def _quality(row: Row) -> list[str]:
    quality = row.quality
    errors = quality.layer_error
    mean = sum(errors) / len(errors) if errors else 0.0
    return [
        row.name,
        f"{quality.bits_per_token:.3f}",
        f"{quality.kl_bits:.3f}",
        f"{quality.equal_first:.1%}",
        f"{mean:.1%}" if mean >= 0.0005 or mean == 0 else f"{mean:.0e}",
    ]


def _cost(row: Row) -> list[str]:
    return ["state" if row.cost.pairs_share is None else f"{row.cost.pairs_share:.1%}"]


def _speed(row: Row) -> list[str]:
    cache = f"{row.cost.cache_bytes_per_token:,.0f}"
    if row.speed is None:
        return ["–", "–", "–", cache]
    peak = "–" if row.speed.peak_bytes is None else f"{row.speed.peak_bytes / 2**20:,.1f}"
    return [f"{row.speed.prefill_tokens_per_second:,.0f}", f"{row.speed.decode_tokens_per_second:,.1f}", peak, cache]
