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

SWIN = {"model_type": "swin", "image_size": 128, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": [1] * 4}
SWIN |= {"num_heads": [1, 2, 2, 2], "out_features": ["stage1", "stage2", "stage3", "stage4"]}
DINOV2 = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 8}
DINOV2 |= {"image_size": 32, "out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False}
RT_DETR: dict[str, Any] = {
    "encoder_in_channels": [16, 24, 32],
    "encoder_layers": 1,
    "num_queries": 10,
    "feat_strides": [8, 16, 32],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 48,
    "d_model": 32,
    "decoder_in_channels": [32, 32, 32],
}
NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "reassemble_hidden_size": 32, "fusion_hidden_size": 8}
BEIT = {"model_type": "beit", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 32}
BEIT |= {"patch_size": 8, "intermediate_size": 48, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
BEIT |= {"reshape_hidden_states": False, "use_relative_position_bias": True}
WINDOWS = {"image_size": 64, "window_size": 4, "depths": [2, 2, 1], "num_heads": [2, 4, 8], "embed_dim": 16}
NARROW = {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
DPR = {"model_type": "dpr", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128}
BART = {"model_type": "bart", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 128}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
HEAD = {"head_dim": 8}

OVERRIDES: dict[str, dict[str, Any]] = {
    "AutoformerConfig": {**SERIES, "label_length": 4, "moving_average": 3},
    "BarkFineConfig": {"block_size": 64, "n_codes_total": 4},
    "DonutSwinConfig": WINDOWS,
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
    "SwinConfig": WINDOWS,
    "Swinv2Config": WINDOWS,
    "Swin2SRConfig": {"image_size": 64, "window_size": 4},
    "TimeSeriesTransformerConfig": {**SERIES},
    "TimesformerConfig": {**VISION, "num_frames": 2},
    "VideoMAEConfig": {**VISION, "num_frames": 2},
    "VivitConfig": {"image_size": 32, "tubelet_size": [2, 8, 8], "num_frames": 4},
    "AlignConfig": {"projection_dim": 80},
    "AlignVisionConfig": NARROW,
    "BambaConfig": {"attn_layer_indices": [1], "num_hidden_layers": 2},
    "BltConfig": {"encoder_hash_byte_group_size": [2, 3], "patch_in_forward": True},
    "BltLocalEncoderConfig": {"hidden_size_global": 64},
    "BltLocalDecoderConfig": {"hidden_size_global": 64},
    "BltGlobalTransformerConfig": {"hidden_size": 64},
    "BridgeTowerConfig": {"hidden_size": 64},
    "BridgeTowerTextConfig": {"hidden_size": 64},
    "BridgeTowerVisionConfig": {"hidden_size": 64, "image_size": 32},
    "BrosConfig": {"dim_bbox": 8, "hidden_size": 128},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 1, **{f"IMGIMG{'ABCDEFGHIJ'[n]}Z": 2 + n for n in range(8)}}},
    "DbrxConfig": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8}},
    "DeepseekV2Config": {"num_experts_per_tok": 1, "topk_group": 1, "n_group": 1},
    "DepthAnythingConfig": {**NECK, "backbone_config": {**DINOV2, "image_size": 64}, "patch_size": 8},
    "Dots1Config": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "EfficientLoFTRConfig": {
        "hidden_size": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "stage_num_blocks": [1, 1, 1, 1],
        "head_dim": 32,
    },
    "EfficientNetConfig": NARROW,
    "Emu3Config": {
        "vocabulary_map": {"<|extra_200|>": 1, "<image>": 2, **{f"<|visual token {n:06d}|>": 3 + n for n in range(8)}}
    },
    "EomtConfig": {"patch_size": 8, "image_size": 64, "num_hidden_layers": 4, "num_blocks": 1},
    "EomtDinov3Config": {"patch_size": 8, "image_size": 64, "num_hidden_layers": 4, "num_blocks": 1},
    "FunAsrNanoConfig": {"adaptor_config": {"intermediate_size": 8}},
    "Gemma4AssistantConfig": {
        "text_config": {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
    "GradiumPhononTTSConfig": {"flow_head_config": {"condition_dim": 32}},
    "GroundingDinoConfig": {"backbone_config": SWIN, "num_queries": 10, "d_model": 32},
    "MMGroundingDinoConfig": {"backbone_config": SWIN, "num_queries": 10, "d_model": 32},
    "HunYuanDenseV1Config": HEAD,
    "HunYuanMoEV1Config": HEAD,
    "HunYuanVLTextConfig": HEAD,
    "MinistralConfig": HEAD,
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "Lfm2MoeConfig": {"layer_types": ["full_attention", "conv"]},
    "LongcatFlashConfig": {"head_dim": 8, "qk_head_dim": 16, "moe_topk": 2},
    "Mamba2Config": {"num_heads": 8, "head_dim": 8},
    "Mask2FormerConfig": {"backbone_config": SWIN, "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32},
    "OneFormerConfig": {"backbone_config": SWIN, "conv_dim": 32, "mask_dim": 32, "hidden_dim": 32},
    "MimiConfig": {
        "upsample_groups": 32,
        "num_filters": 4,
        "codebook_dim": 32,
        "vector_quantization_hidden_dimension": 32,
        "num_quantizers": 8,
    },
    "MoonshineStreamingConfig": {"num_key_value_heads": 4},
    "NemotronConfig": {**HEAD, "num_key_value_heads": 2},
    "PerceiverConfig": {
        "d_model": 32,
        "d_latents": 32,
        "num_latents": 9,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
    },
    "SegGptConfig": {
        "image_size": [64, 64],
        "patch_size": 8,
        "merge_index": 0,
        "intermediate_hidden_state_indices": [1],
        "pretrain_image_size": 32,
    },
    "Siglip2VisionConfig": {"patch_size": 8, "num_patches": 16},
    "TvpConfig": {"max_img_size": 64, "visual_prompt_size": 8},
    "Tipsv2DptConfig": {**NECK},
    "xLSTMConfig": {"hidden_size": 32, "embedding_dim": 32, "num_heads": 4, "qk_dim_factor": 1.0, "v_dim_factor": 1.0},
    "ZoeDepthConfig": {**NECK, "backbone_config": BEIT, "bottleneck_features": 8, "num_relative_features": 8},
    "RTDetrConfig": RT_DETR,
    "RTDetrV2Config": RT_DETR,
    "CvtConfig": {"depth": [1, 2, 3], "embed_dim": [8, 16, 32], "num_heads": [1, 2, 4]},
    "LiltConfig": {"channel_shrink_ratio": 4, "hidden_size": 48},
    "DeepseekOcr2TextConfig": {
        "mlp_layer_types": ["dense", "sparse"],
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
    },
    "Ernie4_5_VLMoeTextConfig": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [1, 1, 2]}
    },
    "EsmFold2AtomTransformerConfig": {"head_dim": 32},
    "FalconH1Config": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "GraniteMoeHybridConfig": {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2},
    "MuseSparkVisionConfig": {"num_hidden_layers": 4, "layer_types": ["window_attention", "full_attention"] * 2},
    "Gemma3Config": {"mm_tokens_per_image": 4, "vision_config": {"patch_size": 8, "image_size": 32}},
    "SuperGlueConfig": {
        "hidden_size": 256,
        "keypoint_encoder_sizes": [8, 16],
        "gnn_layers_types": ["self", "cross"],
        "num_attention_heads": 4,
    },
    "Blip2Config": {"image_token_index": 1},
    "InstructBlipConfig": {"image_token_index": 1},
    "InstructBlipVideoConfig": {"video_token_index": 1},
    "Dots3NoteVisionConfig": {
        "pyramid_num_routed": [0, 4],
        "adapter_in_dim": 32,
        "adapter_out_dim": 32,
        "embed_dim": 32,
        "num_local_experts": 4,
    },
    "Dots3NoteAudioConfig": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "Dots3NoteTextConfig": {
        "head_dim": 16,
        "index_topk": 4,
        "index_n_heads": 2,
        "index_head_dim": 16,
        "sliding_window": 4,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "DiffusionGemmaTextConfig": {"num_experts": 4, "top_k_experts": 1, "moe_intermediate_size": 16},
    "RTDetrResNetConfig": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "layer_type": "basic"},
    "DFineConfig": {
        "encoder_in_channels": [512, 1024, 2048],
        "encoder_hidden_dim": 32,
        "d_model": 32,
        "decoder_in_channels": [32, 32, 32],
        "num_queries": 10,
    },
    "Deimv2Config": {
        "encoder_in_channels": [512, 1024, 2048],
        "encoder_hidden_dim": 32,
        "d_model": 32,
        "decoder_in_channels": [32, 32, 32],
        "num_queries": 10,
    },
    "MobileBertConfig": {"normalization_type": "layer_norm"},
    "ASTConfig": {"max_length": 64, "num_mel_bins": 32},
    "CHMv2Config": {
        "backbone_config": {"hidden_size": 32, "patch_size": 8, "image_size": 64, "return_class_token": True},
        "post_process_channels": [8, 8, 8, 8],
        "reassemble_hidden_size": 32,
        "fusion_hidden_size": 8,
    },
    "CohereCompassTextConfig": {
        "rope_parameters": {
            "full_attention": {**ROPE, "mrope_section": [2, 1, 1]},
            "sliding_attention": {**ROPE, "mrope_section": [2, 1, 1]},
        }
    },
    "ZambaConfig": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "Zamba2Config": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "hybrid_layer_ids": [1, 3],
    },
    "XmodConfig": {"default_language": "en_XX"},
    "GlmAsrEncoderConfig": {"intermediate_size": 128},
    "VoxtralEncoderConfig": {"intermediate_size": 128},
    "PocketTTSConfig": {"flow_head_config": {"condition_dim": 32}},
    "RecurrentGemmaConfig": {"num_hidden_layers": 3},
    "RagConfig": {"n_docs": 2, "question_encoder": DPR, "generator": BART},
    "Molmo2AdapterConfig": {"vision_feature_layer": [0, 1]},
    "Qwen4ExpTextConfig": {
        "num_key_value_heads": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "hc_lowrank": 8,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "NeoMMEConfig": {"head_dim": 16},
    "Step3p7TextConfig": {"sliding_window": 4},
    "Qwen3OmniMoeTalkerTextConfig": {"shared_expert_intermediate_size": 16},
    "Gemma4UnifiedAssistantConfig": {
        "text_config": {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
        }
    },
}
