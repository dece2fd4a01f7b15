"""The VAE's decoder by the names of its tensors: nothing of the encoder, half of the VAE, is ever asked for.

diffusers' own loaders take every tensor of a file, and where the dtype is cast all of it is read.
"""

from __future__ import annotations

import torch
from diffusers.loaders.single_file_utils import convert_ltx_vae_checkpoint_to_diffusers

from ltx_dist.checkpoints.checkpoint import InFile, Source
from ltx_dist.checkpoints.official_file import KEPT_STATISTICS, STATISTICS
from ltx_dist.checkpoints.weight_files import read_header, weight_files
from ltx_dist.weights.loading import read_tensors

_TELLS_VERSION = "vae.encoder.conv_out.conv.weight"
"""By the shape of this tensor diffusers tells how an official file's keys are to be renamed."""


def decoder_tensors(source: Source, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of an AutoencoderKLLTXVideo but its encoder's, by diffusers' names, floating ones in `dtype`.

    Those that are stored in it are views of the mapped file: they are read when they are first used.
    """
    tensors: dict[str, torch.Tensor] = {}
    if not isinstance(source, InFile):
        for file in weight_files(source, "vae"):
            tensors |= read_tensors(file, lambda name: not name.startswith("encoder."), dtype)
        return tensors
    statistics = {STATISTICS + name for name in KEPT_STATISTICS}
    tensors = read_tensors(source.file, lambda name: name.startswith("vae.decoder.") or name in statistics, dtype)
    tensors[_TELLS_VERSION] = torch.empty(read_header(source.file).tensors[_TELLS_VERSION].shape, device="meta")
    renamed = convert_ltx_vae_checkpoint_to_diffusers(tensors)
    return {name: tensor for name, tensor in renamed.items() if not name.startswith("encoder.")}
