"""An alignment as text: a row a target word, a column a source word."""

from __future__ import annotations

from regard.seq2seq.translate import Translation

SHADES = " ·░▒▓█"


def heat_map(made: Translation) -> str:
    """Shades of the weights of a translation; source words stand slanted above as numbers, named below."""
    if made.weights is None or not made.words:
        return ""
    width = max(len(word) for word in made.words)
    numbers = " ".join(f"{column:2d}" for column in range(len(made.source_words)))
    lines = [f"{'':{width}}  {numbers}"]
    for word, row in zip(made.words, made.weights.tolist(), strict=True):
        lines.append(f"{word:>{width}}  " + " ".join(2 * _shade(value) for value in row))
    named = "  ".join(f"{column} {word}" for column, word in enumerate(made.source_words))
    return "\n".join([*lines, f"{'':{width}}  {named}"])


def _shade(weight: float) -> str:
    return SHADES[min(int(weight * len(SHADES)), len(SHADES) - 1)] if weight >= 0.02 else " "
