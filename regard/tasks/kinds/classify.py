"""classify: a label for a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from regard.errors import UserError
from regard.seq2seq.batches import padded
from regard.tasks.data import Row, columns
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools, in_batches, label_loss
from regard.tasks.metrics import accuracy, macro_f1
from regard.tasks.pooled import PooledClassifier, PooledConfig
from regard.tasks.recipe import TaskRecipe

SCORED_TOKENS = 8192


def _read(paths: Sequence[Path]) -> list[Row]:
    return columns(paths, "text", "label")


def labels_of(rows: Rows) -> dict[str, Any]:
    """id2label and label2id of the labels that examples have, in the order of their names."""
    names = sorted({row[1] for row in rows})
    if len(names) < 2:
        raise UserError(f"every example has the label {names[0]!r}; give examples of at least two labels")
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def words_of(texts: Sequence[str], size: int, limit: int) -> PreTrainedTokenizerFast:
    """A vocabulary of the `size` most frequent words, in lower case, that come at least twice."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=2, special_tokens=["<pad>", "<unk>"], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", model_max_length=limit, padding_side="right"
    )


def _tools(recipe: TaskRecipe, rows: Rows) -> Tools:
    labels = labels_of(rows)
    if recipe.start is not None:
        tokenizer = AutoTokenizer.from_pretrained(recipe.start, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            recipe.start, use_safetensors=True, trust_remote_code=False, **labels
        )
        return Tools(model, tokenizer)
    tokenizer = words_of([text for text, _ in rows], recipe.vocabulary, recipe.limit)
    config = PooledConfig(
        vocab_size=len(tokenizer),
        embedding_size=recipe.width,
        hidden_size=recipe.width,
        attention_size=recipe.width,
        encoder_layers=recipe.depth,
        cell=recipe.cell,
        dropout=recipe.dropout,
        hidden_words=recipe.mask,
        max_position_embeddings=recipe.limit,
        **labels,
    )
    return Tools(PooledClassifier(config), tokenizer)


def _items(tools: Tools, rows: Rows, recipe: TaskRecipe, notes: list[str]) -> Items:
    numbers = tools.model.config.label2id
    unknown = next((label for _, label in rows if label not in numbers), None)
    if unknown is not None:
        raise UserError(f"the model has no label {unknown!r}; it has {', '.join(map(repr, numbers))}")
    ids = tools.tokenizer([text for text, _ in rows], truncation=False, verbose=False)["input_ids"]
    cut = sum(len(each) > recipe.limit for each in ids)
    if cut:
        notes.append(f"{cut} texts are longer than {recipe.limit} tokens and were cut there; --limit takes longer ones")
        ids = [each if len(each) <= recipe.limit else [*each[: recipe.limit - 1], each[-1]] for each in ids]
    ids = [each or [tools.tokenizer.unk_token_id] for each in ids]
    labels = torch.tensor([numbers[label] for _, label in rows])
    pad = int(tools.tokenizer.pad_token_id)

    def batch(chosen: Sequence[int]) -> Batch:
        words = padded([ids[row] for row in chosen], pad)
        lengths = torch.tensor([len(ids[row]) for row in chosen])
        mask = (torch.arange(words.shape[1]) < lengths[:, None]).long()
        return {"input_ids": words, "attention_mask": mask, "labels": labels[list(chosen)]}

    return Items([len(each) for each in ids], batch)


def _loss(model: Any, batch: Batch, smoothing: float) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return label_loss(logits, batch["labels"], smoothing)


def label_scores(names: dict[int, str], found: dict[int, int], rows: Rows) -> dict[str, float]:
    """Accuracy and macro F1 of labels by row."""
    said = [str(names[found[row]]) for row in range(len(rows))]
    wanted = [row[1] for row in rows]
    right = accuracy(said, wanted)
    return {"score": right, "accuracy": right, "f1": macro_f1(said, wanted)}


def _scores(tools: Tools, model: Any, items: Items, rows: Rows) -> dict[str, float]:
    found: dict[int, int] = {}
    for chosen in in_batches(items, SCORED_TOKENS):
        batch = {name: tensor.to(model.device) for name, tensor in items.batch(chosen).items() if name != "labels"}
        found |= dict(zip(chosen, model(**batch).logits.argmax(-1).tolist(), strict=True))
    return label_scores(model.config.id2label, found, rows)


CLASSIFY = Kind(
    name="classify",
    tag="text-classification",
    says="A classifier of texts",
    defaults={
        "width": 64,
        "layers": 3,
        "dropout": 0.5,
        "vocabulary": 20000,
        "tokens": 1024,
        "rate": 3e-3,
        "warmup": 100,
        "mask": 0.1,
    }
    | {"average": 0.995, "epochs": 30, "patience": 6, "limit": 128, "smoothing": 0.0},
    read=_read,
    tools=_tools,
    items=_items,
    loss=_loss,
    scores=_scores,
)
