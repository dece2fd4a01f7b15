"""Configs of every component of LTX-2.0, 2.3 and 2.5: at full size, and how those of a tiny checkpoint differ.

Sources: scripts/convert_ltx2_to_diffusers.py in github.com/huggingface/diffusers; for the text encoders, those parts of
the configs of google/gemma-3-12b-it and google/gemma-4-12B-it on the Hugging Face hub that determine shapes.
"""

from __future__ import annotations

from typing import Any, Literal

Config = dict[str, Any]
Version = Literal["2.0", "2.3", "2.5"]
VERSIONS: tuple[Version, ...] = ("2.0", "2.3", "2.5")

CLASSES = {
    "transformer": "LTX2VideoTransformer3DModel",
    "transformer_full": "LTX2VideoTransformer3DModel",
    "connectors": "LTX2TextConnectors",
    "vae": "AutoencoderKLLTX2Video",
    "audio_vae": "AutoencoderKLLTX2Audio",
    "latent_upsampler": "LTX2LatentUpsamplerModel",
}
"""diffusers' classes. Those of the vocoder and the text encoder depend on the version."""

VOCODER_CLASSES: dict[Version, str] = {
    "2.0": "LTX2Vocoder",
    "2.3": "LTX2VocoderWithBWE",
    "2.5": "LTX2VocoderWithBWE",
}

TEXT_ENCODER_CLASSES: dict[Version, str] = {
    "2.0": "Gemma3ForConditionalGeneration",
    "2.3": "Gemma3ForConditionalGeneration",
    "2.5": "Gemma4UnifiedForConditionalGeneration",
}

_TRANSFORMER: Config = {
    "in_channels": 128, "out_channels": 128, "num_attention_heads": 32, "attention_head_dim": 128,
    "cross_attention_dim": 4096, "audio_in_channels": 128, "audio_out_channels": 128, "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64, "audio_cross_attention_dim": 2048, "num_layers": 48, "caption_channels": 3840,
    "rope_double_precision": True, "rope_type": "split",
}  # fmt: skip
_GATED: Config = {
    "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "perturbed_attn": True,
}  # fmt: skip
_CONNECTORS: Config = {"caption_channels": 3840, "text_proj_in_factor": 49, "rope_type": "split"}
_WIDE_CONNECTORS: Config = _CONNECTORS | {
    "video_connector_num_attention_heads": 32, "video_connector_attention_head_dim": 128,
    "video_connector_num_layers": 8, "video_gated_attn": True, "audio_connector_num_attention_heads": 32,
    "audio_connector_attention_head_dim": 64, "audio_connector_num_layers": 8, "audio_gated_attn": True,
    "per_modality_projections": True, "video_hidden_dim": 4096, "audio_hidden_dim": 2048, "proj_bias": True,
}  # fmt: skip
_VAE: Config = {
    "decoder_causal": False,
    "decoder_spatial_padding_mode": "reflect",
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
_NARROW_VAE: Config = _VAE | {
    "block_out_channels": (256, 512, 1024, 1024), "decoder_block_out_channels": (256, 512, 512, 1024),
    "layers_per_block": (4, 6, 4, 2, 2), "decoder_layers_per_block": (4, 6, 4, 2, 2),
    "spatio_temporal_scaling": (True,) * 4, "decoder_spatio_temporal_scaling": (True,) * 4,
    "decoder_inject_noise": (False,) * 5, "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    "upsample_residual": (False,) * 4, "upsample_factor": (2, 2, 1, 2), "decoder_spatial_padding_mode": "zeros",
}  # fmt: skip

FULL: dict[Version, dict[str, Config]] = {
    "2.0": {
        "transformer": _TRANSFORMER | {"use_prompt_embeddings": True},
        "connectors": _CONNECTORS,
        "vae": _VAE,
        "audio_vae": {},
        "vocoder": {},
        "latent_upsampler": {},
    },
    "2.3": {
        "transformer": _TRANSFORMER | _GATED,
        "connectors": _WIDE_CONNECTORS,
        "vae": _NARROW_VAE,
        "audio_vae": {},
        "vocoder": {},
        "latent_upsampler": {"use_rational_resampler": False},
    },
}
FULL["2.5"] = FULL["2.3"] | {
    "transformer": _TRANSFORMER | _GATED | {"ff_bias": False, "use_keyframes_abs_pos_embedding": True}
}

_TINY_TRANSFORMER: Config = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24,
    "audio_in_channels": 4, "audio_out_channels": 4, "audio_num_attention_heads": 2, "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16, "num_layers": 3, "caption_channels": 16,
}  # fmt: skip
_TINY_CONNECTORS: Config = {
    "caption_channels": 16, "text_proj_in_factor": 3, "video_connector_num_attention_heads": 2,
    "video_connector_num_layers": 1, "video_connector_num_learnable_registers": 8,
    "audio_connector_num_attention_heads": 2, "audio_connector_num_layers": 1,
    "audio_connector_num_learnable_registers": 8, "connector_rope_base_seq_len": 32,
}  # fmt: skip
_TINY_WIDE: Config = _TINY_CONNECTORS | {
    "video_connector_attention_head_dim": 12, "audio_connector_attention_head_dim": 8, "video_hidden_dim": 24,
    "audio_hidden_dim": 16,
}  # fmt: skip
_TINY_VAE: Config = {
    "latent_channels": 4, "block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5, "upsample_factor": (1,) * 4,
}  # fmt: skip
_TINY_BWE: Config = {
    "in_channels": 16, "hidden_channels": 16, "upsample_kernel_sizes": [11, 4, 4, 4], "upsample_factors": [5, 4, 4, 2],
    "resnet_kernel_sizes": [3], "resnet_dilations": [[1, 3, 5]], "bwe_in_channels": 16, "bwe_hidden_channels": 16,
    "bwe_upsample_kernel_sizes": [12, 11, 4, 4], "bwe_upsample_factors": [6, 5, 4, 2], "bwe_resnet_kernel_sizes": [3],
    "bwe_resnet_dilations": [[1, 3, 5]], "filter_length": 32, "window_length": 32, "num_mel_channels": 8,
}  # fmt: skip

