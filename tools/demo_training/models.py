"""The shapes of the demonstration model's parts, and writing them as one pipeline folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from .captions import MAX_SEQUENCE_LENGTH

LATENT_CHANNELS = 64
TEXT_WIDTH = 128
# Spread of the (unused) posterior noise: exp(-12 / 2) is too little to matter.
POSTERIOR_LOGVAR = -12.0


def build_vae() -> AutoencoderKLLTXVideo:
    """A video VAE with 32x32x4 compression, built of the blocks of LTX-Video 0.9.5."""
    vae = AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 64),
        down_block_types=("LTXVideo095DownBlock3D", "LTXVideo095DownBlock3D"),
        spatio_temporal_scaling=(True, True),
        layers_per_block=(1, 1, 1),
        downsample_type=("spatiotemporal", "spatiotemporal"),
        decoder_block_out_channels=(40, 80),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_layers_per_block=(1, 1, 1),
        decoder_inject_noise=(False, False, False),
        upsample_residual=(True, True),
        upsample_factor=(1, 2),
        timestep_conditioning=True,
        patch_size=8,
        spatial_compression_ratio=32,
        temporal_compression_ratio=4,
    )
    # The last output channel is the posterior's log variance; training uses the mean alone.
    last: Any = vae.encoder.conv_out.conv
    with torch.no_grad():
        last.weight[-1].zero_()
        last.bias[-1].fill_(POSTERIOR_LOGVAR)
    return vae


def build_text_encoder() -> T5EncoderModel:
    """A T5 encoder over bytes."""
    config = T5Config(
        vocab_size=384,
        d_model=TEXT_WIDTH,
        d_kv=32,
        num_heads=4,
        d_ff=256,
        num_layers=3,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def build_tokenizer() -> ByT5Tokenizer:
    """Bytes as tokens: any text is accepted and no vocabulary file is needed."""
    return ByT5Tokenizer(model_max_length=MAX_SEQUENCE_LENGTH)


def build_transformer() -> LTXVideoTransformer3DModel:
    """The denoiser."""
    return LTXVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=4,
        attention_head_dim=32,
        cross_attention_dim=128,
        num_layers=7,
        caption_channels=TEXT_WIDTH,
    )


def build_upsampler() -> LTXLatentUpsamplerModel:
    """A latent upsampler that doubles height and width frame by frame: more would not fit into the package's 12 MB."""
    return LTXLatentUpsamplerModel(in_channels=LATENT_CHANNELS, mid_channels=64, num_blocks_per_stage=0, dims=2)


def load_upsampler(folder: Path, device: torch.device) -> LTXLatentUpsamplerModel | None:
    """The latent upsampler of an exported model folder, in float32, for training; None if the folder has none."""
    if not (folder / "latent_upsampler").is_dir():
        return None
    upsampler: Any = LTXLatentUpsamplerModel.from_pretrained(folder / "latent_upsampler", torch_dtype=torch.float32)
    return upsampler.to(device).train()


def load_parts(
    folder: Path, device: torch.device
) -> tuple[T5EncoderModel, AutoencoderKLLTXVideo, LTXVideoTransformer3DModel]:
    """The text encoder, VAE and transformer of an exported model folder, in float32; only the last is for training."""
    text_encoder = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    vae = AutoencoderKLLTXVideo.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    transformer = LTXVideoTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    for part in (text_encoder, vae, transformer):
        torch.nn.Module.to(part, device)
    for part in (text_encoder, vae):
        part.eval().requires_grad_(False)
    return text_encoder, vae, transformer.train()


def build_scheduler(shift: float) -> FlowMatchEulerDiscreteScheduler:
    """Plain Euler steps of rectified flow, with a fixed shift toward high noise."""
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False, shift=shift)


def count_parameters(module: torch.nn.Module) -> int:
    """Number of trained values in a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def export_pipeline(
    output: Path,
    vae: AutoencoderKLLTXVideo,
    text_encoder: T5EncoderModel,
    transformer: LTXVideoTransformer3DModel,
    upsampler: LTXLatentUpsamplerModel,
    scheduler: FlowMatchEulerDiscreteScheduler,
) -> None:
    """Write the parts as float16 safetensors in the diffusers layout, replacing `output`."""
    temporary = output.with_name(output.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    for part in (vae, text_encoder, transformer, upsampler):
        # torch's own method, because diffusers' warns about float16, which is intended here.
        torch.nn.Module.to(part, torch.float16)
    pipeline = LTXPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        transformer=transformer,
    )
    pipeline.save_pretrained(temporary, safe_serialization=True)
    upsampler.save_pretrained(temporary / "latent_upsampler", safe_serialization=True)
    for file in temporary.rglob("*.safetensors"):
        file.chmod(0o644)
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)
