"""A tag for each token of a text."""

from __future__ import annotations

import math

from regard.hf.answers.head import Head, Seen, is_one_of
from regard.hf.answers.labels import label_of
from regard.hf.pieces import texts
from regard.seeing.answer import Answer, Piece

OUTSIDE = "O"  # the tag of tokens that belong to nothing


def _tagged(seen: Seen) -> list[Answer]:
    return [_one(seen, row) for row in range(seen.batch)]


def _one(seen: Seen, row: int) -> Answer:
    chances = seen.logits[row].softmax(-1)
    ids = seen.inputs["input_ids"][row].tolist()
    tokenizer, mask = seen.loaded.tokenizer, seen.inputs.get("attention_mask")
    special = set() if tokenizer is None else set(tokenizer.all_special_ids)
    words, pieces = texts(tokenizer, ids), []
    for slot, number in enumerate(ids):
        if number in special or (mask is not None and not mask[row, slot]):
            continue
        best = int(chances[slot].argmax())
        pieces.append(Piece(words[slot], slot, float(chances[slot, best]), label_of(seen.model, best)))
    tags = [piece for piece in pieces if piece.label != OUTSIDE]
    text = "  ".join(f"{piece.text.strip()} {piece.label}" for piece in tags) or f"every token is {OUTSIDE}"
    mean = math.fsum(math.log(max(piece.probability or 0.0, 1e-30)) for piece in pieces) / max(len(pieces), 1)
    return Answer(TAGS.task, text, math.exp(mean) if pieces else None, (), tuple(tags or pieces))


TAGS = Head("token-classification", 1, is_one_of("AutoModelForTokenClassification"), _tagged)
