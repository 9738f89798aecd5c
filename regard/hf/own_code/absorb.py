"""From a Seen to statistics: its strips as blocks at the slots that the session says."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from regard.hf.own_code.seen import Seen
from regard.seeing.watching import Watching
from regard.statistic import View


def absorb(
    watching: Watching, seen: Seen, view: View, rows: slice, keys: slice, heads: list[int] | None = None
) -> None:
    """Fold the weights of one attention into a layer's statistics.

    rows and keys: the slots on view's axes that the Seen's rows and keys are, from its first of each. Where they are
    fewer (a model pads its input at the end to a multiple of a block), what lies beyond is left out. heads: those
    watched, by default all. Norm-weighted statistics need the values, which are not known here: leave them out.
    """
    count, width = rows.stop - rows.start, keys.stop - keys.start

    def strips() -> Iterator[tuple[slice, Tensor]]:
        for strip, weights in seen.strips():
            stop = min(strip.stop, count)
            if strip.start < stop:
                part = weights[:, :, : stop - strip.start, :width]
                yield slice(strip.start, stop), part if heads is None else part[:, heads]

    watching.absorb_weights(strips, view, rows, keys, f"own code ({seen.form})")
