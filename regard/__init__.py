"""See, swap and serve the attention of any transformer.

regard.attention and regard.weights need torch alone; regard.attach and regard.see also need transformers
(pip install 'regard[hf]'). Names are imported when they are first used, so that the command starts at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.hf.attach import attach
    from regard.hf.errors import Unsupported
    from regard.hf.load import load
    from regard.hf.see import see
    from regard.inputs import Inputs
    from regard.mechanism import Mechanism
    from regard.run.attention import attention, scores, weights
    from regard.run.compose import recur
    from regard.seeing.trace import Trace, TraceError
    from regard.seq2seq.translate import translate
    from regard.statistic import Statistic
    from regard.swap.cache.cache import cache
    from regard.swap.compare import compare

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
    "cache",
    "compare",
    "load",
    "recur",
    "scores",
    "see",
    "translate",
    "weights",
]

_HOME = {
    "Inputs": "inputs",
    "Mechanism": "mechanism",
    "Statistic": "statistic",
    "Trace": "seeing.trace",
    "TraceError": "seeing.trace",
    "Unsupported": "hf.calls",
    "attach": "hf.attach",
    "attention": "run.attention",
    "cache": "swap.cache.cache",
    "compare": "swap.compare",
    "load": "hf.load",
    "recur": "run.compose",
    "scores": "run.attention",
    "see": "hf.see",
    "translate": "seq2seq.translate",
    "weights": "run.attention",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        if not name.startswith("_") and importlib.util.find_spec(f"regard.{name}") is not None:
            return importlib.import_module(f"regard.{name}")  # a room, such as regard.nn
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"regard.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "regard":
            raise
        raise ImportError(f"regard.{name} needs {error.name}: pip install 'regard[hf]'") from None
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
