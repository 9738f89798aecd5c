"""Forms of attention whose weights are not [queries, keys]: placed back at their true positions, a file for each.

A reader is told how its module was called and which softmaxes were followed in it, and says what was attended to.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from regard.hf.own_code.flow import Followed
from regard.hf.own_code.places.attended import Attended
from regard.hf.own_code.places.band import read_band
from regard.hf.own_code.places.blocks import read_blocks
from regard.hf.own_code.places.buckets import read_chunks
from regard.hf.own_code.seen import Doubt, Seen

Reader = Callable[[Attended, list[Followed]], list[Seen | Doubt]]

READERS: dict[str, Reader] = {
    "BigBirdBlockSparseAttention": read_blocks,
    "BigBirdPegasusBlockSparseAttention": read_blocks,
    "LSHSelfAttention": read_chunks,
    "LocalSelfAttention": read_chunks,
    "LongformerSelfAttention": read_band,
    "LEDEncoderSelfAttention": read_band,
}


def reader_of(module: nn.Module) -> Reader | None:
    """The reader for a module's class, or None where its weights are [queries, keys] as made."""
    return READERS.get(type(module).__name__)


__all__ = ["Attended", "reader_of"]
