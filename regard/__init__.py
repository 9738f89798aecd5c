"""See, swap and serve the attention of any transformer.

regard.attention and regard.weights need torch alone; regard.attach and regard.see also need transformers
(pip install 'regard[hf]').
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run.attention import attention, scores, weights
from regard.run.compose import recur
from regard.seeing.trace import Trace, TraceError
from regard.statistic import Statistic

if TYPE_CHECKING:
    from regard.hf.attach import attach
    from regard.hf.calls import Unsupported
    from regard.hf.load import load
    from regard.hf.see import see

__version__ = "0.1.0"
__all__ = [
    "Inputs",
    "Mechanism",
    "Statistic",
    "Trace",
    "TraceError",
    "Unsupported",
    "attach",
    "attention",
    "load",
    "recur",
    "scores",
    "see",
    "weights",
]

_LAZY = {"attach": "hf.attach", "see": "hf.see", "load": "hf.load", "Unsupported": "hf.calls"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"regard.{_LAZY[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "regard":
            raise
        raise ImportError(f"regard.{name} needs {error.name}: pip install 'regard[hf]'") from None
    return getattr(module, name)


def _notebook(trace: Trace) -> str:
    from regard.view.notebook import notebook

    return notebook(trace)


Trace.to_html = staticmethod(_notebook)
