"""The census of the embedded model: regard's own numbers find a previous-token head and an induction head."""

from __future__ import annotations

import torch

import regard
from regard.seeing.statistics import Induction, PreviousToken

ENGLISH = (
    "The old man walked slowly down the road to the village, and his dog ran before him. It was a cold morning, and "
    "there was no one to be seen in the fields. When he came to the bridge he stopped and looked at the water."
)


def test_some_head_looks_at_the_previous_token() -> None:
    loaded = regard.load()
    trace = regard.see(loaded.model, loaded.tokenizer, ENGLISH, watch=[PreviousToken()])
    assert max(value for _, _, value in trace.heads("previous")) >= 0.8


def test_some_head_completes_repeated_random_tokens() -> None:
    """[BOS] X X, X of 50 random tokens."""
    loaded = regard.load()
    make = torch.Generator().manual_seed(0)
    x = torch.randint(loaded.model.config.vocab_size // 8, loaded.model.config.vocab_size, (8, 50), generator=make)
    ids = torch.cat([torch.full((8, 1), loaded.model.config.bos_token_id), x, x], 1)
    with torch.no_grad(), regard.attach(loaded.model, watch=[Induction()]) as trace:
        loaded.model(input_ids=ids)
    assert max(value for _, _, value in trace.heads("induction")) >= 0.5
