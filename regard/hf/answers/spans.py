"""The span of a text that answers a question on it."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.hf.answers.head import Head, Seen, is_one_of
from regard.seeing.answer import Answer, Choice, Piece

LONGEST = 30  # tokens of an answer
LIKELIEST = 5


def spans(start: Tensor, end: Tensor, inside: Tensor, longest: int = LONGEST) -> Tensor:
    """P(i, j) = softmax(start)_i · softmax(end)_j over tokens of the text, 0 where j < i or j ≥ i + longest.

    start, end [S] logits, inside bool [S] -> [S,S] (Devlin 2019, section 4.2, with probabilities for scores).
    """
    begin, close = (logits.masked_fill(~inside, float("-inf")).softmax(-1) for logits in (start, end))
    pairs = begin[:, None] * close[None]
    return pairs.triu() - pairs.triu(longest)


def _found(seen: Seen) -> list[Answer]:
    if seen.question is None:
        return [Answer(SPANS.task, note="this model answers a question on the text; ask it with --question")] * (
            seen.batch
        )
    start, end = (getattr(seen.ran.output, f"{side}_logits").detach().float().cpu() for side in ("start", "end"))
    encoded = seen.loaded.tokenizer(seen.question, seen.given, return_offsets_mapping=True)
    inside = torch.tensor([which == 1 for which in encoded.sequence_ids()])
    pairs = spans(start[0][: len(inside)], end[0][: len(inside)], inside)
    chances, places = pairs.flatten().topk(min(LIKELIEST, pairs.numel()))
    offsets, length = encoded["offset_mapping"], len(inside)

    def text(place: int) -> str:
        return str(seen.given[offsets[place // length][0] : offsets[place % length][1]])

    likely = [(c, p) for c, p in zip(chances.tolist(), places.tolist(), strict=True) if c > 0]
    choices = tuple(Choice(text(place), chance) for chance, place in likely)
    chance, best = likely[0]
    pieces = tuple(
        Piece(seen.given[slice(*offsets[slot])], slot, chance) for slot in range(best // length, best % length + 1)
    )
    return [Answer(SPANS.task, text(best), chance, choices, pieces)]


SPANS = Head("question-answering", 1, is_one_of("AutoModelForQuestionAnswering"), _found)
