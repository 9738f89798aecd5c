"""Words of a sentence and the tokens that each is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MARKS = ("▁", "Ġ")


@dataclass(frozen=True)
class Words:
    """The words of a token sequence: their text, for each token the number of its word, or None, and whether the
    token holds a letter or digit."""

    text: list[str]
    word_of: list[int | None]
    lettered: list[bool]

    def unknown(self, ids: Sequence[int], unknown_id: int | None) -> list[int]:
        """The words that hold a token which stands for anything unknown."""
        if unknown_id is None:
            return []
        return sorted({word for word, token in zip(self.word_of, ids) if token == unknown_id and word is not None})


def words_of(tokenizer: Any, ids: Sequence[int]) -> Words:
    """Split at the marks that begin a word (▁ or Ġ); without marks every token is a word. Special tokens have none.

    The token for what is unknown belongs to the word that it stands in.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    marked = any(piece.startswith(MARKS) for piece in pieces if piece)
    groups: list[list[int]] = []
    word_of: list[int | None] = []
    for token, piece in zip(ids, pieces, strict=True):
        if token in special:
            word_of.append(None)
            continue
        if not groups or not marked or piece.startswith(MARKS):
            groups.append([])
        groups[-1].append(token)
        word_of.append(len(groups) - 1)
    lettered = [any(character.isalnum() for character in piece) for piece in pieces]
    return Words([tokenizer.decode(group).strip() for group in groups], word_of, lettered)


def by_words(weights: Tensor, target: Words, source: Words) -> Tensor:
    """Weights of tokens [T,S] as weights of words: the mean over a word's tokens of what they give another's, summed.

    Of a word such as "5," only the tokens with letters or digits count; the comma is no part of what it says. What
    special tokens receive is left out, so rows may sum to less than one.
    """
    rows, columns = (_members(words) for words in (target, source))
    lettered = rows * torch.tensor(target.lettered, dtype=torch.float64)
    rows = torch.where(lettered.sum(1, keepdim=True) > 0, lettered, rows)
    return (rows / rows.sum(1, keepdim=True).clamp(min=1)) @ weights.double() @ columns.T


def _members(words: Words) -> Tensor:
    """0 or 1 [words, tokens]."""
    found = torch.zeros(len(words.text), len(words.word_of), dtype=torch.float64)
    for token, word in enumerate(words.word_of):
        if word is not None:
            found[word, token] = 1.0
    return found
