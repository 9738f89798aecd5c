"""Pieces merged into words: summed over keys, averaged over queries."""

from __future__ import annotations

import pytest
import torch

from regard.errors import UserError
from regard.view.by_words import by_words
from tests.view import traces

PIECES = ["<s>", "The", " un", "believ", "able", " “ 1/3", "“ 2/3", "“ 3/3", "日 1/2", "日 2/2", "本", "."]
WORDS = ["<s>", "The", " unbelievable", " “", "日", "本", "."]
GROUPS = [[0], [1], [2, 3, 4], [5, 6, 7], [8, 9], [10], [11]]


def test_a_words_weight_is_the_mean_over_its_queries_of_the_sum_over_its_keys() -> None:
    trace = traces.decoder(12, 2, 2, text=PIECES)
    merged = by_words(trace)
    assert merged.tokens["decoder"] == WORDS
    pieces, weights = trace.weights(1, 1).double(), merged.weights(1, 1)
    for i, rows in enumerate(GROUPS):
        for j, keys in enumerate(GROUPS):
            assert float(weights[i, j]) == pytest.approx(float(pieces[rows][:, keys].sum(1).mean()), abs=1e-6)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(WORDS)))
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(1)
    torch.testing.assert_close(merged["entropy"][1]["rows"][0, 1].float(), entropy, atol=1e-5, rtol=1e-5)


def test_pieces_of_wordpiece_and_contractions() -> None:
    text = ["[CLS]", "un", "##believ", "##able", " didn", "'t", "\n", "go", " ", "now"]
    trace = traces.decoder(10, 1, 1, text=text)
    assert by_words(trace).tokens["decoder"] == ["[CLS]", "unbelievable", " didn", "'t", "\n", "go", " now"]


def test_several_sequences_are_refused() -> None:
    with pytest.raises(UserError, match="one sequence at a time, and this Trace holds 2"):
        by_words(traces.decoder(12, 1, 1, batch=2))
