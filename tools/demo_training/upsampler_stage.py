"""Latent upsampler training: the latents of a clip to those of the same clip at twice the size, frame by frame."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

from .clips import Scene, draw_pair, split_scenes
from .common import Trainer, autocast
from .models import build_upsampler
from .muon import Muon
from .vae_stage import encode

LEARNING_RATE = 4e-3
WARMUP = 30
AVERAGE_DECAY = 0.99
TRAINING_PAIRS, HELD_OUT_PAIRS = 192, 8
BATCH = 64
"""Frames."""

SAVE_EVERY = 100

Pairs = tuple[torch.Tensor, torch.Tensor]
"""(frames, C, 1, h, w) and (frames, C, 1, 2 h, 2 w), not normalised."""


@torch.no_grad()
def _encode_pairs(vae: AutoencoderKLLTXVideo, scenes: list[Scene], rng: random.Random) -> Pairs:
    """Pairs of latents, from one clip per scene. Encoding the larger clips takes most of the time of the training, so
    each pair is used many times."""
    small, large = [], []
    for scene in scenes:
        with autocast(vae.device):
            encoded = (encode(vae, clip[None].to(vae.device)) for clip in draw_pair(scene, rng))
            for latents, kept in zip(encoded, (small, large), strict=True):
                kept.append(latents[0].permute(1, 0, 2, 3).unsqueeze(2))
    return torch.cat(small), torch.cat(large)


def _optimizers(upsampler: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the convolution kernels, AdamW for all else."""
    kernels = [p for p in upsampler.parameters() if p.ndim == 4]
    others = [p for p in upsampler.parameters() if p.ndim != 4]
    return [
        Muon(kernels, LEARNING_RATE),
        torch.optim.AdamW(others, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _error(upsampler: torch.nn.Module, pairs: Pairs, spread: torch.Tensor) -> torch.Tensor:
    """Squared error of the larger latents, in units of each channel's spread."""
    small, large = pairs
    with autocast(small.device):
        made = upsampler(small)
    return ((made.float() - large) / spread).square().mean()


def train_upsampler(
    work: Path, steps: int, vae: AutoencoderKLLTXVideo, seed: int, trained: LTXLatentUpsamplerModel | None = None
) -> LTXLatentUpsamplerModel:
    """The upsampler, averaged over its last steps; continues from `work`, else from `trained`, else from scratch."""
    torch.manual_seed(seed)
    upsampler: Any = trained or build_upsampler()
    upsampler.to(vae.device)
    trainer = Trainer(work / "upsampler.pt", upsampler, _optimizers(upsampler), steps, WARMUP, AVERAGE_DECAY, seed)
    if trainer.step < steps:
        rng, (train, held_out) = random.Random(f"upsampler {seed}"), split_scenes()
        small, large = _encode_pairs(vae, rng.choices(train, k=TRAINING_PAIRS), rng)
        others = _encode_pairs(vae, rng.sample(held_out, HELD_OUT_PAIRS), rng)
        spread = vae.latents_std.view(1, -1, 1, 1, 1)
    while trainer.step < steps:
        trainer.begin()
        picks = torch.randint(len(small), (BATCH,), device=vae.device)
        loss = _error(upsampler, (small[picks], large[picks]), spread)
        trainer.finish(loss)
        if trainer.due(SAVE_EVERY):
            trainer.save()
            with torch.no_grad():
                quality = float(_error(upsampler, others, spread))
            print(
                f"upsampler {trainer.step}/{steps} {trainer.seconds:.0f}s loss {float(loss.detach()):.4f} "
                f"held-out {quality:.4f}",
                flush=True,
            )
    trainer.average.copy_to(upsampler)
    return upsampler.eval().requires_grad_(False)
