"""One layer of a policy's cache: what transformers sees of it, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from regard.errors import UserError
from regard.hf.calls import Call
from regard.mechanism import Mechanism
from regard.swap.cache.pages import PAGE_SIZE, HeadPages
from regard.swap.cache.reading import walked
from regard.swap.policies.policy import Policy, Prompt, Rotary
from regard.swap.policies.quest import Quest


@dataclass(frozen=True)
class Place:
    """Where a layer stands among those that the policy manages."""

    number: int
    of: int


class PolicyLayer(CacheLayerMixin):
    """Keys and values of one attention layer, in pages by sequence and key-value head.

    `update` takes what the model hands over and gives it back as it is; the attention that follows is computed by
    `attend`, or by the model itself where the cache was empty, after `read_prompt`.
    """

    is_sliding = False
    is_croppable = False
    is_compileable = False

    def __init__(self, policy: Policy, place: Place, rotary: Rotary | None) -> None:
        super().__init__()
        self.batch = 0
        self.policy = policy
        self.place = place
        self.rotary = rotary
        self.pages: HeadPages | None = None
        self.fresh: tuple[Tensor, Tensor] | None = None
        self.seen = 0
        self.memory: Tensor | None = None  # float64 [rows, slots]: what the policy remembers of each token
        self.limits: Tensor | None = None  # int64 [rows]
        self.mechanism: Mechanism | None = None  # the model's own, as its prompt was read
        self.extremes: tuple[Tensor, Tensor] | None = None

    # ---- what transformers asks ---------------------------------------------------------------------------------

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.fresh is not None:
            raise UserError(
                "this cache was given keys twice before attention read them: it was made for another model, or its "
                "model was wrapped since; make one with regard.cache for the model that generates"
            )
        self.fresh = (key_states, value_states)
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.pages = self.fresh = self.memory = self.limits = self.mechanism = self.extremes = None
        self.seen = 0

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            _refuse("cropped (assisted decoding does this)")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        _refuse("reordered (beam search does this)")

    def batch_repeat_interleave(self, repeats: int) -> None:
        _refuse("repeated")

    def batch_select_indices(self, indices: Tensor) -> None:
        _refuse("narrowed to some sequences")

    # ---- what is kept ---------------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of the pages."""
        return 0 if self.pages is None else self.pages.nbytes

    def kept(self, sequence: int, head: int) -> list[int]:
        """The positions that a key-value head keeps, ascending."""
        assert self.pages is not None and self.batch
        row = sequence * (self.pages.rows // self.batch) + head
        return sorted(self.pages.positions[row, : int(self.pages.lengths[row])].tolist())

    def read_prompt(self, call: Call, valid: Tensor) -> None:
        """Keep what the policy says of a prompt. valid: bool [B,n], the tokens that are not padding."""
        assert self.fresh is not None
        k, v = self.fresh
        self.fresh, self.seen, self.batch, self.mechanism = None, k.shape[2], k.shape[0], call.mechanism
        kept: list[Tensor] = []
        limits: list[int | None] = []
        memories: list[Tensor] = []
        positions: list[Tensor] = []
        for sequence in range(self.batch):
            there = valid[sequence].nonzero()[:, 0]
            prompt = self._prompt(call, sequence, there)
            mine, memory = self._kept_of(prompt)
            kept += [there[tokens] for tokens in mine]
            positions += [torch.arange(k.shape[2], device=k.device)] * prompt.groups
            limits += self.policy.limits(prompt)
            memories += [row[tokens] for row, tokens in zip(memory, mine, strict=True)]
        self.pages = HeadPages(len(kept), k.shape[3], v.shape[3], k.dtype, k.device)
        self.pages.fill(k.flatten(0, 1), v.flatten(0, 1), kept, positions)
        if any(limit is not None for limit in limits):
            none = torch.iinfo(torch.int64).max
            self.limits = torch.tensor([none if limit is None else limit for limit in limits], device=k.device)
            self.memory = torch.zeros(self.pages.positions.shape, dtype=torch.float64, device=k.device)
            for row, numbers in enumerate(memories):
                self.memory[row, : len(numbers)] = numbers.double()

    def _prompt(self, call: Call, sequence: int, there: Tensor) -> Prompt:
        q, k, v = (t[sequence].index_select(1, there) for t in (call.q, call.k, call.v))
        return Prompt(q, k, v, call.mechanism, self.place.number, self.place.of, self.rotary)

    def _kept_of(self, prompt: Prompt) -> tuple[list[Tensor], Tensor]:
        """(the tokens that each key-value head keeps, what the policy remembers of all [G,n])."""
        if self.policy.keeps_all:
            everything = torch.arange(prompt.length, device=prompt.k.device)
            return [everything] * prompt.groups, prompt.k.new_zeros(prompt.groups, prompt.length)
        scores = self.policy.scores(prompt)
        return self.policy.keep(prompt, scores), self.policy.started(prompt, scores)

    # ---- attention --------------------------------------------------------------------------------------------------

    def attend(self, q: Tensor) -> Tensor:
        """Take new tokens in and compute their rows [B,H,Tq,Dv] over what is kept; then give up what is over."""
        assert self.pages is not None and self.fresh is not None and self.mechanism is not None
        k, v = self.fresh
        self.fresh = None
        count, rows = q.shape[2], self.pages.rows
        at = torch.arange(self.seen, self.seen + count, device=k.device).expand(rows, -1)
        self.seen += count
        self.pages.append(k.flatten(0, 1), v.flatten(0, 1), at)
        by_row = q.unflatten(1, (rows // q.shape[0], -1)).flatten(0, 1)  # [rows, heads, Tq, D]
        table, lengths = self._read_tables(by_row)
        reads = self.limits is not None and self.policy.reads_mass
        out, mass = walked(self.mechanism, by_row, self.pages, table, lengths, reads)
        self._give_up(mass, count)
        return out.unflatten(0, (q.shape[0], -1)).flatten(1, 2)

    def _read_tables(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """The pages that are read: all, or for Quest those with the largest bounds and the last one."""
        assert self.pages is not None
        pages, policy = self.pages, self.policy
        if not isinstance(policy, Quest) or q.shape[2] > 1 or int(pages.lengths.min()) != self.longest:
            return pages.table, pages.lengths
        there = -(-self.longest // PAGE_SIZE)
        wanted = policy.pages(self.place.number, self.longest, PAGE_SIZE)
        if wanted is None:
            return pages.table, pages.lengths
        bounds = policy.bounds(q[:, :, 0], *self._bounds(there - 1))
        best = bounds.topk(wanted - 1, -1).indices.sort(-1).values
        chosen = torch.cat([best, best.new_full((len(best), 1), there - 1)], 1)
        return pages.table.gather(1, chosen), pages.lengths - (there - wanted) * PAGE_SIZE

    @property
    def longest(self) -> int:
        """Tokens of the row that holds most."""
        assert self.pages is not None
        return int(self.pages.lengths.max())

    def _bounds(self, full: int) -> tuple[Tensor, Tensor]:
        """Smallest and largest features [rows, pages, D] of the keys in each row's full pages, which never change."""
        assert self.pages is not None
        known = 0 if self.extremes is None else self.extremes[0].shape[1]
        if known < full:
            keys = self.pages.keys[self.pages.table[:, known:full], 0]  # [rows, pages, D, size]
            found = keys.amin(-1), keys.amax(-1)
            if self.extremes is not None:
                found = (torch.cat([self.extremes[0], found[0]], 1), torch.cat([self.extremes[1], found[1]], 1))
            self.extremes = found
        assert self.extremes is not None
        return self.extremes

    def _give_up(self, mass: Tensor | None, count: int) -> None:
        """Let rows over their limit give up their least worth token, once for every token written."""
        if self.limits is None:
            return
        assert self.pages is not None and self.memory is not None
        pages = self.pages
        wider = pages.positions.shape[1] - self.memory.shape[1]
        self.memory = torch.nn.functional.pad(self.memory, (0, wider)) if wider else self.memory
        ages = (self.seen - 1 - pages.positions).clamp(min=0)
        worth, self.memory = self.policy.writing(self.memory, ages, mass, pages.rows // self.batch)
        for _ in range(count):
            rows = (pages.lengths > self.limits).nonzero()[:, 0]
            if not len(rows):
                return
            slots = torch.arange(worth.shape[1], device=worth.device)
            hidden = worth[rows].masked_fill(slots >= pages.lengths[rows, None], torch.inf)
            pages.drop(rows, hidden.argmin(-1), (self.memory, worth))


def _refuse(what: str) -> NoReturn:
    raise UserError(f"a policy's cache cannot be {what}, since heads keep tokens of their own; use a plain cache")
