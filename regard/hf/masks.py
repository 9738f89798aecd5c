"""transformers' masks as ranges: what its mask functions describe, without ever holding an n × n matrix.

transformers asks a mask function, once per forward and mask type, for whatever its attention function wants. A
ModelMask is such a question, remembered: it gives the mask that the model's own attention would have had (`own`), and
the exact ranges (`ranges`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import masking_utils
from transformers.masking_utils import sdpa_mask

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.inputs import Inputs
from regard.lower import ranges_of
from regard.mechanism import Mask
from regard.parts import masks


class ModelMask(BlockMask):
    """One mask of one forward. It passes through transformers wherever a finished 4-D mask may.

    answer: the mask function of the model's implementation; question: its keywords, offsets cloned.
    """

    def __init__(self, answer: Callable[..., Any], question: dict[str, Any]) -> None:
        self.answer = answer
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
        flags = self.question.get("attention_mask")
        if flags is None:
            return None
        short = self.num_keys + self.key_offset - flags.shape[-1]
        return torch.nn.functional.pad(flags.bool(), (0, max(short, 0)))

    def own(self) -> Any:
        """The mask of the model's own implementation."""
        if not self._own:
            self._own.append(self.answer(**self.question))
        return self._own[0]

    def forget_own(self) -> None:
        """Let go of the mask that `own` made."""
        self._own.clear()

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
        return self._dense()[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(name)
        return getattr(self._dense(), name)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*map(_as_tensor, args), **{k: _as_tensor(v) for k, v in (kwargs or {}).items()})

    def _dense(self) -> Tensor:
        """The mask as the model's implementation makes it, for a model that computes with it."""
        question = self.question | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        dense = self.answer(**question)
        assert isinstance(dense, Tensor)
        return dense

    def __repr__(self) -> str:
        return f"ModelMask({self.num_queries} queries, {self.num_keys} keys)"


def _as_tensor(value: Any) -> Any:
    """The value with every ModelMask in it as a tensor."""
    if isinstance(value, tuple | list):
        return type(value)(_as_tensor(part) for part in value)
    return value._dense() if isinstance(value, ModelMask) else value


def _on_tensor(operator: str) -> Callable[..., Any]:
    def apply(self: ModelMask, *others: Any) -> Any:
        return getattr(self._dense(), operator)(*map(_as_tensor, others))

    return apply


for _operator in ("add", "radd", "sub", "rsub", "mul", "rmul", "and", "rand", "or", "ror", "invert", "lt", "gt", "ge"):
    setattr(ModelMask, f"__{_operator}__", _on_tensor(f"__{_operator}__"))


def model_mask(answer: Callable[..., Any], question: dict[str, Any]) -> ModelMask:
    """A ModelMask, with the offsets copied: a static cache changes its tensors in place before layers read them."""
    kept = {
        k: v.clone() if k in ("q_offset", "kv_offset") and isinstance(v, Tensor) else v for k, v in question.items()
    }
    kept.setdefault("mask_function", masking_utils.causal_mask_function)
    return ModelMask(answer, kept)


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

    bias: float [B or 1, H or 1, Tq, Tk], or None where nothing is added. A shredded mask has as many intervals a row as
    it takes: whoever holds it holds queries × keys already.
    """
    if mask.dtype == torch.bool:
        return ranges.from_dense(mask, max_runs=None), None
    allowed = mask > torch.finfo(mask.dtype).min / 2
    bias = mask.masked_fill(~allowed, 0.0)
    return ranges.from_dense(allowed, max_runs=None), bias if bool(bias.any()) else None
