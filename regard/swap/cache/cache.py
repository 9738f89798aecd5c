"""regard.cache: a cache that keeps what a policy says, for a transformers model's `generate`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from regard.hf.attach import check_swappable, checked, held_plan
from regard.hf.errors import Unsupported
from regard.swap.cache.handler import hold
from regard.swap.cache.layer import Place, PolicyLayer
from regard.swap.cache.rotary import rotary_of
from regard.swap.policies import Policy, policy_of
from regard.swap.policies.expected import ExpectedAttention


class PolicyCache(Cache):
    """A transformers Cache whose full attention layers keep what a policy says; sliding layers keep their window.

    It belongs to the model that it was made for, which computes with it as long as it lives.
    """

    def __init__(self, policy: Policy, layers: list[Any]) -> None:
        super().__init__(layers=layers)
        self.policy = policy

    @property
    def managed(self) -> list[PolicyLayer]:
        """The layers that the policy manages."""
        return [layer for layer in self.layers if isinstance(layer, PolicyLayer)]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in memory, of all layers."""
        others = [layer for layer in self.layers if not isinstance(layer, PolicyLayer)]
        tensors = [t for layer in others for t in (getattr(layer, "keys", None), getattr(layer, "values", None))]
        own = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
        return own + sum(layer.nbytes for layer in self.managed)

    def __repr__(self) -> str:
        return f"PolicyCache({self.policy}, {self.get_seq_length()} tokens seen, {self.nbytes:,} bytes)"


def cache(model: nn.Module, policy: Policy | str, *, measured: Tensor | None = None) -> PolicyCache:
    """A cache for `model.generate(…, past_key_values=regard.cache(model, "h2o(0.25)"))`.

    policy: a record of regard.swap.policies or its text: sinks, h2o, tova, snapkv, expected, pyramid, ada, duo, quest,
    each with a budget, a share of the prompt or a number of tokens. measured: what tells retrieval heads from
    streaming ones, for duo (`regard.swap.retrieval`). The prompt is read by the model's own attention; then each
    key-value head keeps its tokens in pages of its own, and what it gives up is freed. With a budget of 1.0 everything
    is kept. One cache serves one generation; while it lives, the model cannot be attached.

    Raises UserError for a policy that does not parse, and Unsupported for models whose attention it cannot hold:
    without a cache, with an encoder, with sinks or biases of their own.
    """
    chosen = policy_of(policy, measured=measured)
    inner = checked(model)
    check_swappable(inner)
    name = f"{type(inner).__name__} ({inner.config.model_type})"
    if held_plan(inner).rules:
        raise Unsupported(f"{name} was swapped for good, and writes with a cache of that attention's own size")
    if inner.config.is_encoder_decoder:
        raise Unsupported(f"{name} has an encoder, and a policy's cache is for decoders alone")
    if not getattr(inner.config.get_text_config(), "use_cache", False) or not inner.can_generate():
        raise Unsupported(f"{name} keeps no cache, so there is nothing to hold; give a decoder that generates")
    plain = DynamicCache(config=inner.config)
    numbers = [n for n, layer in enumerate(plain.layers) if type(layer) is DynamicLayer]
    if not numbers:
        raise Unsupported(f"{name} has no layer of full attention whose cache a policy could hold")
    rotary = rotary_of(inner) if isinstance(chosen, ExpectedAttention) else None
    managed = {n: PolicyLayer(chosen, Place(at, len(numbers)), rotary) for at, n in enumerate(numbers)}
    made = PolicyCache(chosen, [managed.get(n, layer) for n, layer in enumerate(plain.layers)])
    hold(inner, list(managed.values()), made)
    return made
