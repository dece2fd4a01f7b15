"""Loads the components of LTX-Video 0.9.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile
from ltx_dist.checkpoints.component_config import component_config
from ltx_dist.checkpoints.lora_files import LoraFile, read_loras
from ltx_dist.checkpoints.tokenizer_folder import require_size, require_tokenizer, tokenizer_class_name
from ltx_dist.checkpoints.upscaler import upscaler_config
from ltx_dist.checkpoints.weight_files import weight_files
from ltx_dist.models.ltx_video.vae_weights import load_half, statistics
from ltx_dist.pipeline.storage import Storage
from ltx_dist.weights.loading import CPU, DTYPES, fill, load_model, read_tensors
from ltx_dist.weights.lora import add_loras
from ltx_dist.weights.quantization import load_encoder


def load_component(
    name: str, checkpoint: Checkpoint, dtype: torch.dtype, storage: Storage, device: torch.device
) -> torch.nn.Module:
    """`Family.load_component` of this family. The VAE is loaded by halves: `vae_encoder`, and `vae`, its decoder."""
    vae_dtype = dtype if storage.vae == "same" else DTYPES[storage.vae]
    match name:
        case "text_encoder":
            return load_text_encoder(checkpoint, dtype, storage.text_encoder, device)
        case "transformer":
            return load_transformer(checkpoint, dtype, storage.transformer, read_loras(checkpoint))
        case "vae":
            return load_vae_decoder(checkpoint, vae_dtype)
        case "vae_encoder":
            return load_half(checkpoint, "encoder", vae_dtype)
        case "latent_upsampler":
            return load_upsampler(checkpoint, dtype, vae_dtype)
    raise AssertionError(f"LTX-Video has no component {name}")


def load_text_encoder(
    checkpoint: Checkpoint, dtype: torch.dtype, quantization: str = "none", device: torch.device = CPU
) -> Any:
    """T5; `quantization` as in `Storage.text_encoder`."""
    folder = checkpoint.folder("text_encoder")
    # transformers keeps each block's last layer, the only one that exceeds float16, out of LLM.int8.
    return load_encoder(transformers.T5EncoderModel, folder, dtype, quantization, device, fits_float16=True)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer, made by one of a list of transformers' classes, and never by code from the checkpoint.

    Raises ValueError unless its vocabulary is there and fits the text encoder: without a vocabulary file, transformers
    makes a T5 tokenizer of some hundred tokens, to which every word is unknown.
    """
    folder, vocab_size = checkpoint.folder("tokenizer"), component_config(checkpoint, "text_encoder")["vocab_size"]
    index = folder.parent / "model_index.json"
    require_tokenizer(folder, index, vocab_size)
    tokenizer_class = getattr(transformers, tokenizer_class_name(folder, index))
    tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    require_size(len(tokenizer), vocab_size, str(folder))
    return tokenizer


def load_transformer(
    checkpoint: Checkpoint, dtype: torch.dtype, storage: str = "same", loras: Mapping[str, LoraFile] | None = None
) -> Any:
    """The transformer. storage `float8`: diffusers keeps linear layers in 8 bits and casts each to `dtype` while it
    computes. LoRAs stay in `dtype`."""
    transformer: Any = load_model(diffusers.LTXVideoTransformer3DModel, checkpoint.source("transformer"), dtype)
    if storage == "float8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    add_loras(transformer, loras or {}, dtype)
    return transformer


def load_vae_decoder(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    """The VAE without its encoder: half of its weights, and not needed to render from text."""
    return load_half(checkpoint, "decoder", dtype)


def load_upsampler(checkpoint: Checkpoint, dtype: torch.dtype, vae_dtype: torch.dtype) -> torch.nn.Module:
    """The latent upsampler with the VAE's statistics, because it works on latents that are not normalised.

    Raises ValueError if weights and config do not match.
    """
    source = checkpoint.source("latent_upsampler")
    with torch.device("meta"):
        upsampler: Any = LTXLatentUpsamplerModel(**upscaler_config(source))
    tensors: dict[str, torch.Tensor] = {}
    for file in [source.file] if isinstance(source, InFile) else weight_files(source, "latent_upsampler"):
        tensors |= read_tensors(file, lambda name: True, dtype)
    fill(upsampler, tensors)
    mean, std, upsampler.scaling_factor = statistics(checkpoint, vae_dtype)
    upsampler.register_buffer("latents_mean", mean)
    upsampler.register_buffer("latents_std", std)
    return upsampler.eval()
