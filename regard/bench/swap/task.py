"""What quality is measured on: a prompt, tokens fed one by one after it, and what is right at the last of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.hf.inputs import positions_of
from regard.hf.load import Loaded

BLOCKS, PROMPT, WRITTEN = 4, 448, 64
TAIL = 16  # tokens before the last word that are read after a cache has given up what it does


@dataclass(frozen=True, eq=False)
class Task:
    """tokens [B,T], of which the first `prompt` are read at once; wanted [B,W]: what is right at the last W.

    recent, kernel: the window and the pooling of policies that vote. whole: whether a text counts as right only where
    all of its W are.
    """

    model: Any
    tokens: Tensor
    wanted: Tensor
    prompt: int
    recent: int = 16
    kernel: int = 5
    whole: bool = False


def text_task(loaded: Loaded, text: str) -> Task:
    """Blocks spread over a text; the next token is wanted at each of the last tokens of a block.

    Raises UserError for a text or a model that is too short.
    """
    ids = tokens_of(loaded, text)
    size, limit = PROMPT + WRITTEN + 1, positions_of(loaded.model)
    if limit is not None and limit < size:
        raise UserError(f"the model has {limit} positions, and {size} are needed; give another model")
    if len(ids) < size:
        raise UserError(f"the text has {len(ids)} tokens, and {size} are needed; give a longer one")
    count = min(len(ids) // size, BLOCKS)
    apart = len(ids) // count
    blocks = torch.stack([ids[at * apart : at * apart + size] for at in range(count)])
    return Task(loaded.model, blocks[:, :-1], blocks[:, PROMPT + 1 :], PROMPT)


def passage_tasks(loaded: Loaded, lines: str, most: int) -> list[Task]:
    """One task for each of the first passages: its last word is to be said (LAMBADA: Paperno 2016).

    lines: of JSON, each with the passage as "context" and the word as "continuation". The cache gives up what it does
    TAIL tokens before the word.

    Raises UserError for a line that cannot be read, and for passages that are all too short.
    """
    tasks = []
    for number, line in enumerate(lines.splitlines()[:most], 1):
        try:
            read = json.loads(line)
            passage, word = read["context"], " " + read["continuation"].strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f'line {number} of the passages has no "context" and "continuation" in JSON') from None
        before, whole = tokens_of(loaded, passage), tokens_of(loaded, passage + word)
        count = len(whole) - len(before)
        if count >= 1 and len(before) >= 4 * TAIL and bool((whole[: len(before)] == before).all()):
            tasks.append(Task(loaded.model, whole[None, :-1], whole[None, -count:], len(before) - TAIL, 8, 5, True))
    if not tasks:
        raise UserError(f"no passage has the {4 * TAIL} tokens that are needed; give longer ones")
    return tasks


def tokens_of(loaded: Loaded, text: str) -> Tensor:
    """The token ids [T] of a text."""
    ids: Tensor = loaded.tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
    return ids
