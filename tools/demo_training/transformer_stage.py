"""Transformer training: rectified flow over latents of freshly drawn clips, guided by captions and first frames."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel

from .captions import fill, random_image_template, random_template
from .clips import HEIGHT, NUM_FRAMES, WIDTH, Scene, draw_batch, split_scenes
from .common import Trainer, autocast
from .models import build_transformer
from .muon import Muon
from .text_stage import tokenize
from .vae_stage import encode

TOKENS_PER_FRAME = (HEIGHT // 32) * (WIDTH // 32)
FRESH_PER_STEP = 2
CAPTION_DROPOUT = 0.1
FRAME_RATE = 12
# Colour and direction are decided while almost all is noise, so most steps are spent there, in
# training and (as the scheduler's shift) in rendering.
SHIFT = 4.0


@dataclass(frozen=True)
class Plan:
    """Batch sizes and learning rates.

    images: clips of a batch whose first frame is given, as the pipelines for images give it: its tokens carry no
    noise, and their timestep is 0. pool: encoded clips that batches are drawn from.
    """

    learning_rate: float
    warmup: int
    batch: int
    images: int
    pool: int
    average_decay: float
    save_every: int


FROM_NOTHING = Plan(4e-3, warmup=200, batch=32, images=16, pool=2048, average_decay=0.998, save_every=200)
# From weights that are trained already: enough to learn first frames, too little to forget captions.
FURTHER = Plan(2e-3, warmup=30, batch=16, images=10, pool=512, average_decay=0.99, save_every=25)


class LatentPool:
    """Encoded clips; a few are replaced at every step, so that none is seen for long."""

    def __init__(self, vae: AutoencoderKLLTXVideo, size: int, seed: int) -> None:
        self._vae, self._size = vae, size
        self._rng = random.Random(f"pool {seed}")
        self._train, _ = split_scenes()
        self._next = 0
        self._scenes: list[Scene] = []
        parts = []
        for _ in range(size // 16):
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
        with autocast(vae.device):
            latents = encode(vae, clips)
        latents = LTXPipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std)
        return scenes, LTXPipeline._pack_latents(latents)

    def refresh(self) -> None:
        """Replace the oldest clips by new ones."""
        scenes, latents = self._encode(FRESH_PER_STEP)
        end = self._next + FRESH_PER_STEP
        self._scenes[self._next : end] = scenes
        self._latents[self._next : end] = latents
        self._next = end % self._size

    def sample(self, rng: random.Random, count: int) -> tuple[list[Scene], torch.Tensor]:
        """Random clips of the pool."""
        picks = rng.sample(range(self._size), count)
        return [self._scenes[pick] for pick in picks], self._latents[picks]


class Conditioner:
    """Captions of scenes as the fixed text encoder's output."""

    def __init__(self, encoder: T5EncoderModel) -> None:
        self._encoder = encoder

    @torch.no_grad()
    def __call__(self, scenes: list[Scene], images: int, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        """(embeddings, mask) of captions, the first `images` of which go with a first frame.

        Some captions are empty, which makes guidance possible.
        """
        templates = [random_image_template(rng) for _ in scenes[:images]]
        templates += [random_template(rng) for _ in scenes[images:]]
        texts = [
            "" if rng.random() < CAPTION_DROPOUT else fill(template, scene, rng)
            for template, scene in zip(templates, scenes, strict=True)
        ]
        ids, mask = (value.to(self._encoder.device) for value in tokenize(texts))
        # The encoder sees the padding, as in the pipeline; the transformer ignores it, so that
        # what is beyond the longest caption can be cut off without changing anything.
        with autocast(self._encoder.device):
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
    """The transformer's output, called as the pipeline calls it for a clip of the trained size.

    `sigma` is the noise of each token, (batch, tokens).
    """
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
    images: int,
    embeddings: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Error of the predicted velocity at noise levels spread as the scheduler's; given frames do not count."""
    uniform = torch.rand(len(latents), 1, device=latents.device)
    sigma = (SHIFT * uniform / (1 + (SHIFT - 1) * uniform)).repeat(1, latents.size(1))
    sigma[:images, :TOKENS_PER_FRAME] = 0.0
    noise = torch.randn_like(latents)
    noisy = torch.lerp(latents, noise, sigma[:, :, None])
    # The fused attention's backward pass in bfloat16 is far slower on a CPU than the plain one.
    with autocast(latents.device), sdpa_kernel(SDPBackend.MATH):
        output = velocity(transformer, noisy, sigma, embeddings, mask)
    error = functional.mse_loss(output.float(), noise - latents, reduction="none")
    return error[sigma > 0].mean()


def _optimizers(transformer: Any, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else."""
    matrices = [p for p in transformer.transformer_blocks.parameters() if p.ndim == 2]
    matrices = [p for p in matrices if p.size(0) > 6]
    chosen = {id(p) for p in matrices}
    others = [p for p in transformer.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, rate, weight_decay=0.01),
        torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train_transformer(
    work: Path,
    steps: int,
    vae: AutoencoderKLLTXVideo,
    text_encoder: T5EncoderModel,
    seed: int,
    trained: LTXVideoTransformer3DModel | None = None,
) -> LTXVideoTransformer3DModel:
    """The transformer, averaged over its last steps; continues from `work`, else from `trained`, else from scratch."""
    torch.manual_seed(seed)
    plan = FURTHER if trained else FROM_NOTHING
    transformer: Any = trained or build_transformer()
    transformer.to(vae.device)
    trainer = Trainer(
        work / ("transformer-further.pt" if trained else "transformer.pt"),
        transformer,
        _optimizers(transformer, plan.learning_rate),
        steps,
        plan.warmup,
        plan.average_decay,
        seed,
    )
    if trainer.step < steps:
        pool = LatentPool(vae, plan.pool, seed + trainer.step)
        conditioner = Conditioner(text_encoder)
    losses: list[float] = []
    while trainer.step < steps:
        trainer.begin()
        rng = random.Random(f"transformer {seed} {trainer.step}")
        pool.refresh()
        scenes, latents = pool.sample(rng, plan.batch)
        loss = _loss(transformer, latents, plan.images, *conditioner(scenes, plan.images, rng))
        trainer.finish(loss)
        losses.append(float(loss.detach()))
        if trainer.due(plan.save_every):
            trainer.save()
            print(
                f"transformer {trainer.step}/{steps} {trainer.seconds:.0f}s loss {sum(losses) / len(losses):.4f}",
                flush=True,
            )
            losses.clear()
    trainer.average.copy_to(transformer)
    return transformer.eval().requires_grad_(False)
