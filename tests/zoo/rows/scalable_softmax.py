"""Scalable softmax, densely: n^(f s) normalised over the n keys that a row may see."""

from __future__ import annotations

from torch import Tensor

from regard.inputs import Inputs
from tests.matrix import Row
from tests.zoo.oracles import Found, cells, finish, qkv, scaled


def scalable_softmax(x: Inputs, *, factor: Tensor) -> Found:
    q, k, _ = qkv(x)
    count = cells(x).sum(-1, keepdim=True).clamp(min=1).to(q.dtype)
    return finish(x, scaled(q, k) * factor[:, None, None] * count.log())


ROW = Row("scalable_softmax", scalable_softmax)
