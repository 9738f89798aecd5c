"""What a family's tiny config needs beyond the sizes that its fields' names tell, by config class."""

from __future__ import annotations

from typing import Any

SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 1}
VISION = {"image_size": 32, "patch_size": 8}

RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
CONVOLUTIONS = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": RESNET,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "AutoformerConfig": {**SERIES, "label_length": 4, "moving_average": 3},
    "BarkFineConfig": {"block_size": 64, "n_codes_total": 4},
    "DonutSwinConfig": {"image_size": 64, "window_size": 4},
    "DetrConfig": CONVOLUTIONS,
    "ConditionalDetrConfig": CONVOLUTIONS,
    "DabDetrConfig": CONVOLUTIONS,
    "DeformableDetrConfig": {**CONVOLUTIONS, "num_feature_levels": 3},
    "TableTransformerConfig": CONVOLUTIONS,
    "EsmConfig": {"vocab_size": 40, "pad_token_id": 1, "mask_token_id": 2},
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 4},
    "InformerConfig": {**SERIES},
    "LongformerConfig": {"attention_window": [4, 4], "pad_token_id": 1},
    "LEDConfig": {"attention_window": [4, 4]},
    "MgpstrConfig": {"image_size": [32, 32], "patch_size": [8, 8], "max_token_length": 8},
    "NystromformerConfig": {"num_landmarks": 12, "segment_means_seq_len": 12, "conv_kernel_size": 3},
    "ReformerConfig": {
        "axial_pos_shape": [4, 4],
        "axial_pos_embds_dim": [16, 16],
        "max_position_embeddings": 16,
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 4,
        "hash_seed": 0,
    },
    "SwinConfig": {"image_size": 64, "window_size": 4},
    "Swinv2Config": {"image_size": 64, "window_size": 4},
    "Swin2SRConfig": {"image_size": 64, "window_size": 4},
    "TimeSeriesTransformerConfig": {**SERIES},
    "TimesformerConfig": {**VISION, "num_frames": 2},
    "VideoMAEConfig": {**VISION, "num_frames": 2},
    "VivitConfig": {"image_size": 32, "tubelet_size": [2, 8, 8], "num_frames": 4},
}
