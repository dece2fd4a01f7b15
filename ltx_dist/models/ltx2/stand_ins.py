"""Stand-ins for modules on other workers, with what diffusers' LTX-2 pipelines read of them.

The pipelines' own `__call__` runs unchanged with these. Statistics are rounded to the VAE's dtype, as a loaded VAE's.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from ltx_dist.checkpoints.weight_files import weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx_dist.checkpoints.checkpoint import Checkpoint

STATISTICS = ("latents_mean", "latents_std")


class VideoVae:
    """Takes the place of an AutoencoderKLLTX2Video: its compression, statistics, and what it has already encoded."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        folder = checkpoint.folder("vae")
        config = _config(folder)
        self.spatial_compression_ratio = checkpoint.spatial_compression_ratio
        self.temporal_compression_ratio = checkpoint.temporal_compression_ratio
        self.dtype = dtype
        self.config = SimpleNamespace(scaling_factor=config.get("scaling_factor", 1.0), timestep_conditioning=False)
        self.latents_mean, self.latents_std = _statistics(folder, "vae", device, dtype)

    def encode(self, latents: torch.Tensor) -> Any:
        """Its argument, wrapped as a posterior: another worker has encoded the condition already."""
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


class FirstFrameVae(VideoVae):
    """The same for `LTX2ImageToVideoPipeline`, which preprocesses the image itself before it calls `encode`."""

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, encoded: Sequence[torch.Tensor]
    ) -> None:
        super().__init__(checkpoint, device, dtype)
        self._encoded = iter(encoded)

    def encode(self, latents: torch.Tensor) -> Any:
        return super().encode(next(self._encoded))


class AudioVae:
    """Takes the place of an AutoencoderKLLTX2Audio."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        folder = checkpoint.folder("audio_vae")
        config = _config(folder)
        ratio = 4  # diffusers' LATENT_DOWNSAMPLE_FACTOR, in time and in frequency
        self.mel_compression_ratio = self.temporal_compression_ratio = ratio
        self.dtype = dtype
        self.config = SimpleNamespace(
            sample_rate=config.get("sample_rate", 16000),
            mel_hop_length=config.get("mel_hop_length", 160),
            mel_bins=config.get("mel_bins", 64),
            latent_channels=config.get("latent_channels", 8),
        )
        self.latents_mean, self.latents_std = _statistics(folder, "audio_vae", device, dtype)


class Connectors:
    """Takes the place of LTX2TextConnectors: whatever it is called with, it returns their output for the prompt."""

    def __init__(self, made: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        self._made = made

    def __call__(self, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._made


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text("utf-8"))


def _statistics(folder: Path, component: str, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, component):
        with safe_open(file, framework="pt") as opened:
            names = set(opened.keys()) & set(STATISTICS)
            found |= {name: opened.get_tensor(name) for name in names}
    if missing := set(STATISTICS) - found.keys():
        raise ValueError(f"{folder}: {', '.join(sorted(missing))} missing; download it again")
    return [found[name].to(device, dtype) for name in STATISTICS]
