"""Recall with questions that are asked again: what a cache may give up, and what it must not.

A text is D pairs, key value key value …, then questions, keys at which the model must say the value. The first part is
the prompt, after which a cache gives tokens up. "asked again": the prompt ends with questions about H of the pairs, and
so do all that follow, as what a text has spoken of is spoken of again. "asked for the first time": the prompt is the
pairs alone, and any of them may be asked, so no statistic can know which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from regard.bench.recall import BATCH, RATE, one_thread, share_of_rate
from regard.bench.recall_task import KEYS, VALUES, Recaller

STEPS = 600


@dataclass(frozen=True)
class Asking:
    """pairs: D; about: H, how many of them are asked about; before: questions in the prompt; after: those that are
    measured."""

    pairs: int
    about: int
    before: int
    after: int

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return 2 * self.pairs + self.before

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tokens [size, 2 D + questions] and the values [size, questions] that the questions ask for."""
        keys = torch.rand(size, KEYS, generator=generator).argsort(1)[:, : self.pairs]
        values = torch.randint(VALUES, (size, self.pairs), generator=generator)
        spoken_of = torch.rand(size, self.pairs, generator=generator).argsort(1)[:, : self.about]
        drawn = torch.randint(self.about, (size, self.before + self.after), generator=generator)
        order = spoken_of.gather(1, drawn)
        told = torch.stack([keys, KEYS + values], 2).flatten(1)
        return torch.cat([told, keys.gather(1, order)], 1), values.gather(1, order)


AGAIN = Asking(32, 8, 32, 16)
FIRST = Asking(32, 32, 0, 16)
TRAINED = (Asking(8, 8, 8, 8), Asking(16, 4, 16, 16), Asking(32, 8, 32, 16), Asking(32, 32, 16, 16))


def trained(steps: int = STEPS, report: Callable[[str], None] = lambda line: None) -> Recaller:
    """The recall bench's model with causal attention, trained from nothing on texts of several lengths in turn."""
    torch.manual_seed(0)
    model, data = Recaller("causal"), torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_rate(step, steps))
    with one_thread():
        for step in range(steps):
            tokens, wanted = TRAINED[step % len(TRAINED)].batch(BATCH, data)
            loss = cross_entropy(model(tokens)[:, -wanted.shape[1] :].flatten(0, 1), wanted.flatten())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            rate.step()
            if (step + 1) % 200 == 0:
                report(f"recall, step {step + 1} of {steps}: loss {float(loss.detach()):.3f}")
    return model.eval()
