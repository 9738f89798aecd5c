"""What the tiny configs of models of pictures, films and sounds need beyond their fields' names, by config class."""

from __future__ import annotations

from typing import Any

SAM_VISION = {"image_size": 64, "patch_size": 8, "output_channels": 32, "num_pos_feats": 16, "window_size": 4}
SAM_VISION |= {"global_attn_indexes": [1]}
SAM_PROMPT = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
SAM_MASK = {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
HIERA = {
    "hidden_size": 8,
    "image_size": [64, 64],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 4, 2],
    "global_attention_blocks": [3],
}
FEATURES: dict[str, Any] = {
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": 32,
}
SAM2_PROMPT = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
VIT = {"architecture": "vit_tiny_patch16_224", "num_classes": 2}
VIT |= {"model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}}
PE = {"embed_dim": 32, "depth": 2, "num_heads": 4, "ref_feat_shape": [4, 4]}
PATCHES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
VITDET = {
    "model_type": "vitdet",
    **PATCHES,
    "image_size": 64,
    "patch_size": 16,
    "window_size": 2,
    "residual_block_indices": [],
}
VITDET |= {"out_features": ["stage2"], "window_block_indices": [0], "mlp_ratio": 1}
# Memories are 64 wide in the code, and what points to an object is split into pieces of that width, two here.
MEMORY: dict[str, Any] = {
    "memory_encoder_output_channels": 64,
    "memory_encoder_hidden_size": 128,
    "memory_attention_hidden_size": 128,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_attention_num_attention_heads": 1,
    "memory_fuser_embed_dim": 128,
    "mask_downsampler_embed_dim": 128,
    "vision_config": {"fpn_hidden_size": 128},
    "prompt_encoder_config": {"hidden_size": 128},
    "mask_decoder_config": {"hidden_size": 128, "iou_head_hidden_dim": 32, "num_attention_heads": 4},
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
REPVIT = {"model_type": "timm_wrapper", "architecture": "repvit_m1", "num_classes": 2}
REPVIT |= {"model_args": {"features_only": True, "out_indices": [0, 1, 2, 3]}}
POSTERIOR = {"post_conv_in_channels": 32, "post_conv_mid_channels": 16, "post_conv_out_channels": 32}
SWIN = {"model_type": "swin", "image_size": 128, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": [1] * 4}
SWIN |= {"num_heads": [1, 2, 2, 2], "out_features": ["stage2", "stage3", "stage4"]}
# (kernel, stride, padding) of each convolution of PP-OCR's neck
SIZES = {"longratio": 7, "midratio": 5, "shortratio": 3}
CONVOLUTIONS: dict[str, Any] = {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}
for ratio, size in SIZES.items():
    CONVOLUTIONS[f"vertical_long_to_small_conv_{ratio}"] = [[size, 1], [1, 1], [size // 2, 0]]
    CONVOLUTIONS[f"horizontal_small_to_long_conv_{ratio}"] = [[1, size], [1, 1], [0, size // 2]]
    CONVOLUTIONS[f"symmetric_conv_long_{ratio}"] = [[size, size], [1, 1], [size // 2, size // 2]]

OVERRIDES: dict[str, dict[str, Any]] = {
    "DeepseekOcr2SamVisionConfig": {**SAM_VISION, "downsample_channels": [16, 32]},
    "DepthProConfig": {
        "patch_size": 32,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [8, 8],
        "scaled_images_feature_dims": [8, 8, 8],
        "fusion_hidden_size": 8,
        "merge_padding_value": 0,
        "image_model_config": PATCHES,
        "patch_model_config": PATCHES,
        "fov_model_config": PATCHES,
    },
    "TimmWrapperConfig": VIT,
    "TimmBackboneConfig": {"backbone": "vit_tiny_patch16_224", "use_pretrained_backbone": False},
    "PerceptionLMConfig": {
        "vision_config": {
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": {**PE, "img_size": 64, "patch_size": 16, "global_pool": ""},
        }
    },
    "PeVideoEncoderConfig": {
        "head_dim": 8,
        "vision_config": {
            "architecture": "vit_pe_core_large_patch14_336",
            "num_classes": 32,
            "global_pool": "map",
            "model_args": {**PE, "img_size": 32, "patch_size": 8},
        },
    },
    "FastVlmConfig": {
        "image_seq_length": 4,
        "vision_config": {
            "architecture": "fastvit_mci0",
            "hidden_size": 512,
            "model_args": {"layers": [1, 1, 1, 1], "embed_dims": [32, 64, 128, 256], "inference_mode": True},
        },
    },
    "Gemma3nTextConfig": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "Gemma3nVisionConfig": {
        "architecture": "mobilenetv5_300m_enc",
        "hidden_size": 2048,
        "model_args": {"channel_multiplier": 0.1},
    },
    "SamVisionConfig": SAM_VISION,
    "SamPromptEncoderConfig": SAM_PROMPT,
    "SamMaskDecoderConfig": SAM_MASK,
    "SamHQVisionConfig": SAM_VISION,
    "SamHQPromptEncoderConfig": SAM_PROMPT,
    "SamHQMaskDecoderConfig": {**SAM_MASK, "vit_dim": 32},
    "Sam2HieraDetConfig": HIERA,
    "Sam2VisionConfig": FEATURES,
    "Sam2PromptEncoderConfig": SAM2_PROMPT,
    "Sam2MaskDecoderConfig": SAM_MASK,
    "Sam2VideoPromptEncoderConfig": SAM2_PROMPT,
    "Sam2VideoMaskDecoderConfig": SAM_MASK,
    "NeuCodecConfig": {"quantization_dim": 64},
    "Xcodec2Config": {"quantization_dim": 64},
    "VJEPA2Config": {
        "crop_size": 32,
        "patch_size": 8,
        "frames_per_clip": 4,
        "pred_hidden_size": 32,
        "pred_num_attention_heads": 4,
        "pred_num_hidden_layers": 2,
        "num_pooler_layers": 1,
    },
    "InklingVisionConfig": {"text_hidden_size": 32, "patch_size": 8},
    "InklingAudioConfig": {"text_hidden_size": 32},
    "InklingTextConfig": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 8,
        "num_key_value_heads": 2,
        "sliding_window_size": 4,
        "rel_extent": 16,
        "d_rel": 4,
        "moe_intermediate_size": 16,
    },
    "Glm4vMoeTextConfig": {
        "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]},
    },
    "Granite4VisionConfig": {
        "deepstack_layer_map": [[-1, 0]],
        "qformer_config": {"hidden_size": 32, "encoder_hidden_size": 32, "num_attention_heads": 4},
    },
    "PocketTTSAudioTokenizerConfig": {"upsample_groups": 32, "num_filters": 4},
    "Pix2StructVisionConfig": {"patch_embed_hidden_size": 3 * 16 * 16},
    "VideomtConfig": {"patch_size": 8, "image_size": 64, "num_hidden_layers": 4, "num_blocks": 1},
    "Sam2VideoConfig": MEMORY,
    "Sam3VisionConfig": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
    "Sam3TrackerVideoConfig": {**MEMORY, "image_size": 56},
    "Sam3VideoConfig": {
        "tracker_config": {**MEMORY, "image_size": 56},
        "low_res_mask_size": 16,
        "score_threshold_detection": 0.0,
        "new_det_thresh": 0.0,
    },
    "EdgeTamVisionConfig": {**FEATURES, "backbone_channel_list": [384, 192, 96, 48], "backbone_config": REPVIT},
    "EdgeTamPromptEncoderConfig": SAM2_PROMPT,
    "EdgeTamMaskDecoderConfig": SAM_MASK,
    "EdgeTamVideoPromptEncoderConfig": SAM2_PROMPT,
    "EdgeTamVideoMaskDecoderConfig": SAM_MASK,
    "EdgeTamVideoConfig": MEMORY,
    "ShieldGemma2Config": {
        "mm_tokens_per_image": 4,
        "vision_config": {"patch_size": 8, "image_size": 32},
        "yes_token_index": 40,
        "no_token_index": 41,
    },
    "SLANeXtVisionConfig": SAM_VISION,
    "SLANeXtConfig": {**POSTERIOR, "hidden_size": 32},
    "LwDetrViTConfig": {"num_windows": 4, "image_size": 64, "patch_size": 8, "window_block_indices": [0]},
    "LwDetrConfig": {"projector_scale_factors": [1.0], "num_queries": 10, "decoder_n_points": 2},
    "MaskFormerConfig": {"backbone_config": {**SWIN, "out_features": ["stage1", "stage2", "stage3", "stage4"]}},
    "MuseSparkAudioConfig": {"num_hidden_layers": 2, "patch_sizes": [4, 4], "hidden_sizes": [32, 32], "depths": [1, 1]},
    "VitMatteConfig": {"backbone_config": VITDET, "hidden_size": 32, "fusion_hidden_sizes": [8, 8, 8, 8]},
    "PPFormulaNetVisionConfig": {**SAM_VISION, **POSTERIOR, "decoder_hidden_size": 32},
    "PPOCRV5ServerDetConfig": {"intraclass_block_config": CONVOLUTIONS, "scale_factor_list": [1, 2, 4, 8]},
    "PPOCRV6MediumDetConfig": {"intraclass_block_config": CONVOLUTIONS, "scale_factor_list": [1, 2, 4, 8]},
    "VoxtralRealtimeEncoderConfig": {"intermediate_size": 128, "head_dim": 8},
    "HiggsAudioV2TokenizerConfig": {"codebook_dim": 8},
    "OmDetTurboConfig": {
        "backbone_config": SWIN,
        "image_size": 128,
        "apply_layernorm_after_vision_backbone": False,
        "encoder_in_channels": [16, 32, 64],
        "vision_features_channels": [32, 32, 32],
        "encoder_hidden_dim": 32,
        "decoder_hidden_dim": 32,
        "task_encoder_hidden_dim": 32,
        "class_embed_dim": 32,
        "text_projection_in_dim": 32,
        "text_projection_out_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_num_heads": 4,
        "decoder_num_layers": 2,
        "num_queries": 10,
    },
}
