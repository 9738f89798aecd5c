"""Training steps of the GRU with additive attention, beside a plain torch loop of the same model and weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from regard.bench.machine import describe
from regard.seq2seq.batches import Examples, epoch_batches
from regard.seq2seq.corpus import Pairs
from regard.seq2seq.narrow import Quick
from regard.seq2seq.objective import Batch, Objective, batch_of
from regard.seq2seq.parallel import encoded
from regard.seq2seq.recipe import Recipe, model_of
from regard.seq2seq.vocabulary import trained

SMOOTHING = 0.1


class Plain(nn.Module):
    """Bahdanau's translator as one writes it in torch: nn.GRU, nn.GRUCell, the score as its equation, cross_entropy."""

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embed, self.dropout = nn.Embedding(vocabulary, width, 0), dropout
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.begin = nn.Linear(2 * width, width)
        self.cell = nn.GRUCell(3 * width, width)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(2 * width, width, bias=False)
        self.score = nn.Parameter(torch.empty(width))
        self.out = nn.Linear(4 * width, width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, source: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Σ of the smoothed cross-entropy, as Objective gives it."""
        drop = lambda x: F.dropout(x, self.dropout, self.training)  # noqa: E731
        lengths = mask.sum(1)
        packed = pack_padded_sequence(drop(self.embed(source)), lengths, batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        memory = drop(pad_packed_sequence(states, batch_first=True)[0])
        rows, width = torch.arange(len(source)), last.shape[-1]
        summary = torch.cat([memory[rows, lengths - 1, :width], memory[:, 0, width:]], 1)
        h, keys, empty = torch.tanh(self.begin(summary)), self.key(memory), mask == 0
        before = torch.cat([torch.full_like(labels[:, :1], 2), labels[:, :-1].clamp(min=0)], 1)
        words, outs = drop(self.embed(before)), []
        for step in range(labels.shape[1]):
            score = torch.tanh(self.query(h)[:, None] + keys) @ self.score
            weights = score.masked_fill(empty, float("-inf")).softmax(1)
            context = (weights[:, None] @ memory)[:, 0]
            h = self.cell(torch.cat([words[:, step], context], 1), h)
            outs.append(torch.tanh(self.out(torch.cat([h, context, words[:, step]], 1))))
        logits = F.linear(drop(torch.stack(outs, 1)), self.embed.weight, self.bias)
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=SMOOTHING, reduction="sum"
        )

    @torch.no_grad()
    def like(self, model: Any) -> Plain:
        """With the weights of regard's model."""
        decoder, attention = model.decoder, model.decoder.attention
        self.encoder.load_state_dict(model.encoder.rnn.state_dict())
        cell = decoder.cell
        pairs = [
            (self.embed.weight, model.lm_head.weight),
            (self.bias, model.lm_head.bias),
            (self.begin.weight, decoder.begin.weight),
            (self.begin.bias, decoder.begin.bias),
            (self.cell.weight_ih, torch.cat([cell.input.weight, cell.context.weight], 1)),
            (self.cell.bias_ih, cell.input.bias),
            (self.cell.weight_hh, cell.recurrent.weight),
            (self.cell.bias_hh, cell.recurrent.bias),
            (self.query.weight, attention.query.weight),
            (self.key.weight, attention.key.weight),
            (self.score, attention.score),
            (self.out.weight, decoder.out.weight),
            (self.out.bias, decoder.out.bias),
        ]
        for own, theirs in pairs:
            own.copy_(theirs)
        return self


def contestants(recipe: Recipe, vocabulary: int) -> dict[str, Callable[[Batch], float]]:
    """A training step of each: forward, backward, clipping, Adam. A batch -> its loss per label before the step."""
    model: Any = model_of(recipe, vocabulary).train()
    plain = Plain(vocabulary, recipe.width, recipe.dropout).like(model).train()
    wide, narrow = Objective(model, SMOOTHING), Objective(_copy(model, recipe, vocabulary), SMOOTHING)

    def step(run: nn.Module, quick: Quick | None) -> Callable[[Batch], float]:
        optimizer = torch.optim.Adam(run.parameters(), lr=1e-4, fused=True)

        def once(batch: Batch) -> float:
            labels = int((batch["labels"] != -100).sum())
            if quick is None:
                loss = run(**batch) / labels
            else:
                with quick:
                    loss = run(**batch) / labels
            loss.backward()
            torch.nn.utils.clip_grad_norm_(run.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item()

        return once

    return {
        "regard": step(wide, Quick()),
        "regard bf16": step(narrow, Quick(torch.bfloat16)),
        "torch": step(plain, None),
    }


def _copy(model: Any, recipe: Recipe, vocabulary: int) -> Any:
    again: Any = model_of(recipe, vocabulary).train()
    again.load_state_dict(model.state_dict())
    return again


def training(text: Pairs, recipe: Recipe, steps: int, turns: int) -> dict[str, Any]:
    """Seconds a step of each, over the same batches, in turns; ratios to the plain torch loop."""
    tokenizer = trained([*text.source, *text.target], recipe.vocabulary, recipe.tokenizer, recipe.limit)
    examples = encoded(tokenizer, text, recipe.limit, [])
    batches = _batches(examples, recipe, steps)
    torch.manual_seed(recipe.seed)
    runs = contestants(recipe, len(tokenizer))
    first = {who: run(batches[0]) for who, run in runs.items()}
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(turns):
        for who, run in runs.items():
            begin = time.perf_counter()
            for batch in batches:
                run(batch)
            seconds[who].append((time.perf_counter() - begin) / len(batches))
    return {
        "steps": len(batches),
        "tokens": recipe.tokens,
        "width": recipe.width,
        "vocabulary": len(tokenizer),
        "threads": torch.get_num_threads(),
        "seconds_a_step": {who: round(median(times), 4) for who, times in seconds.items()},
        "faster_than_torch": {
            who: round(median(b / a for a, b in zip(times, seconds["torch"], strict=True)), 2)
            for who, times in seconds.items()
            if who != "torch"
        },
        "first_loss": {who: round(loss, 5) for who, loss in first.items()},
        "machine": describe(),
    }


def _batches(examples: Examples, recipe: Recipe, steps: int) -> Sequence[Batch]:
    rows = epoch_batches(examples, recipe.tokens, recipe.seed, 0)[:steps]
    return [batch_of(examples, each, 0, False) for each in rows]
