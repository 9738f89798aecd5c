"""Beam search over a Writer: transformers' rules, finished sentences left out of the batch as they finish."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError
from regard.seq2seq.writers import Writer

NEVER = -1e9


@dataclass(frozen=True)
class Search:
    """beams: hypotheses kept per sentence, 1 is greedy. length_penalty α: a hypothesis of n tokens (its end
    included) scores Σ log p / n^α. longest: tokens written at most."""

    beams: int = 5
    length_penalty: float = 1.0
    longest: int = 128

    def __post_init__(self) -> None:
        if self.beams < 1 or self.longest < 1:
            raise UserError(f"beams and length are at least 1, got {self.beams} and {self.longest}")


def written(writer: Writer, sentences: int, search: Search, start: int, end: int, banned: Tensor) -> list[list[int]]:
    """The best hypothesis of each sentence: token ids without start and end. banned: ids that are never written."""
    if search.beams == 1:
        return _greedy(writer, sentences, search, start, end, banned)
    return _Beams(writer, sentences, search, start, end, banned).run()


def _greedy(writer: Writer, sentences: int, search: Search, start: int, end: int, banned: Tensor) -> list[list[int]]:
    outputs: list[list[int]] = [[] for _ in range(sentences)]
    going = torch.arange(sentences)
    tokens = torch.full((sentences,), start)
    for _ in range(search.longest):
        logits = writer.step(tokens)
        logits[:, banned] = NEVER
        tokens = logits.argmax(1)
        live = tokens != end
        for sentence, token in zip(going[live].tolist(), tokens[live].tolist(), strict=True):
            outputs[sentence].append(token)
        if not bool(live.all()):
            if not bool(live.any()):
                break
            writer.keep(live.nonzero()[:, 0])
            going, tokens = going[live], tokens[live]
    return outputs


class _Beams:
    """Scores and tokens of the running and of the finished hypotheses, k of each per sentence."""

    def __init__(self, writer: Writer, sentences: int, search: Search, start: int, end: int, banned: Tensor) -> None:
        self.writer, self.search, self.end, self.banned = writer, search, end, banned
        self.going = torch.arange(sentences)
        k, length = search.beams, search.longest
        self.running = torch.full((sentences, k), NEVER)
        self.running[:, 0] = 0.0
        self.tokens = torch.full((sentences, k, length), end)
        self.last = torch.full((sentences * k,), start)
        self.done_scores = torch.full((sentences, k), NEVER)
        self.done_tokens = self.tokens.clone()
        self.outputs: list[list[int]] = [[] for _ in range(sentences)]

    def run(self) -> list[list[int]]:
        for step in range(self.search.longest):
            self._step(step)
            finished = self._finished(step + 1)
            if bool(finished.any()):
                self._leave(finished)
                if not self.going.numel():
                    return self.outputs
        self._merge(self.running / self.search.longest**self.search.length_penalty, self.tokens)
        self._leave(torch.ones(self.going.shape[0], dtype=torch.bool))
        return self.outputs

    def _step(self, step: int) -> None:
        k, sentences = self.search.beams, self.going.shape[0]
        logits = self.writer.step(self.last)
        whole = logits.logsumexp(1, keepdim=True)
        logits[:, self.banned] = NEVER
        # Twice k: even if k of them end, k run on. No more than 2k of one row can be among the best 2k.
        best, ids = logits.topk(2 * k, 1)
        scores = (self.running.flatten()[:, None] + best - whole).view(sentences, -1)
        scores, at = scores.topk(2 * k, 1)
        beam, token = at // (2 * k), ids.view(sentences, -1).gather(1, at)
        ended = token == self.end
        rows = torch.arange(sentences)[:, None]
        grown = self.tokens[rows, beam]
        grown[:, :, step] = token
        among = ended & (torch.arange(2 * k) < k)
        finished = (scores / (step + 1) ** self.search.length_penalty).masked_fill(~among, NEVER)
        self._merge(finished, grown)
        self.running, kept = scores.masked_fill(ended, NEVER).topk(k, 1)
        self.tokens, self.last = grown[rows, kept], token.gather(1, kept).flatten()
        self.writer.reorder((rows * k + beam.gather(1, kept)).flatten())

    def _merge(self, scores: Tensor, tokens: Tensor) -> None:
        """The best k of what has finished before and now."""
        if not bool((scores > NEVER / 2).any()):
            return
        both = torch.cat([self.done_scores, scores], 1)
        self.done_scores, at = both.topk(self.search.beams, 1)
        rows = torch.arange(both.shape[0])[:, None]
        self.done_tokens = torch.cat([self.done_tokens, tokens], 1)[rows, at]

    def _finished(self, length: int) -> Tensor:
        """Sentences with k hypotheses, none of which the best running one, ended now, would beat."""
        best = self.running[:, 0] / length**self.search.length_penalty
        return self.done_scores[:, -1] >= best

    def _leave(self, finished: Tensor) -> None:
        for sentence, tokens in zip(self.going[finished].tolist(), self.done_tokens[finished, 0].tolist(), strict=True):
            self.outputs[sentence] = tokens[: tokens.index(self.end)] if self.end in tokens else tokens
        stay = (~finished).nonzero()[:, 0]
        self.going = self.going[stay]
        if stay.numel():
            self.writer.keep(stay)
            self.running, self.tokens = self.running[stay], self.tokens[stay]
            self.done_scores, self.done_tokens = self.done_scores[stay], self.done_tokens[stay]
            self.last = self.last.view(-1, self.search.beams)[stay].flatten()
