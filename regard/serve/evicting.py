"""Serving with a cache policy: each sequence keeps what regard.cache keeps, and the pool gets the other pages back.

A prompt lies in the pool's pages as long as it is read. Then every key-value head of the sequence keeps its own tokens
in pages of its own (regard/swap/cache), and the pool counts as many pages as those take: what a head gives up can be
admitted again. A policy judges a whole prompt, so a prompt is computed in the step that ends it; later tokens are
computed one by one, also after a preemption, and so are the same as in `generate` with that cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.errors import UserError
from regard.hf.attach import checked
from regard.serve.look import Wanted
from regard.serve.pool import Copy, Group, Pool, Table
from regard.serve.request import Request
from regard.serve.runner import max_length_of
from regard.serve.scheduler import Scheduler, Work
from regard.swap.cache.cache import PolicyCache, cache
from regard.swap.cache.pages import PAGE_SIZE, SPARE
from regard.swap.policies import policy_of

PROBE = 40  # tokens that a model is tried with


class KeptPool(Pool):
    """A pool in which a sequence that has read its prompt owns as many pages as its cache takes."""

    def __init__(self, num_pages: int, page_size: int, page_bytes: int) -> None:
        super().__init__([Group(num_pages)], page_size, reuse=False)
        self.page_bytes = page_bytes
        self.caches: dict[int, PolicyCache] = {}  # by table

    def longest(self, chunk: int) -> float:
        """Tokens of the longest sequence that fits when it is alone: a row's last page and what its pages grow by
        ahead of need are left out."""
        return max(int((self.groups[0].num_pages * self.page_size - 3 * PAGE_SIZE) / (1 + 1 / SPARE)), 0)

    def reserve(self, table: Table, start: int, stop: int) -> list[Copy] | None:
        """Pages for tokens start … stop - 1: of a prompt its own, later as many more as the tokens may take."""
        if id(table) not in self.caches:
            return super().reserve(table, start, stop)
        return super().reserve(table, 0, self._held(table) * self.page_size + stop - start)

    def advance(self, table: Table, tokens: list[int], computed: int) -> None:
        """Tokens up to `computed` are computed: give back what the cache does not take."""
        if id(table) in self.caches:
            self.trim(table, self._held(table) * self.page_size)

    def release(self, table: Table) -> None:
        """Give everything back, the cache too."""
        self.caches.pop(id(table), None)
        super().release(table)

    def _held(self, table: Table) -> int:
        return -(-self.caches[id(table)].nbytes // self.page_bytes)


class KeptScheduler(Scheduler):
    """A scheduler that refuses, by name, what a policy's cache cannot do."""

    def check(self, request: Request) -> None:
        """Raise UserError for a request that could never be served."""
        asked = {
            "n": request.n > 1,
            "speculate": request.speculate > 0,
            "prompt_logprobs": request.prompt_logprobs is not None,
            "attention": request.look is not None,
        }
        for name, wanted in asked.items():
            if wanted:
                raise UserError(f"{name}: a server with --cache-policy does not answer it; leave it out")
        super().check(request)


class KeepingRunner:
    """A model that computes steps over caches of a policy. policy: its text."""

    dtype = torch.float32

    def __init__(self, model: PreTrainedModel, policy: str, page_size: int = 16) -> None:
        self.model = checked(model)
        self.policy = policy_of(policy)
        self.page_size = page_size
        self.name = f"{type(model).__name__} ({model.config.model_type})"
        self.max_length = max_length_of(model)
        self.kept: KeptPool | None = None
        self._try()

    def _try(self) -> None:
        """Read some tokens with a cache that keeps all, against the plain forward, and learn a token's bytes."""
        config: Any = self.model.config.get_text_config()
        random = torch.Generator().manual_seed(1)
        ids = torch.randint(0, self.vocabulary, (1, PROBE), generator=random)
        with torch.inference_mode():
            plain = self.model(ids, use_cache=False).logits[0, -1]
            made = cache(self.model, "sinks(1.0)")
            if len(made.managed) != len(made.layers):
                raise UserError(f"{self.name} has layers with a sliding window, which --cache-policy does not serve")
            self.model(ids[:, :-1], past_key_values=made)
            logits = self.model(ids[:, -1:], past_key_values=made).logits[0, -1]
        if not float((logits - plain).abs().max()) <= 2e-3 * max(1.0, float(plain.abs().max())):
            raise UserError(f"{self.name} computes other logits with a cache than alone, so it is not served")
        pages = [layer.pages for layer in made.managed]
        self.token_bytes = sum(p.rows * sum(p.widths) * p.dtype.itemsize for p in pages if p is not None)
        self.num_layers, self.num_heads = len(pages), int(config.num_attention_heads)

    @property
    def vocabulary(self) -> int:
        """Number of logits of a row."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def how(self) -> str:
        """How steps are computed, in words."""
        return f"transformers' own layers, each sequence with {self.policy}"

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def pool(self, memory_bytes: int) -> KeptPool:
        """A pool of at most so many bytes. Raises UserError for less than two pages."""
        page_bytes = self.token_bytes * self.page_size
        if memory_bytes < 2 * page_bytes:
            raise UserError(
                f"{memory_bytes / 2**20:.1f} MiB hold less than two pages of {self.page_size} tokens of {self.name}, "
                f"at {page_bytes / 1024:.0f} KiB each; give --memory more"
            )
        self.kept = KeptPool(memory_bytes // page_bytes, self.page_size, page_bytes)
        return self.kept

    def run(
        self, work: Sequence[Work], copies: Sequence[Copy], keep: Tensor, wanted: Sequence[Wanted | None] = ()
    ) -> Tensor:
        """Logits float32 [kept rows, vocabulary]: of each work that chooses a token, its last row."""
        with torch.inference_mode():
            rows = [self._last(w) for w in work]
        chosen = [row for row in rows if row is not None]
        return torch.stack(chosen) if chosen else torch.zeros(0, self.vocabulary)

    def _last(self, work: Work) -> Tensor | None:
        """The logits after a work's last token; None for a prompt whose end is still to come."""
        assert self.kept is not None
        sequence = work.sequence
        if work.stop < sequence.num_prompt:
            return None
        own, start = self.kept.caches.get(id(sequence.table)), work.start
        logits: Tensor | None = None
        if own is None:
            own = self.kept.caches[id(sequence.table)] = cache(self.model, self.policy)
            start = sequence.num_prompt
            logits = self._forward(sequence.tokens[:start], own)
        for token in sequence.tokens[start : work.stop]:
            logits = self._forward([token], own)
        return logits if work.chooses else None

    def _forward(self, tokens: list[int], own: PolicyCache) -> Tensor:
        out = self.model(torch.tensor([tokens]), past_key_values=own, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits[0, -1].float()
        return logits
