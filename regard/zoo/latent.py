"""Multi-head latent attention: keys and values rebuilt from one small latent per token."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.mixes import LatentValues, WeightedSum
from regard.parts.prepare import Latent
from regard.parts.scores import Dot
from regard.zoo.card import Card, Sizes

SOURCE = "DeepSeek-V2 2024, section 2.1.2-2.1.3, eq. 9-19"


def latent(*, w_uk: Tensor, w_uv: Tensor, rotated: int, absorbed: bool = False, mask: Mask = FULL) -> Mechanism:
    """k_h = [W_UK c ; k^R], v_h = W_UV c, scaled by 1/√(Dn + dR). Keys are given as [B,1,T,r + rotated]: [c ; k^R].

    w_uk [H,r,Dn], w_uv [H,r,Dv]. absorbed: the same numbers from the latent itself, never expanding keys.
    """
    scale = (w_uk.shape[-1] + rotated) ** -0.5
    mix = LatentValues(w_uv) if absorbed else WeightedSum()
    return mechanism_with(
        "latent", SOURCE, prepare=(Latent(w_uk, w_uv, absorbed),), score=(Dot(scale),), mask=mask, mix=mix
    )


def _arguments(s: Sizes) -> dict[str, object]:
    rotated = 2
    return {
        "w_uk": s.normal(s.heads, 3, s.key_width - rotated, seed=1),
        "w_uv": s.normal(s.heads, 3, s.value_width, seed=2),
        "rotated": rotated,
    }


def _latents(x: Inputs, s: Sizes) -> Inputs:
    k = s.normal(x.k.shape[0], 1, x.k.shape[2], 3 + 2, seed=3).to(x.k.dtype)
    return x.replace(k=k, v=torch.zeros_like(k[..., :1]))


CARDS = (
    Card(
        name="latent",
        family="kinds",
        line="One small latent per token holds keys and values of all heads: the cache shrinks tenfold.",
        equation="k_h = [W_UK,h c ; k^R],  v_h = W_UV,h c,  s = q_h·k_h / √(Dn + dR)",
        source=SOURCE,
        time="O(n² d); absorbed O(n² r) per head",
        memory="O(n d), cache r + dR numbers per token",
        attends="every token",
        factory=latent,
        example=_arguments,
        arrange=_latents,
        parameters={"w_uk": "[H,r,Dn]: latent to keys", "w_uv": "[H,r,Dv]: latent to values"},
    ),
)
