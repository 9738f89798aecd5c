"""One measurement of `regard bench memory`: one call of one mechanism, in this process alone."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from regard import nn
from regard.mechanism import Mechanism
from regard.resident import begun_bytes, peak_so_far
from regard.run import compose, reference, strips
from regard.zoo import Sizes, card

HEADS, WIDTH, SMALL = 2, 16, 64
FORMS = {
    "memory_as_context": nn.MemoryAsContext,
    "memory_as_gate": nn.MemoryAsGate,
    "memory_as_layer": nn.MemoryAsLayer,
}
DENSE = "all weights at once"


def measure(name: str, tokens: int, backward: bool = False) -> dict[str, Any]:
    """Seconds and peak bytes that a call takes beyond its inputs.

    Called small before, so that what is loaded once is there already; on one thread, for each has buffers of its own.
    DENSE is scaled dot product with the whole matrix of weights, for comparison.
    """
    torch.set_num_threads(1)
    with torch.set_grad_enabled(backward):
        prepared(name, SMALL, backward)()
        call = prepared(name, tokens, backward)
        before = begun_bytes()
        begin = time.perf_counter()
        call()
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_bytes": max(0, peak_so_far() - before)}


def prepared(name: str, tokens: int, backward: bool) -> Any:
    """What runs a mechanism once on this many tokens; its inputs are made now."""
    torch.manual_seed(0)
    if name in FORMS:
        module, x = FORMS[name](HEADS * WIDTH, HEADS), torch.randn(1, tokens, HEADS * WIDTH, requires_grad=backward)
        return finishing(lambda: module(x), backward)
    sizes = Sizes(1, HEADS, HEADS, tokens, tokens, WIDTH, WIDTH, dtype=torch.float32)
    entry = card("scaled_dot" if name == DENSE else name)
    given, attention = entry.arrange(sizes.inputs(), sizes), entry.made(sizes)
    if backward:
        given = given.replace(q=given.q.requires_grad_())
    if isinstance(attention, Mechanism) and attention.mix is None:
        return lambda: strips.attend(attention, given, output=False, absorb=ignored)
    if name == DENSE:
        return finishing(lambda: reference.attend(attention, given)[0], backward)  # type: ignore[arg-type]
    return finishing(lambda: compose.attend(attention, given), backward)


def finishing(forward: Any, backward: bool) -> Any:
    """The forward alone, or with its backward."""
    return (lambda: forward().sum().backward()) if backward else forward


def ignored(*_: Any) -> None:
    """A reader of weights that keeps nothing."""


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
