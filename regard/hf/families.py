"""What single families of models need: every exception that the seam makes, with what and why, in one place."""

from __future__ import annotations

HARMLESS = frozenset(
    {
        # what masks and positions say already
        "block_indices",  # minimax_m3_vl: the keys chosen; in its mask under "eager" and "sdpa"
        "cache_position",
        "indices",  # deepseek_v32, glm_moe_dsa, axk2 …: the keys chosen; in their masks under "eager" and "sdpa"
        "position_ids",
        "sliding_window",
        # what is asked of other parts of the model
        "deterministic",
        "encoder_hidden_states",
        "grid_thw",
        "labels",
        "logits_to_keep",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "use_cache",
        "vision_feature_layer",
        "vision_feature_select_strategy",
    }
)
"""Keywords of a call that do not change what its attention computes."""

LEARNED_QUERIES = ("qformer",)
"""Parts of a module's name where queries are learned (BLIP-2, InstructBLIP): neither patches nor words."""

SHARED_KEYS = "is_kv_shared_layer"
"""The attribute of attention modules (gemma3n, gemma4) that use an earlier layer's keys, and so need not compute a row
for every token: in a prefill they may have the last rows alone."""

SINKS = ("s_aux", "sinks")
"""Keywords that hold one more logit per head in the softmax's sum: gpt_oss and its kin; inkling2."""

SKIPS_BLOCK_MASKS = frozenset({"doge"})
"""Types whose own code leaves a BlockMask out of the mask that it computes: they are given tensors."""
