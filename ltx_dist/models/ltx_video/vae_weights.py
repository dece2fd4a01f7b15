"""Loads either half of the VAE by the names of its tensors, without reading the other half.

diffusers' own loaders load every tensor of a file, and read all of it from disk if the dtype has to be cast.
"""

from __future__ import annotations

from typing import Any, Literal

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_ltx_vae_checkpoint_to_diffusers

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile, Source
from ltx_dist.checkpoints.official_file import KEPT_STATISTICS, STATISTICS
from ltx_dist.checkpoints.versions import read_config
from ltx_dist.checkpoints.weight_files import read_header, weight_files
from ltx_dist.weights.loading import fill, read_tensors

Half = Literal["encoder", "decoder"]

_TELLS_VERSION = "vae.encoder.conv_out.conv.weight"
"""From the shape of this tensor, diffusers tells how to rename the keys of an official file."""


def load_half(checkpoint: Checkpoint, half: Half, dtype: torch.dtype) -> torch.nn.Module:
    """The VAE with only its encoder or its decoder, and the statistics of its latents.

    Raises ValueError if weights and config do not match.
    """
    source = checkpoint.source("vae")
    with torch.device("meta"):
        if isinstance(source, InFile):
            config: Any = read_config(source.config_name) | source.changes
            vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
        else:
            config = diffusers.AutoencoderKLLTXVideo.load_config(source)
            vae = diffusers.AutoencoderKLLTXVideo.from_config(config)
    setattr(vae, "decoder" if half == "encoder" else "encoder", None)
    fill(vae, _tensors(source, half, dtype))
    return vae.eval()


def statistics(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean and standard deviation of the latents' channels in `dtype`, (C,) each, and the VAE's scaling factor."""
    source = checkpoint.source("vae")
    config: Any = (
        read_config(source.config_name)
        if isinstance(source, InFile)
        else diffusers.AutoencoderKLLTXVideo.load_config(source)
    )
    tensors = _tensors(source, None, dtype)
    return tensors["latents_mean"], tensors["latents_std"], config.get("scaling_factor", 1.0)


def _tensors(source: Source, half: Half | None, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors of the half and the statistics, by diffusers' names, floating-point ones in `dtype`.

    Tensors stored in `dtype` are views of the mapped file, which are read from disk when they are first used.
    """
    left_out = tuple(f"{other}." for other in ("encoder", "decoder") if other != half)
    if not isinstance(source, InFile):
        tensors: dict[str, torch.Tensor] = {}
        for file in weight_files(source, "vae"):
            tensors |= read_tensors(file, lambda name: not name.startswith(left_out), dtype)
        return tensors
    wanted = {STATISTICS + name for name in KEPT_STATISTICS}
    tensors = read_tensors(source.file, lambda name: name.startswith(f"vae.{half}.") or name in wanted, dtype)
    if half != "encoder":
        tensors[_TELLS_VERSION] = torch.empty(read_header(source.file).tensors[_TELLS_VERSION].shape, device="meta")
    renamed = convert_ltx_vae_checkpoint_to_diffusers(tensors)
    return {name: tensor for name, tensor in renamed.items() if not name.startswith(left_out)}
