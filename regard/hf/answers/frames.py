"""A transcript read off frame by frame: connectionist temporal classification."""

from __future__ import annotations

from itertools import pairwise

from regard.hf.answers.head import Head, Seen, is_one_of
from regard.hf.answers.written import geometric_mean
from regard.seeing.answer import Answer, Piece


def _read(seen: Seen) -> list[Answer]:
    """The likeliest token of each frame, repeats joined and blanks left out (Graves 2006, section 3.2)."""
    blank = seen.model.config.pad_token_id
    answers = []
    for logits in seen.logits:
        chances, ids = logits.softmax(-1).max(-1)
        numbers = ids.tolist()
        kept = [0, *(n + 1 for n, (before, now) in enumerate(pairwise(numbers)) if now != before)]
        kept = [frame for frame in kept if numbers[frame] != blank]
        pieces = tuple(_piece(seen, numbers[frame], frame, float(chances[frame])) for frame in kept)
        tokenizer = seen.loaded.tokenizer
        text = " ".join(str(numbers[frame]) for frame in kept) if tokenizer is None else tokenizer.decode(numbers)
        answers.append(Answer(FRAMES.task, str(text), geometric_mean(chances.tolist()), (), pieces))
    return answers


def _piece(seen: Seen, number: int, frame: int, chance: float) -> Piece:
    tokenizer = seen.loaded.tokenizer
    text = str(number) if tokenizer is None else str(tokenizer.convert_ids_to_tokens(number))
    return Piece(text, frame, chance)


FRAMES = Head("transcript of frames", 0, is_one_of("AutoModelForCTC"), _read)
