"""The fill of each mask of a text."""

from __future__ import annotations

import math

from regard.hf.answers.head import Head, Seen, is_one_of, likeliest
from regard.seeing.answer import Answer, Piece


def _filled(seen: Seen) -> list[Answer]:
    return [_one(seen, row) for row in range(seen.batch)]


def _one(seen: Seen, row: int) -> Answer:
    tokenizer = seen.loaded.tokenizer
    ids = seen.inputs["input_ids"][row].cpu()
    mask = getattr(tokenizer, "mask_token_id", None)
    slots = [] if mask is None else (ids == mask).nonzero()[:, 0].tolist()
    if not slots:
        written = getattr(tokenizer, "mask_token", None) or "the mask token"
        return Answer(MASKED.task, note=f"the text holds no mask to fill; write {written} where a word is wanted")
    each = [likeliest(seen, seen.logits[row, slot]) for slot in slots]
    best = [choices[0] for choices in each]
    pieces = tuple(Piece(choice.text, slot, choice.probability) for choice, slot in zip(best, slots, strict=True))
    product = math.prod(choice.probability or 0.0 for choice in best)
    text = " … ".join(choice.text.strip() for choice in best)
    return Answer(MASKED.task, text, product ** (1 / len(best)), each[0], pieces)


MASKED = Head("fill-mask", 2, is_one_of("AutoModelForMaskedLM"), _filled)
