"""What of a model can be seen, and why not the rest, told without running it: `regard see MODEL --check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from regard.hf.own_code.modules import calls_interface, innermost, is_attention
from regard.hf.own_code.places import reader_of
from regard.hf.own_code.refusals import reason_of

HOW = {
    "interface": "through transformers' attention interface, without the n × n matrix",
    "own code": "in the model's own code, where its weights are made; the memory is the model's own",
    "placed": "in the model's own code, its local or hashed weights placed at their true positions",
    "refused": "not",
}


@dataclass(frozen=True)
class Part:
    """One attention module: its dotted name, its class, how it is seen, and, where it is refused, why."""

    name: str
    module: str
    how: Literal["interface", "own code", "placed", "refused"]
    why: str = ""


def parts_of(model: nn.Module) -> list[Part]:
    """Every attention module of the model. A module that a forward does not call is seen in no trace all the same."""
    attending = innermost({name: m for name, m in model.named_modules() if name and is_attention(m)})
    return [_part(name, module) for name, module in attending.items()]


def _part(name: str, module: nn.Module) -> Part:
    kind: Any = type(module)
    why = reason_of(module)
    if why is not None:
        return Part(name, kind.__name__, "refused", why)
    if calls_interface(kind):
        return Part(name, kind.__name__, "interface")
    return Part(name, kind.__name__, "own code" if reader_of(module) is None else "placed")


def said(model: nn.Module) -> list[str]:
    """The parts as sentences, those of one class and way together."""
    parts = parts_of(model)
    if not parts:
        return [f"{type(model).__name__} has no attention modules."]
    counted = Counter((part.module, part.how, part.why) for part in parts)
    lines = []
    for (kind, how, why), count in counted.items():
        modules = f"{count} {kind}" + ("" if count == 1 else " modules")
        if how == "refused":
            lines.append(f"{modules}: refused, because {why}.")
        else:
            lines.append(f"{modules}: seen {HOW[how]}.")
    return lines
