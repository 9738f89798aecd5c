"""Attention that has no weights of queries on keys to show, or none that could be read, by class of module: why not."""

from __future__ import annotations

from torch import nn

REASONS: dict[str, str] = {
    "AutoformerAttention": "it mixes values rolled by whole delays (autocorrelation), not keys by queries",
    "GroupViTAssignAttention": "it assigns each token to one group by a hard softmax over groups, not over keys",
    "MobileViTV2LinearSelfAttention": "it weighs tokens once for all queries (separable attention)",
    "SwiftFormerEfficientAdditiveAttention": "it weighs tokens once for all queries (additive attention)",
    "MraSelfAttention": "it approximates the softmax at several resolutions in a CUDA kernel of its own",
    "YosoSelfAttention": "it estimates weights by hashing (Bernoulli sampling), without a softmax over keys",
    "NystromformerSelfAttention": (
        "where the input is longer than its landmarks, its weights are a product of three softmaxes with an inverse"
    ),
    "NeighborhoodAttention": "it needs the natten library, whose kernels show no weights",
}


def reason_of(module: nn.Module) -> str | None:
    """Why the attention of a module of this class cannot be shown, or None where nothing speaks against it."""
    return REASONS.get(type(module).__name__)
