"""Forgetting attention: softmax attention with a forget gate."""

from __future__ import annotations

import torch

from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.forget import Forget, SumForget
from regard.parts.masks import causal
from regard.parts.scores import Dot
from regard.zoo.card import Card, Sizes

SOURCE = "Lin et al. 2025, Forgetting Transformer: Softmax Attention with a Forget Gate, section 3, eq. 5-6"


def forgetting() -> Mechanism:
    """s_ij = q·k / √Dk + Σ_{j<l<=i} log f_l, causal. log f: per_key["log_forget"] [B,H,T], at most 0."""
    return mechanism_with("forgetting", SOURCE, prepare=(SumForget(),), score=(Dot(), Forget()), mask=causal())


def _gated(x: Inputs, s: Sizes) -> Inputs:
    gate = s.normal(x.k.shape[0], x.q.shape[1], x.k.shape[2], seed=8)
    return x.replace(per_key={"log_forget": torch.nn.functional.logsigmoid(gate)})


CARDS = (
    Card(
        name="forgetting",
        family="positions",
        line="Each token decides how much of the past to forget, and lowers the scores of all keys before it.",
        equation="s_ij = q_i·k_j / √Dk + Σ_{j<l<=i} log f_l,  f_l = σ(w·x_l + b)",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="itself and the past, as far as the gates kept it",
        factory=forgetting,
        arrange=_gated,
    ),
)
