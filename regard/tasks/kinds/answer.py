"""answer: the span of a text that answers a question on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from regard.errors import UserError
from regard.hf.answers.spans import spans
from regard.seq2seq.batches import padded
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools, in_batches, label_loss
from regard.tasks.metrics import token_f1
from regard.tasks.recipe import TaskRecipe

SCORED_TOKENS = 8192


@dataclass(frozen=True)
class Asked:
    """A question on a text, its answer, and the character at which the answer begins."""

    question: str
    text: str
    answer: str
    begin: int
    where: str


def _read(paths: Sequence[Path]) -> list[Asked]:
    found = [asked for path in paths for asked in _of_file(path)]
    if not found:
        raise UserError(f"{paths[0]} holds no questions; give a file of SQuAD's format")
    return found


def _of_file(path: Path) -> list[Asked]:
    """The questions of a file of SQuAD's format: data, paragraphs, context and qas, of an answer its first form."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        asked = [
            Asked(qa["question"], part["context"], qa["answers"][0]["text"], qa["answers"][0]["answer_start"], qa["id"])
            for article in plain["data"]
            for part in article["paragraphs"]
            for qa in part["qas"]
            if qa["answers"]
        ]
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give a file of SQuAD's format") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise UserError(f"{path} is not of SQuAD's format: data, paragraphs, context, qas with answers") from None
    for each in asked:
        if not each.text.strip() or not each.question.strip():
            raise UserError(f"question {each.where} of {path} lacks its text or its words; remove it")
        if each.text[each.begin : each.begin + len(each.answer)] != each.answer:
            raise UserError(f"question {each.where} of {path}: {each.answer!r} does not stand at its answer_start")
    return asked


def _tools(recipe: TaskRecipe, rows: Rows) -> Tools:
    if recipe.start is None:
        raise UserError("answer goes on from a pretrained encoder; name its directory with --from")
    tokenizer = AutoTokenizer.from_pretrained(recipe.start, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UserError(f"{recipe.start} has no fast tokenizer, which tells where words stand; give another")
    kind: Any = AutoModelForQuestionAnswering
    return Tools(kind.from_pretrained(recipe.start, use_safetensors=True, trust_remote_code=False), tokenizer)


def _items(tools: Tools, rows: Rows, recipe: TaskRecipe, notes: list[str]) -> Items:
    both = tools.tokenizer([row.question for row in rows], [row.text for row in rows], verbose=False)
    kept = [row for row, ids in enumerate(both["input_ids"]) if len(ids) <= recipe.limit]
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} texts are longer than {recipe.limit} tokens and are cut; see --limit")
    labels = [_labels(both, row, rows[row], recipe.limit) for row in range(len(rows))]
    names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in both]

    def batch(chosen: Sequence[int]) -> Batch:
        found: Batch = {name: padded([both[name][row][: recipe.limit] for row in chosen], 0) for name in names}
        inside = [[part == 1 for part in both.sequence_ids(row)[: recipe.limit]] for row in chosen]
        return found | {"inside": padded(inside, False), "labels": torch.tensor([labels[row] for row in chosen])}

    return Items([min(len(ids), recipe.limit) for ids in both["input_ids"]], batch)


def _labels(both: Any, row: int, asked: Asked, limit: int) -> tuple[int, int]:
    """The answer's first and last token; -100 where they were cut off."""
    ends = asked.begin, asked.begin + max(len(asked.answer), 1) - 1
    first, last = (both.char_to_token(row, at, sequence_index=1) for at in ends)
    if first is None or last is None or last >= limit:
        return -100, -100
    return int(first), int(last)


def _logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    out = model(**{name: value for name, value in batch.items() if name not in ("labels", "inside")})
    return out.start_logits, out.end_logits


def _loss(model: Any, batch: Batch, smoothing: float) -> Tensor:
    """-log p(start) - log p(end), each softmax over all tokens (Devlin 2019, section 4.2)."""
    start, end = _logits(model, batch)
    labels = batch["labels"]
    return label_loss(start, labels[:, 0], smoothing) + label_loss(end, labels[:, 1], smoothing)


def _scores(tools: Tools, model: Any, items: Items, rows: Rows) -> dict[str, float]:
    exact = shared = 0.0
    for chosen in in_batches(items, SCORED_TOKENS):
        batch = {name: value.to(model.device) for name, value in items.batch(chosen).items()}
        start, end = _logits(model, batch)
        for place, row in enumerate(chosen):
            pairs = spans(start[place].float().cpu(), end[place].float().cpu(), batch["inside"][place].bool().cpu())
            found = _text(tools, rows[row], int(pairs.argmax()), len(pairs))
            exact += found == rows[row].answer
            shared += token_f1(found, rows[row].answer)
    exact, shared = exact / len(rows), shared / len(rows)
    return {"score": exact, "exact": exact, "f1": shared}


def _text(tools: Tools, asked: Asked, place: int, length: int) -> str:
    offsets = tools.tokenizer(asked.question, asked.text, return_offsets_mapping=True)["offset_mapping"]
    return asked.text[offsets[place // length][0] : offsets[place % length][1]]


ANSWER = Kind(
    name="answer",
    tag="question-answering",
    says="A model that finds answers in a text",
    defaults={"tokens": 1024, "warmup": 50, "rate": 1e-4, "average": 0.0, "epochs": 4, "limit": 256, "smoothing": 0.0},
    read=_read,
    tools=_tools,
    items=_items,
    loss=_loss,
    scores=_scores,
)
