"""Loads one component of an LTX-2.x checkpoint, straight in its dtype, from safetensors in diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines import ltx2

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.lora_files import read_loras
from ltx_dist.checkpoints.weight_files import weight_files
from ltx_dist.pipeline.storage import PLAIN, Storage
from ltx_dist.weights.loading import CPU, complete, fill, read_tensors
from ltx_dist.weights.lora import add_loras
from ltx_dist.weights.quantization import load_encoder

TEXT_ENCODERS = {
    "gemma3": transformers.Gemma3ForConditionalGeneration,
    "gemma4_unified": transformers.Gemma4UnifiedForConditionalGeneration,
}
"""The text encoder's class, by `model_type` of its config: 2.0 and 2.3 have the first, 2.5 the second."""


def load_component(
    name: str, checkpoint: Checkpoint, dtype: torch.dtype, storage: Storage = PLAIN, device: torch.device = CPU
) -> torch.nn.Module:
    """The module that operations know by this name, with the batch's LoRAs in it, on the CPU unless `storage` has it
    quantised on the device as it is read. Raises ValueError where weights and config differ.

    The VAE is loaded by halves: `vae_encoder` and `vae`, its decoder. The sound's VAE, of which only the decoder is
    used, and the vocoder are in float32 whatever `dtype` is: in bfloat16 the vocoder of 2.3 is off by a third.
    """
    module = _LOADERS[name](checkpoint.folder(FOLDERS.get(name, name)), dtype, storage, device)
    if name in WITH_LORAS:
        add_loras(module, read_loras(checkpoint), dtype, name)
    return module


WITH_LORAS = ("transformer", "connectors")
"""The components that a LoRA of LTX-2 can change."""


FOLDERS = {"vae_encoder": "vae"}
"""Folders of the components whose folder has another name."""


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of the checkpoint's Gemma, padding on the left as diffusers' pipelines set it."""
    return transformers.AutoTokenizer.from_pretrained(
        checkpoint.folder("tokenizer"), local_files_only=True, trust_remote_code=False, padding_side="left"
    )


def _text_encoder(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    """Gemma's language model, without its head, whose logits are not needed, and without the vision and audio parts."""
    model_class = TEXT_ENCODERS[json.loads((folder / "config.json").read_text("utf-8"))["model_type"]]
    # Activations of Gemma 3 exceed float16's range, in which LLM.int8 computes.
    model = load_encoder(model_class, folder, dtype, storage.text_encoder, device, fits_float16=False)
    language = model.model
    for part, _ in list(language.named_children()):
        if part != "language_model":
            setattr(language, part, None)
    # No token is generated: a cache of keys and values would take 0.4 GB of device memory for nothing.
    language.language_model.config.use_cache = False
    return language


def _transformer(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    transformer: Any = complete(diffusers.LTX2VideoTransformer3DModel, folder, dtype)
    if storage.transformer == "float8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    return transformer


def _connectors(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    return complete(ltx2.LTX2TextConnectors, folder, dtype)


def _upsampler(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    return complete(ltx2.LTX2LatentUpsamplerModel, folder, dtype)


def _vae_decoder(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    return _half(diffusers.AutoencoderKLLTX2Video, folder, "encoder", dtype)


def _vae_encoder(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    return _half(diffusers.AutoencoderKLLTX2Video, folder, "decoder", dtype)


def _audio_decoder(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    return _half(diffusers.AutoencoderKLLTX2Audio, folder, "encoder", torch.float32)


def _vocoder(folder: Path, dtype: torch.dtype, storage: Storage, device: torch.device) -> torch.nn.Module:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return complete(getattr(ltx2, config["_class_name"]), folder, torch.float32)


def _half(model_class: Any, folder: Path, dropped: str, dtype: torch.dtype) -> torch.nn.Module:
    """An autoencoder without one of its halves, whose tensors are not read."""
    with torch.device("meta"):
        model = model_class.from_config(model_class.load_config(folder))
    setattr(model, dropped, None)
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, "vae"):
        tensors |= read_tensors(file, lambda name: not name.startswith(f"{dropped}."), dtype)
    fill(model, tensors)
    return model.eval()


_LOADERS: dict[str, Callable[[Path, torch.dtype, Storage, torch.device], torch.nn.Module]] = {
    "text_encoder": _text_encoder,
    "connectors": _connectors,
    "transformer": _transformer,
    "latent_upsampler": _upsampler,
    "vae": _vae_decoder,
    "vae_encoder": _vae_encoder,
    "audio_vae": _audio_decoder,
    "vocoder": _vocoder,
}
