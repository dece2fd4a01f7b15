"""Checkpoints of the real diffusers and transformers classes at tiny size, with random weights."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import sentencepiece
import torch
import transformers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors.torch import load_file, save_file

LATENT_CHANNELS = 16
CAPTION_CHANNELS = 32
VOCAB_SIZE = 384

VAE_090 = {
    "block_out_channels": (16, 16, 16, 16),
    "decoder_block_out_channels": (16, 16, 16, 16),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "spatio_temporal_scaling": (True, True, True, False),
    "decoder_spatio_temporal_scaling": (True, True, True, False),
}
"""Config like that of 0.9.0: no timestep conditioning. Compression 32 x 32 x 8."""

VAE_091 = VAE_090 | {
    "decoder_block_out_channels": (8, 16, 32),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}
"""Config like that of 0.9.1: timestep conditioning, and noise from the global generator inside the decoder."""

VAE_095 = VAE_091 | {
    "block_out_channels": (8, 16, 32, 64, 64),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "layers_per_block": (1, 1, 1, 1, 1),
    "spatio_temporal_scaling": (True, True, True, True),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "decoder_inject_noise": (False, False, False, False),
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
"""Config like that of 0.9.5 and later: timestep conditioning alone."""

VAES = {"0.9.0": VAE_090, "0.9.1": VAE_091, "0.9.5": VAE_095}

DYNAMIC_SHIFT = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}
"""The noise scheduler of 0.9.0 and 0.9.1; later ones do not shift."""


def save_checkpoint(folder: Path, version: str, pipeline_class: str = "LTXPipeline") -> Path:
    """A whole checkpoint in diffusers layout; the same bytes at every call."""
    torch.manual_seed(0)
    pipeline = getattr(diffusers, pipeline_class)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**({} if version == "0.9.5" else DYNAMIC_SHIFT)),
        vae=_random_vae(version),
        text_encoder=_random_text_encoder(),
        tokenizer=transformers.ByT5Tokenizer(),
        transformer=_random_transformer(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


TEXT = "a red ball rolls over green grass\na blue square moves to the left\nwaves in the evening, slow pan\n" * 20
"""The text on which `save_t5_tokenizer` trains its vocabulary."""


def save_t5_tokenizer(checkpoint: Path) -> Path:
    """Replace the tokenizer with T5's as it is published: a sentencepiece model, and no tokenizer.json.

    With its sentinels it has as many tokens as the tiny text encoder has embeddings.
    """
    folder = checkpoint / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=model, vocab_size=80, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = special | {"tokenizer_class": "T5Tokenizer", "extra_ids": VOCAB_SIZE - pieces, "model_max_length": 128}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    index = checkpoint / "model_index.json"
    if index.is_file():
        document = json.loads(index.read_text()) | {"tokenizer": ["transformers", "T5Tokenizer"]}
        index.write_text(json.dumps(document))
    return folder


def save_overflowing(checkpoint: Path, folder: Path) -> Path:
    """A copy whose transformer gives infinities. Headers and configs are right, so only rendering shows it."""
    shutil.copytree(checkpoint, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.bias"].fill_(float("inf"))
    save_file(tensors, weights)
    return folder


def save_upscaler(folder: Path) -> Path:
    """A spatial latent upscaler; the same bytes at every call."""
    torch.manual_seed(3)
    upsampler: Any = LTXLatentUpsamplerModel(in_channels=LATENT_CHANNELS, mid_channels=32, num_blocks_per_stage=1)
    upsampler.save_pretrained(folder, safe_serialization=True)
    return folder


def save_official_upscaler(path: Path, **changes: object) -> Path:
    """The same as an official file, with its config in the metadata."""
    torch.manual_seed(3)
    config = {"in_channels": LATENT_CHANNELS, "mid_channels": 32, "num_blocks_per_stage": 1, "dims": 3}
    upsampler: Any = LTXLatentUpsamplerModel(**config)
    config |= {"_class_name": "LatentUpsampler", "spatial_upsample": True, "temporal_upsample": False} | changes
    save_file(upsampler.state_dict(), path, {"config": json.dumps(config)})
    return path


def _random_vae(version: str) -> torch.nn.Module:
    vae = diffusers.AutoencoderKLLTXVideo(latent_channels=LATENT_CHANNELS, **VAES[version])
    generator = torch.Generator().manual_seed(1)
    vae.latents_mean.copy_(torch.randn(LATENT_CHANNELS, generator=generator) * 0.1)
    vae.latents_std.copy_(torch.rand(LATENT_CHANNELS, generator=generator) + 0.5)
    for name, parameter in vae.named_parameters():
        if "per_channel_scale" in name:  # it is zero at first, so that injected noise would not show
            parameter.data.normal_(0, 0.5, generator=generator)
    return vae


def _random_text_encoder() -> torch.nn.Module:
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=VOCAB_SIZE, d_model=CAPTION_CHANNELS, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )
    )  # fmt: skip


def _random_transformer() -> torch.nn.Module:
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, num_layers=2, caption_channels=CAPTION_CHANNELS,
    )  # fmt: skip
