"""The glimpse network: a context decides which features of the input count."""

from __future__ import annotations

from torch import Tensor, nn

from regard.errors import UserError


class GlimpseNetwork(nn.Module):
    """o = W (σ(W_c c + b_c) ⊙ x) + b: a context embedding weights the input elementwise, then a linear layer.

    After Ba 2015, section 3: features of where to look multiply those of what is there (Mnih 2014 adds them). The
    sigmoid is regard's: a gate lies in (0, 1). It weights features, not keys, so it is no
    Mechanism; `gates` are its picture. input_width Dx, context_width Dc, output_width Do.
    """

    def __init__(self, input_width: int, context_width: int, output_width: int, bias: bool = True) -> None:
        super().__init__()
        self.context = nn.Linear(context_width, input_width, bias=bias)
        self.out = nn.Linear(input_width, output_width, bias=bias)

    def gates(self, context: Tensor) -> Tensor:
        """How much of each feature passes, in (0, 1): [..., Dc] -> [..., Dx]."""
        return self.context(context).sigmoid()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x [..., Dx], context [..., Dc], leading dimensions broadcast -> [..., Do]."""
        if x.shape[-1] != self.out.in_features or context.shape[-1] != self.context.in_features:
            wanted = f"x [..., {self.out.in_features}] and context [..., {self.context.in_features}]"
            raise UserError(f"a glimpse takes {wanted}, got {list(x.shape)} and {list(context.shape)}")
        return self.out(self.gates(context) * x)
