"""A model running with another attention, unwatched: where every part of this package meets the seam."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from regard.hf.attach import check_layers, check_swappable, checked
from regard.hf.computing import Computing, Note
from regard.hf.exchanged import Edit
from regard.hf.plan import Plan
from regard.hf.seam import handling
from regard.hf.watcher import Watcher


@contextmanager
def running(
    model: nn.Module, plan: Plan, edits: Sequence[Edit] = (), backend: str = "model", note: Note | None = None
) -> Iterator[PreTrainedModel]:
    """The model with a plan's mechanisms and edits in it while the block runs; the inner transformers model is yielded.

    backend: who computes the layers that the plan leaves alone. note: told of everything that is computed instead.
    Raises Unsupported for models whose attention cannot be exchanged, and for layers that are not there.
    """
    inner = checked(model)
    check_swappable(inner)
    watcher = Watcher(inner, ())
    check_layers(watcher, (*plan.named_layers, *(layer for each in edits for layer in each.named_layers)))
    with handling(inner, Computing(watcher, backend, plan, edits, note)):
        yield inner
