"""Which modules of a model attend in their own code, and which go through transformers' attention interface."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

from torch import nn

ATTENTION = re.compile(r"Attention|Attn|MultiHead|Multihead")
# They are called so and attend to nothing themselves: norms, configurations of a layer, projections, pooling by a gate,
# whole layers, and residuals that mix the states of one token (inkling2).
NOT_ATTENTION = re.compile(
    r"(Output|Norm|Embeddings?|Bias|Projection|Config|Mask|Pooling2d|Gate|Structure"
    r"|DecoderLayer|EncoderLayer|AdapterLayer|Residual|MLP|Loss)$"
)
INTERFACE = "ALL_ATTENTION_FUNCTIONS"


def is_attention(module: nn.Module) -> bool:
    """Whether a module is called attention and is none of its parts."""
    name = type(module).__name__
    return bool(ATTENTION.search(name)) and not NOT_ATTENTION.search(name)


@cache
def calls_interface(kind: Any) -> bool:
    """Whether a module's own methods look an attention function up in transformers' interface."""
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        code = getattr(inspect.unwrap(member), "__code__", None)
        if not name.startswith("__") and code is not None and INTERFACE in code.co_names:
            return True
    return False


def own_code(model: nn.Module) -> dict[str, nn.Module]:
    """The attention modules, by dotted name, that neither use the interface nor hold one that does."""
    found = {}
    for name, module in model.named_modules():
        if not name or not is_attention(module):
            continue
        kinds: list[Any] = [type(inner) for inner in module.modules() if is_attention(inner)]
        if not any(calls_interface(kind) for kind in kinds):
            found[name] = module
    return found


def innermost(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Those of them that hold no other: one for each attention."""
    return {
        name: module
        for name, module in modules.items()
        if not any(inner is not module and is_attention(inner) for inner in module.modules())
    }
