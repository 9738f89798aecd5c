"""Additive attention as a module."""

from __future__ import annotations

from torch import Tensor, nn

from regard.mechanism import Mechanism, single
from regard.nn.mechanisms import Given, Learned, built, call, settled
from regard.parts.prepare import Project
from regard.parts.scores import Additive
from regard.protocol import Attention


class AdditiveAttention(nn.Module):
    """c = Σ_j a_j h_j, a = softmax(vᵀ tanh(W_q s + W_k h)) (Bahdanau 2015, appendix A.1.2).

    query_width, key_width: of s and h; hidden: of the network between. mechanism: what surrounds this score (mask,
    normaliser …), a Mechanism or its text form such as "entmax(1.5)".
    """

    mechanism: Attention | Learned

    def __init__(self, query_width: int, key_width: int, hidden: int, mechanism: Given = "scaled_dot") -> None:
        super().__init__()
        self.query = nn.Linear(query_width, hidden, bias=False)
        self.key = nn.Linear(key_width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.mechanism = settled(mechanism)

    def attention(self) -> Mechanism:
        """The record of this forward: the mechanism with the additive score in place of its own."""
        around = single(built(self.mechanism), "an additive score replaces another")
        project = Project(self.query.weight.T, self.key.weight.T)
        return around.replace(prepare=(project, *around.prepare), score=(Additive(self.score.weight[0]),))

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        need_weights: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """query [B,Dq] or [B,Tq,Dq], keys [B,Tk,Dk], values [B,Tk,Dv] (None: the keys) -> context [B,(Tq,)Dv], weights.

        valid: bool [B,Tk], False for padding. Weights [B,(Tq,)Tk], or None where they are not needed.
        """
        single = query.ndim == 2
        q = query[:, None, None] if single else query[:, None]
        v = keys if values is None else values
        found, weights = call(self.attention(), q, keys[:, None], v[:, None], need_weights, key_valid=valid)
        found = found[:, 0, 0] if single else found[:, 0]
        if weights is not None:
            weights = weights[:, 0, 0] if single else weights[:, 0]
        return found, weights