_TINY_23: dict[str, Config] = {
    "transformer": _TINY_TRANSFORMER,
    "connectors": _TINY_WIDE,
    "vae": _TINY_VAE,
    "audio_vae": {"base_channels": 4, "num_res_blocks": 1, "resolution": 32, "latent_channels": 2, "mel_bins": 8},
    "vocoder": _TINY_BWE,
    "latent_upsampler": {"in_channels": 4, "mid_channels": 32, "num_blocks_per_stage": 1},
}
TINY: dict[Version, dict[str, Config]] = {
    "2.0": _TINY_23
    | {
        "connectors": _TINY_CONNECTORS
        | {"video_connector_attention_head_dim": 8, "audio_connector_attention_head_dim": 8},
        "vae": {
            "latent_channels": 4, "block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 4,
        },
        "vocoder": {
            "in_channels": 16, "hidden_channels": 32, "upsample_kernel_sizes": [16, 15, 8, 4, 4],
            "resnet_kernel_sizes": [3], "resnet_dilations": [[1, 3, 5]],
        },
    },
    "2.3": _TINY_23,
    "2.5": _TINY_23,
}  # fmt: skip
"""How the configs of a tiny checkpoint differ: a three-layer transformer, and four latent channels. Flags, classes and
the compression of 32 x 32 x 8 are the same."""

DISTILLED_SCHEDULER: Config = {"use_dynamic_shifting": False, "shift_terminal": None}
SCHEDULER: Config = {
    "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
    "max_image_seq_len": 4096, "shift_terminal": 0.1,
}  # fmt: skip


def text_encoder_config(version: Version, tiny: bool) -> Any:
    """The transformers config of Gemma 3 12B (2.0 and 2.3) or Gemma 4 12B (2.5), or of a tiny one of its kind."""
    config = _gemma4(tiny) if version == "2.5" else _gemma3(tiny)
    config.architectures = [TEXT_ENCODER_CLASSES[version]]
    return config


def _gemma3(tiny: bool) -> Any:
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    if tiny:
        text = Gemma3TextConfig(**_TINY_TEXT, query_pre_attn_scalar=8)
        vision = SiglipVisionConfig(**_TINY_VISION)
        return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **_TINY_TOKENS)
    text = Gemma3TextConfig(**_TEXT, vocab_size=262208)
    vision = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=896,
        patch_size=14,
    )  # fmt: skip
    return Gemma3Config(text_config=text, vision_config=vision)


def _gemma4(tiny: bool) -> Any:
    from transformers import Gemma4UnifiedConfig
    from transformers.models.gemma4_unified import configuration_gemma4_unified

    gemma4: Any = configuration_gemma4_unified  # accepts settings that it does not declare

    text = gemma4.Gemma4UnifiedTextConfig(
        **(
            _TINY_TEXT | {"global_head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}
            if tiny
            else _TEXT | {"vocab_size": 262144}
        ),
        attention_k_eq_v=True,
        num_global_key_value_heads=1,
    )
    tiny_parts = {
        "vision_config": gemma4.Gemma4UnifiedVisionConfig(mm_embed_dim=16, output_proj_dims=16, num_soft_tokens=4),
        "audio_config": gemma4.Gemma4UnifiedAudioConfig(audio_embed_dim=16, output_proj_dims=16),
    }
    parts = tiny_parts if tiny else {
        "vision_config": gemma4.Gemma4UnifiedVisionConfig(), "audio_config": gemma4.Gemma4UnifiedAudioConfig(),
    }  # fmt: skip
    return Gemma4UnifiedConfig(text_config=text, **parts)


_TEXT: Config = {
    "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "sliding_window": 1024,
}  # fmt: skip
_TINY_TEXT: Config = {
    "vocab_size": 260, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 32, "max_position_embeddings": 2048,
}  # fmt: skip
_TINY_VISION: Config = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_TINY_TOKENS: Config = {"image_token_index": 3, "boi_token_index": 3, "eoi_token_index": 3}
