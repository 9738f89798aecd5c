"""transformers' masks as ranges: what its mask functions describe, without ever holding an n × n matrix.

transformers asks a mask function, once per forward and mask type, for whatever its attention function wants. Ours
returns a ModelMask: it remembers the question, so that it can give the model's own attention the mask it would have
had (`own`), and watchers the exact ranges (`ranges`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import masking_utils
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.inputs import Inputs
from regard.lower import ranges_of
from regard.mechanism import Mask
from regard.parts import masks


class ModelMask(BlockMask):
    """One mask of one forward. It passes through transformers wherever a finished 4-D mask may.

    question: the keywords of transformers' mask function, offsets cloned; implementation: the model's own attention.
    """

    def __init__(self, implementation: str, question: dict[str, Any]) -> None:
        self.implementation = implementation
        self.question = question
        self._own: list[Any] = []
        self._ranges: Ranges | None = None

    @property
    def query_offset(self) -> int:
        """The slot of the first query."""
        return int(self.question.get("q_offset", 0))

    @property
    def key_offset(self) -> int:
        """The slot of the first key: not 0 where a sliding cache has dropped older ones."""
        return int(self.question.get("kv_offset", 0))

    @property
    def num_keys(self) -> int:
        return int(self.question["kv_length"])

    @property
    def num_queries(self) -> int:
        return int(self.question["q_length"])

    def padding(self) -> Tensor | None:
        """bool [B, slots]: the tokens that are not padding, from slot 0; None where there is no padding mask."""
        given = self.question.get("attention_mask")
        if given is None:
            return None
        short = self.num_keys + self.key_offset - given.shape[-1]
        return torch.nn.functional.pad(given.bool(), (0, max(short, 0)))

    def own(self) -> Any:
        """The mask that the model's own attention would have been given."""
        if not self._own:
            self._own.append(ALL_MASK_ATTENTION_FUNCTIONS[self.implementation](**self.question))
        return self._own[0]

    def ranges(self) -> Ranges:
        """What each query may see, padding included. Computed once, shared by the layers."""
        if self._ranges is None:
            known = recognise(self.question["mask_function"])
            self._ranges = self._encoded() if known is None else self._stated(known)
        return self._ranges

    def _stated(self, mask: Mask) -> Ranges:
        device = self.question.get("device", "cpu")
        batch, query, key = self.question["batch_size"], self.num_queries, self.num_keys
        x = Inputs(
            q=torch.empty((batch, 1, query, 0), device=device),
            k=torch.empty((batch, 1, key, 0), device=device),
            v=None,
            query_positions=(torch.arange(query, device=device) + self.query_offset).expand(batch, -1),
            key_positions=(torch.arange(key, device=device) + self.key_offset).expand(batch, -1),
        )
        seen = ranges_of(mask, x)
        padding = self.padding()
        if padding is None:
            return seen
        flags = padding[:, self.key_offset : self.key_offset + key]
        return seen if bool(flags.all()) else seen & ranges.from_key_flags(flags, query)

    def _encoded(self) -> Ranges:
        """Run-length encode the model's mask, a strip of rows at a time, as transformers itself evaluates it."""
        question = self.question | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}

        def strip(begin: int, end: int) -> Tensor:
            rows = {"q_length": end - begin, "q_offset": self.query_offset + begin}
            found = sdpa_mask(**(question | rows))
            assert found is not None
            return found

        return ranges.encode(strip, self.num_queries, self.num_keys, self.question["batch_size"])

    def documents(self) -> Tensor | None:
        """int64 [B, slots]: which packed sequence each token belongs to, or None without packing."""
        return _cell(self.question["mask_function"], "packed_sequence_mask")

    # ---- what transformers may ask of a 4-D mask ------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.question["batch_size"], 1, self.num_queries, self.num_keys

    @property
    def ndim(self) -> int:
        return 4

    def dim(self) -> int:
        return 4

    @property
    def dtype(self) -> torch.dtype:
        return torch.bool

    @property
    def device(self) -> torch.device:
        return torch.device(self.question.get("device", "cpu"))

    def contiguous(self) -> ModelMask:
        return self

    def to(self, *args: Any, **kwargs: Any) -> ModelMask:
        return self

    def __getitem__(self, index: Any) -> Any:
        own = self.own()
        if own is None:
            raise ValueError(
                "this model edits its attention mask, which is only possible on a dense one; "
                "regard cannot watch it without changing it"
            )
        return own[index]

    def __repr__(self) -> str:
        return f"ModelMask({self.num_queries} queries, {self.num_keys} keys)"


def model_mask(implementation: str, question: dict[str, Any]) -> ModelMask:
    """A ModelMask, with the offsets copied: a static cache changes its tensors in place before layers read them."""
    kept = {
        k: v.clone() if k in ("q_offset", "kv_offset") and isinstance(v, Tensor) else v for k, v in question.items()
    }
    kept.setdefault("mask_function", masking_utils.causal_mask_function)
    return ModelMask(implementation, kept)


def recognise(function: Callable[..., Any]) -> Mask | None:
    """The mask part that a mask function of transformers describes, on slots; None if it is not a known one."""
    if function is masking_utils.causal_mask_function:
        return masks.causal()
    if function is masking_utils.bidirectional_mask_function:
        return masks.full()
    cells = _cells(function)
    match getattr(function, "__qualname__", "").split(".")[0]:
        case "and_masks":
            return _joined(cells["mask_functions"], masks.And)
        case "or_masks":
            return _joined(cells["mask_functions"], masks.Or)
        case "sliding_window_overlay":
            return masks.Band(before=cells["sliding_window"] - 1, after=None)
        case "sliding_window_bidirectional_overlay":
            return masks.Band(before=cells["sliding_window"], after=cells["sliding_window"])
        case "chunked_overlay" if not bool(cells["left_padding"].any()):
            return masks.Chunk(cells["chunk_size"])
    return None


def _joined(functions: Any, join: Callable[[Mask, Mask], Mask]) -> Mask | None:
    parts = [recognise(function) for function in functions]
    whole = parts[0] if parts else None
    for part in parts[1:]:
        whole = None if whole is None or part is None else join(whole, part)
    return whole


def _cells(function: Callable[..., Any]) -> dict[str, Any]:
    """What a closure holds, by name."""
    code, closure = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or closure is None:
        return {}
    return dict(zip(code.co_freevars, (cell.cell_contents for cell in closure), strict=True))


def _cell(function: Callable[..., Any], name: str) -> Any:
    """A value held by a closure or by the closures it is made of; None if there is none."""
    cells = _cells(function)
    if name in cells:
        return cells[name]
    inner = [*cells.get("mask_functions", ()), *([cells["mask_function"]] if "mask_function" in cells else [])]
    for part in inner:
        found = _cell(part, name)
        if found is not None:
            return found
    return None


def split_mask(mask: Tensor) -> tuple[Ranges, Tensor | None]:
    """A dense 4-D mask as (ranges, bias). Booleans allow; of floats, the type's minimum and -inf exclude, others add.

    bias: float [B or 1, H or 1, Tq, Tk], or None where nothing is added. Raises TooManyRuns for a shredded mask.
    """
    if mask.dtype == torch.bool:
        return ranges.from_dense(mask), None
    allowed = mask > torch.finfo(mask.dtype).min / 2
    bias = mask.masked_fill(~allowed, 0.0)
    return ranges.from_dense(allowed), bias if bool(bias.any()) else None
