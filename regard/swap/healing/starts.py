"""Where feature maps and gates start: by layer, of some starts the one whose output is nearest to the old one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from regard.hf.plan import Plan
from regard.swap.healing.transfer import errors
from regard.swap.learned import Learned
from regard.swap.parameters import is_kernel

BELOW = 2.0  # elu(x - 2) + 1 is the exponential for x up to 2
Start = Callable[[Learned], None]


@torch.no_grad()
def start_near(model: Any, plan: Plan, modules: nn.ModuleDict, ids: Tensor) -> dict[int, float]:
    """Set each layer's maps and gates to the best of their starts on token ids [rows, tokens]; its error by layer."""
    layers = {number: made for number in map(int, modules) if isinstance(made := plan.of_head(number, 0), Learned)}
    best: dict[int, tuple[float, dict[str, Tensor]]] = {}
    for start in _starts(list(layers.values())):
        for made in layers.values():
            start(made)
        for number, error in errors(model, plan, ids, learning=False).items():
            if number in layers and (number not in best or float(error) < best[number][0]):
                kept = {name: t.clone() for name, t in modules[str(number)].state_dict().items()}
                best[number] = (float(error), kept)
    for number, (_, kept) in best.items():
        modules[str(number)].load_state_dict(kept)
    return {number: error for number, (error, _) in best.items()}


def _starts(layers: list[Learned]) -> Iterator[Start]:
    """What to try: the parameters as they are, then those of each kind."""
    yield lambda made: None
    if any(made.maps is not None and is_kernel(made.inner) for made in layers):
        yield from (partial(_hedgehog, scale=scale) for scale in (0.5, 1.0, 2.0))
        yield from (partial(_random_features, scale=scale) for scale in (0.5, 1.0))
    if any(made.maps is not None and not is_kernel(made.inner) for made in layers):
        for scale, bias in product((1.0, 0.3, 0.1, 0.03, 0.01), (5.0, 0.0, -3.0)):
            yield partial(_scaled, scale=scale, bias=bias)


def _hedgehog(made: Learned, scale: float) -> None:
    """φ(x) = [exp(s x), exp(-s x)] up to a factor (Hedgehog: Zhang 2024, eq. 3)."""
    if made.maps is None or not is_kernel(made.inner):
        return
    for name in "qk":
        weight = getattr(made.maps, f"{name}_weight")
        one = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device) * scale
        weight.copy_(torch.cat([one, -one], 1).expand_as(weight))
        getattr(made.maps, f"{name}_bias").fill_(-BELOW)


def _random_features(made: Learned, scale: float) -> None:
    """φ(x) = exp(s ω x / Dk^{1/4}) with orthogonal ω of length √Dk (Performer: Choromanski 2021, section 2.4), without
    the factor that depends on the length of x."""
    if made.maps is None or not is_kernel(made.inner):
        return
    _, width, features = made.maps.get_parameter("q_weight").shape
    copies = features // width
    random = torch.Generator().manual_seed(0)
    turns = [torch.linalg.qr(torch.randn(width, width, generator=random))[0] for _ in range(copies)]
    omega = torch.cat(turns, 1) * scale * width**0.25
    for name in "qk":
        weight = getattr(made.maps, f"{name}_weight")
        weight.copy_(omega.to(weight).expand_as(weight))
        getattr(made.maps, f"{name}_bias").fill_(-BELOW)


def _scaled(made: Learned, scale: float, bias: float) -> None:
    """Queries times a number, because sums without a quotient grow with their tokens; gates that forget more."""
    if made.maps is None or is_kernel(made.inner):
        return
    weight: Tensor = made.maps.get_parameter("q_weight")
    weight.copy_(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device).expand_as(weight) * scale)
    if made.gating is not None and "log_decay" in made.gating.widths:
        made.gating.get_parameter("log_decay_bias").fill_(bias)
