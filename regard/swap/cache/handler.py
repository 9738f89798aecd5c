"""Who answers a model's attention calls while a policy's cache of it lives."""

from __future__ import annotations

import weakref
from contextlib import ExitStack

from torch import Tensor
from transformers import PreTrainedModel

from regard.core.ranges import Ranges
from regard.hf.calls import Call, read
from regard.hf.errors import Unsupported
from regard.hf.families import SKIPS_BLOCK_MASKS
from regard.hf.seam import AttentionCall, Handler, handling
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot, Softcap
from regard.swap.cache.layer import PolicyLayer


class CacheHandler(Handler):
    """Hands calls to the layer of the cache that was just given their keys; others go to the model's own function."""

    holding = "has a cache of regard's that is still alive; delete that cache first"

    def __init__(self, model: PreTrainedModel) -> None:
        types = {getattr(getattr(module, "config", None), "model_type", None) for module in model.modules()}
        self.masks = "own" if types & SKIPS_BLOCK_MASKS else "described"
        self.names = {id(module): name for name, module in model.named_modules()}
        self.layers: weakref.WeakSet[PolicyLayer] = weakref.WeakSet()

    def attend(self, call: AttentionCall) -> Tensor | None:
        layer = next((layer for layer in self.layers if layer.fresh is not None), None)
        if layer is None:
            return None
        where = self.names[id(call.module)]
        if layer.seen:
            return layer.attend(call.query).transpose(1, 2).contiguous()
        data = read(call, where)
        _check(data, where)
        layer.read_prompt(data, plain_rows(data, where))
        return None


def _check(call: Call, where: str) -> None:
    """Raise Unsupported for attention that pages by head cannot say."""
    softmax = call.mechanism.normaliser
    if not isinstance(softmax, Softmax) or softmax.sink is not None:
        raise Unsupported(f"{where} has a learned sink for each head, which a policy's cache does not hold")
    other = next((part for part in call.mechanism.score if not isinstance(part, Dot | Softcap)), None)
    if other is not None:
        raise Unsupported(f"{where} adds {type(other).__name__} to its scores, which a policy's cache does not hold")


def plain_rows(call: Call, where: str) -> Tensor:
    """bool [B,n]: the tokens that are not padding. Raises Unsupported where the mask is not plainly causal."""
    seen: Ranges = call.allowed
    count, batch = call.k.shape[2], call.k.shape[0]
    valid = seen.rows(count - 1, count).dense()[:, 0, 0].expand(batch, -1)
    wanted = valid.long().cumsum(1)
    if seen.start.shape[1] != 1 or not bool((seen.counts()[:, 0] == wanted).all()):
        raise Unsupported(f"the mask of {where} is not plainly causal, and a policy's cache holds causal attention")
    return valid


_living: weakref.WeakKeyDictionary[PreTrainedModel, tuple[CacheHandler, ExitStack]] = weakref.WeakKeyDictionary()


def hold(model: PreTrainedModel, layers: list[PolicyLayer], cache: object) -> None:
    """Hand the model's calls to these layers until their cache is deleted.

    Raises Unsupported for a model that is attached.
    """
    if model not in _living:
        handler, leaving = CacheHandler(model), ExitStack()
        leaving.enter_context(handling(model, handler))
        _living[model] = handler, leaving
    handler, _ = _living[model]
    handler.layers.update(layers)
    weakref.finalize(cache, _release, weakref.ref(model), [weakref.ref(layer) for layer in layers])


def _release(of: weakref.ref[PreTrainedModel], gone: list[weakref.ref[PolicyLayer]]) -> None:
    """Forget a cache's layers; with the last one the model is as it was."""
    model = of()
    if model is None or model not in _living:
        return
    handler, leaving = _living[model]
    for layer in gone:
        there = layer()
        if there is not None:
            handler.layers.discard(there)
    if not handler.layers:
        del _living[model]
        leaving.close()
