"""Every case by name. A name also stands for all whose name continues it: causal for causal-512, causal-1024 …"""

from __future__ import annotations

from functools import partial

import torch

from regard.bench.cases import dense, layouts, linear
from regard.bench.cases.case import Recipe
from regard.errors import UserError

CASES: dict[str, Recipe] = {
    **{f"causal-{n}": Recipe(partial(dense.causal, n), "causal", n) for n in (512, 1024, 2048, 4096)},
    **{f"causal-{n}": Recipe(partial(dense.causal, n), "causal", n, long=True) for n in (8192, 16_384)},
    "heads-9on3": Recipe(partial(dense.causal, 2048, 9, 3, 64, False), "heads"),
    "heads-32on8": Recipe(partial(dense.causal, 2048, 32, 8, 64, False), "heads"),
    "heads-8on8-wide128": Recipe(partial(dense.causal, 2048, 8, 8, 128, False), "heads"),
    "window-4096": Recipe(partial(dense.windowed, 4096), "window", 4096),
    "window-8192": Recipe(partial(dense.windowed, 8192), "window", 8192, long=True),
    "window-16384": Recipe(partial(dense.windowed, 16_384), "window", 16_384, long=True),
    "backward-1024": Recipe(partial(dense.backward, 1024), "backward", 1024),
    "backward-2048": Recipe(partial(dense.backward, 2048), "backward", 2048),
    "backward-4096": Recipe(partial(dense.backward, 4096), "backward", 4096, long=True),
    "documents": Recipe(lambda: layouts.documents(torch.linspace(64, 2048, 32).int()), "documents"),
    "decode-32x1024": Recipe(partial(layouts.decode, [1024] * 32), "decode"),
    "decode-1x32768": Recipe(partial(layouts.decode, [32_768]), "decode"),
    "decode-ragged": Recipe(partial(layouts.decode, [*range(64, 2049, 64)]), "decode"),
    **{f"linear-{rows}": Recipe(partial(linear.step, rows), "linear") for rows in (1, 4, 8, 16, 32, 64, 128, 256)},
}


def named(names: list[str] | None) -> dict[str, Recipe]:
    """The cases that are meant, without repeats; None: all that are not long. Raises UserError for an unknown name."""
    if names is None:
        return {name: recipe for name, recipe in CASES.items() if not recipe.long}
    if names == ["all"]:
        return dict(CASES)
    found: dict[str, Recipe] = {}
    for name in names:
        those = {full: recipe for full, recipe in CASES.items() if full == name or full.startswith(name + "-")}
        if not those:
            raise UserError(f"there is no case {name!r}; there are: all, {', '.join(CASES)}")
        found |= those
    return found
