"""Transformer training: rectified flow over latents of freshly drawn clips, guided by captions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel

from .captions import fill, random_template
from .clips import HEIGHT, NUM_FRAMES, WIDTH, Scene, draw_batch, split_scenes
from .common import Trainer
from .models import build_transformer
from .muon import Muon
from .text_stage import tokenize
from .vae_stage import encode

LEARNING_RATE = 4e-3
BATCH = 32
POOL = 2048
FRESH_PER_STEP = 2
CAPTION_DROPOUT = 0.1
FRAME_RATE = 12
# Colour and direction are decided while almost all is noise, so most steps are spent there, in
# training and (as the scheduler's shift) in rendering.
SHIFT = 4.0
WARMUP = 200
AVERAGE_DECAY = 0.998
SAVE_EVERY = 200


class LatentPool:
    """Encoded clips; a few are replaced at every step, so that none is seen for long."""

    def __init__(self, vae: AutoencoderKLLTXVideo, seed: int) -> None:
        self._vae = vae
        self._rng = random.Random(f"pool {seed}")
        self._train, _ = split_scenes()
        self._next = 0
        self._scenes: list[Scene] = []
        parts = []
        for _ in range(POOL // 16):
            scenes, latents = self._encode(16)
            self._scenes += scenes
            parts.append(latents)
        self._latents = torch.cat(parts)

    @torch.no_grad()
    def _encode(self, count: int) -> tuple[list[Scene], torch.Tensor]:
        """New scenes and their normalised latents as tokens, as the transformer sees them."""
        vae = self._vae
        scenes = self._rng.choices(self._train, k=count)
        clips = draw_batch(scenes, self._rng).to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            latents = encode(vae, clips)
        latents = LTXPipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std)
        return scenes, LTXPipeline._pack_latents(latents)

    def refresh(self) -> None:
        """Replace the oldest clips by new ones."""
        scenes, latents = self._encode(FRESH_PER_STEP)
        end = self._next + FRESH_PER_STEP
        self._scenes[self._next : end] = scenes
        self._latents[self._next : end] = latents
        self._next = end % POOL

    def sample(self, rng: random.Random, count: int) -> tuple[list[Scene], torch.Tensor]:
        """Random clips of the pool."""
        picks = rng.sample(range(POOL), count)
        return [self._scenes[pick] for pick in picks], self._latents[picks]


class Conditioner:
    """Captions of scenes as the fixed text encoder's output."""

    def __init__(self, encoder: T5EncoderModel) -> None:
        self._encoder = encoder

    @torch.no_grad()
    def __call__(self, scenes: list[Scene], rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        """(embeddings, mask); some captions are empty, which makes guidance possible."""
        texts = ["" if rng.random() < CAPTION_DROPOUT else fill(random_template(rng), scene, rng) for scene in scenes]
        ids, mask = (value.to(self._encoder.device) for value in tokenize(texts))
        # The encoder sees the padding, as in the pipeline; the transformer ignores it, so that
        # what is beyond the longest caption can be cut off without changing anything.
        with torch.autocast(self._encoder.device.type, torch.bfloat16):
            hidden = self._encoder(ids).last_hidden_state.float()
        longest = int(mask.sum(1).max())
        return hidden[:, :longest], mask[:, :longest]


def velocity(
    transformer: LTXVideoTransformer3DModel,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    embeddings: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The transformer's output, called as the pipeline calls it for a clip of the trained size."""
    return transformer(
        hidden_states=noisy,
        encoder_hidden_states=embeddings,
        timestep=sigma * 1000,
        encoder_attention_mask=mask.bool(),
        num_frames=(NUM_FRAMES - 1) // 4 + 1,
        height=HEIGHT // 32,
        width=WIDTH // 32,
        rope_interpolation_scale=(4 / FRAME_RATE, 32, 32),
        return_dict=False,
    )[0]


def _loss(
    transformer: LTXVideoTransformer3DModel,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Error of the predicted velocity at noise levels spread as the scheduler's."""
    uniform = torch.rand(len(latents), device=latents.device)
    sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    noise = torch.randn_like(latents)
    noisy = torch.lerp(latents, noise, sigma[:, None, None])
    # The fused attention's backward pass in bfloat16 is far slower on a CPU than the plain one.
    with torch.autocast(latents.device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        output = velocity(transformer, noisy, sigma, embeddings, mask)
    return functional.mse_loss(output.float(), noise - latents)


def _optimizers(transformer: Any) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else."""
    matrices = [p for p in transformer.transformer_blocks.parameters() if p.ndim == 2]
    matrices = [p for p in matrices if p.size(0) > 6]
    chosen = {id(p) for p in matrices}
    others = [p for p in transformer.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, LEARNING_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train_transformer(
    work: Path,
    steps: int,
    vae: AutoencoderKLLTXVideo,
    text_encoder: T5EncoderModel,
    seed: int,
) -> LTXVideoTransformer3DModel:
    """The trained transformer, averaged over its last steps; continues from `work`."""
    torch.manual_seed(seed)
    transformer: Any = build_transformer()
    transformer.to(vae.device)
    trainer = Trainer(
        work / "transformer.pt",
        transformer,
        _optimizers(transformer),
        steps,
        WARMUP,
        AVERAGE_DECAY,
        seed,
    )
    if trainer.step < steps:
        pool = LatentPool(vae, seed + trainer.step)
        conditioner = Conditioner(text_encoder)
    losses: list[float] = []
    while trainer.step < steps:
        trainer.begin()
        rng = random.Random(f"transformer {seed} {trainer.step}")
        pool.refresh()
        scenes, latents = pool.sample(rng, BATCH)
        loss = _loss(transformer, latents, *conditioner(scenes, rng))
        trainer.finish(loss)
        losses.append(float(loss.detach()))
        if trainer.due(SAVE_EVERY):
            trainer.save()
            print(
                f"transformer {trainer.step}/{steps} {trainer.seconds:.0f}s loss {sum(losses) / len(losses):.4f}",
                flush=True,
            )
            losses.clear()
    trainer.average.copy_to(transformer)
    return transformer.eval().requires_grad_(False)
