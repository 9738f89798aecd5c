"""Times of words: the best monotone path, in the seconds of the sound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from regard.hf.load import Loaded
from regard.hf.see import look
from regard.seeing.timing import heard, joined, warped
from tests.hf.answers.toys import model, processor, tokenizer


def test_a_clear_path_is_followed() -> None:
    weights = torch.zeros(3, 10)
    for token, frames in enumerate((range(3), range(3, 4), range(4, 10))):
        weights[token, list(frames)] = 1.0
    assert warped(weights) == [(0, 2), (3, 3), (4, 9)]


def test_a_word_keeps_the_frames_that_it_looks_at() -> None:
    weights = torch.tensor([[0.01, 0.5, 0.09, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.03, 0.95, 0.02]])
    assert heard(weights, [(0, 3), (3, 5)]) == [(1, 3), (4, 4)]


def paths(tokens: int, frames: int) -> list[list[tuple[int, int]]]:
    """Every monotone path from the first pair to the last."""
    found = [[[(0, 0)]]]
    last = (tokens - 1, frames - 1)
    done = []
    heads = found[0]
    while heads:
        longer = []
        for path in heads:
            if path[-1] == last:
                done.append(path)
                continue
            for down, right in itertools.product((0, 1), (0, 1)):
                i, j = path[-1][0] + down, path[-1][1] + right
                if (down or right) and i < tokens and j < frames:
                    longer.append([*path, (i, j)])
        heads = longer
    return done


@pytest.mark.parametrize("seed", range(4))
def test_no_other_path_holds_more(seed: int) -> None:
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    best = max(paths(3, 5), key=lambda path: sum(float(weights[i, j]) for i, j in path))
    wanted = [(min(j for i, j in best if i == t), max(j for i, j in best if i == t)) for t in range(3)]
    assert warped(weights) == wanted


def test_joined_heads_have_deviation_1_over_tokens() -> None:
    found = joined([torch.rand(4, 6)])
    assert torch.allclose(found.std(0, correction=0), torch.ones(6), atol=1e-4)


@pytest.mark.parametrize("kind", ["speech", "frames"])
def test_words_of_a_transcript_have_times_in_order(kind: str) -> None:
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32), 16000
    new = {"max_new_tokens": 6} if kind == "speech" else {}
    answer = look(Loaded(model(kind), tokenizer(), processor(kind)), sound, watch=(), keep="qk", **new).answer
    assert answer is not None and answer.pieces
    begins = [piece.begin for piece in answer.pieces]
    assert None not in begins and begins == sorted(begins)  # type: ignore[type-var]
    assert all(0 <= piece.begin < piece.end <= 1.01 for piece in answer.pieces)  # type: ignore[operator]
