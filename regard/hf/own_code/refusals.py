"""Attention that has no weights of queries on keys to show, or none that could be read, by class of module: why not."""

from __future__ import annotations

from torch import nn

RECURRENCE = "it is a recurrence (linear attention), which sums keys and values without a softmax over them"
MASKS = "its maps are drawn into masks of objects, and no values are weighted by them"
CELL = "it attends anew for each character it writes, and its softmax runs over an axis that is not the last"

REASONS: dict[str, str] = {
    "AutoformerAttention": "it mixes values rolled by whole delays (autocorrelation), not keys by queries",
    "GroupViTAssignAttention": "it assigns each token to one group by a hard softmax over groups, not over keys",
    "MobileViTV2LinearSelfAttention": "it weighs tokens once for all queries (separable attention)",
    "SwiftFormerEfficientAdditiveAttention": "it weighs tokens once for all queries (additive attention)",
    "ConditionalDetrMHAttentionMap": MASKS,
    "DabDetrMHAttentionMap": MASKS,
    "DetrMHAttentionMap": MASKS,
    "MaskFormerDetrMHAttentionMap": MASKS,
    "BailingHybridDeltaAttention": RECURRENCE,
    "Glm5NextTextLinearAttention": RECURRENCE,
    "KimiLinearDeltaAttention": RECURRENCE,
    "MiniMaxLightningAttention": RECURRENCE,
    "PatchTSMixerGatedAttention": "it is a gate over features, not over tokens",
    "RwkvSelfAttention": RECURRENCE,
    "SLANetAttentionGRUCell": CELL,
    "SLANeXtAttentionGRUCell": CELL,
    "MraSelfAttention": "it approximates the softmax at several resolutions in a CUDA kernel of its own",
    "YosoSelfAttention": "it estimates weights by hashing (Bernoulli sampling), without a softmax over keys",
    "NeighborhoodAttention": "it needs the natten library, whose kernels show no weights",
}


NYSTROM = "its weights are a product of three softmaxes with an inverse, which are not shares of keys"


def reason_of(module: nn.Module) -> str | None:
    """Why the attention of this module cannot be shown, or None where nothing speaks against it."""
    name = type(module).__name__
    if name == "NystromformerSelfAttention":  # with as many landmarks as its segments it is a plain softmax
        plain = getattr(module, "num_landmarks", None) == getattr(module, "seq_len", None)
        return None if plain else NYSTROM
    return REASONS.get(name)
