"""VAE training: reconstruct freshly drawn clips, decoding from slightly noised latents."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import nn

from .clips import draw_batch, split_scenes
from .common import Trainer, autocast
from .models import LATENT_CHANNELS, build_vae
from .muon import Muon

LEARNING_RATE = 3e-3
# (frames, clips) of successive batches: short pieces show more different clips for the same work.
BATCHES = ((9, 12), (9, 12), (25, 4))
SHAPE_WEIGHT = 4.0
LATENT_PENALTY = 1e-4
# Decoding is trained for every timestep up to this one and any smaller share of noise.
MAX_DECODE_TIMESTEP = 0.1
DECODE_TIMESTEP = 0.05
DECODE_NOISE_SCALE = 0.025
WARMUP = 30
AVERAGE_DECAY = 0.99
SAVE_EVERY = 100


def encode(vae: AutoencoderKLLTXVideo, clips: torch.Tensor) -> torch.Tensor:
    """The posterior mean of clips, not normalised."""
    return vae.encoder(clips)[:, :LATENT_CHANNELS].float()


def decode(
    vae: AutoencoderKLLTXVideo, latents: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Clips of latents blended with a share `noise` of Gaussian noise, as the pipeline decodes."""
    share = noise[:, None, None, None, None]
    noised = (1 - share) * latents + share * torch.randn_like(latents)
    return vae.decoder(noised, timestep).float()


def reconstruct(vae: AutoencoderKLLTXVideo, clips: torch.Tensor) -> torch.Tensor:
    """Encode and decode with the settings recommended for rendering."""
    ones = torch.ones(len(clips), device=clips.device)
    return decode(vae, encode(vae, clips), ones * DECODE_TIMESTEP, ones * DECODE_NOISE_SCALE)


def psnr(clips: torch.Tensor, others: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over clips in [-1, 1]."""
    error = ((clips - others.clamp(-1, 1)) / 2).square().flatten(1).mean(1)
    return float((-10 * torch.log10(error)).mean())


def _loss(clips: torch.Tensor, output: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Pixel error that counts the shape's pixels more, and a mild pull of latents to zero."""
    background = clips[:, :, :, :1, :1]
    in_shape = (clips - background).abs().amax(1, keepdim=True) > 0.02
    weight = torch.where(in_shape, SHAPE_WEIGHT, 1.0)
    error = output - clips
    pixel = (weight * (0.5 * error.abs() + error.square())).mean() / weight.mean()
    return pixel + LATENT_PENALTY * latents.square().mean()


def _optimizers(vae: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the convolution kernels, AdamW for all else."""
    kernels = [p for p in vae.parameters() if p.ndim == 5]
    others = [p for p in vae.parameters() if p.ndim != 5]
    return [
        Muon(kernels, LEARNING_RATE),
        torch.optim.AdamW(others, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def _batch(step: int, seed: int, device: torch.device) -> torch.Tensor:
    """Fresh clips of training scenes; a step always gets the same ones."""
    train, _ = split_scenes()
    rng = random.Random(f"vae {seed} {step}")
    frames, clips = BATCHES[step % len(BATCHES)]
    batch = draw_batch(rng.choices(train, k=clips), rng, frames)
    return batch.to(device, memory_format=torch.channels_last_3d)


def _training_loss(vae: AutoencoderKLLTXVideo, clips: torch.Tensor) -> torch.Tensor:
    """The loss at random decode timesteps."""
    device = clips.device
    timestep = torch.rand(len(clips), device=device) * MAX_DECODE_TIMESTEP
    noise = timestep * torch.rand(len(clips), device=device)
    with autocast(device):
        latents = encode(vae, clips)
        output = decode(vae, latents, timestep, noise)
    return _loss(clips, output, latents)


@torch.no_grad()
def _set_latent_statistics(vae: AutoencoderKLLTXVideo, seed: int) -> None:
    """Per-channel mean and spread, by which latents are normalised for the denoiser."""
    train, _ = split_scenes()
    rng = random.Random(seed)
    clips = draw_batch(rng.choices(train, k=64), rng).to(vae.device)
    latents = torch.cat([encode(vae, part) for part in clips.split(8)])
    vae.latents_mean.copy_(latents.mean((0, 2, 3, 4)))
    vae.latents_std.copy_(latents.std((0, 2, 3, 4)))


@torch.no_grad()
def held_out_psnr(vae: AutoencoderKLLTXVideo, seed: int, count: int = 8) -> float:
    """Reconstruction quality in dB of clips of scenes that no stage trains on."""
    _, held_out = split_scenes()
    rng = random.Random(seed)
    clips = draw_batch(rng.sample(held_out, count), rng).to(vae.device)
    return sum(psnr(part, reconstruct(vae, part)) for part in clips.split(1)) / count


def train_vae(work: Path, steps: int, device: torch.device, seed: int) -> AutoencoderKLLTXVideo:
    """The trained VAE, averaged over its last steps; continues from the checkpoint in `work`."""
    torch.manual_seed(seed)
    vae: Any = build_vae()
    vae.to(device, memory_format=torch.channels_last_3d)
    trainer = Trainer(work / "vae.pt", vae, _optimizers(vae), steps, WARMUP, AVERAGE_DECAY, seed)
    while trainer.step < steps:
        trainer.begin()
        loss = _training_loss(vae, _batch(trainer.step, seed, device))
        trainer.finish(loss)
        if trainer.due(SAVE_EVERY):
            trainer.save()
            quality = held_out_psnr(vae, seed)
            print(
                f"vae {trainer.step}/{steps} {trainer.seconds:.0f}s loss {loss:.4f} held-out {quality:.2f} dB",
                flush=True,
            )
    trainer.average.copy_to(vae)
    vae.eval().requires_grad_(False)
    _set_latent_statistics(vae, seed)
    return vae
