"""A clip that follows a reference video with an IC-LoRA has the bits of Lightricks' trainer pipeline.

The oracle is that pipeline's loop (LTX-Video-Trainer 31b1273, ltxv_pipeline.py, `reference_video`), written here step
by step with diffusers' own classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import loras
import PIL.Image
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import (
    linear_quadratic_schedule,
    rescale_noise_cfg,
    retrieve_latents,
)
from test_conditions import CPU, FRAMES, TWO, Media, Parts, clip, frames_of, media, one_thread, parts

from ltx_dist.checkpoints.lora_files import linear_layers
from ltx_dist.estimates import working_sets
from ltx_dist.media.sources import open_media
from ltx_dist.models.family import family_of
from ltx_dist.models.ltx_video.estimates import stage_work
from ltx_dist.models.ltx_video.load import load_component
from ltx_dist.pipeline.conditions import Condition, Lora
from ltx_dist.pipeline.payloads import Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN
from ltx_dist.run.cost_store import component_configs
from ltx_dist.weights.loading import load_noise_scheduler
from ltx_dist.weights.lora import use_loras

__all__ = ["media", "one_thread", "parts"]


def tensor_of(pipeline: Any, parts: Parts, medium: Condition, height: int, width: int) -> torch.Tensor:
    """(1, 3, F, height, width) in the VAE's dtype."""
    frames = frames_of(medium) if medium.is_video else [PIL.Image.open(medium.place)]
    return pipeline.video_processor.preprocess_video(frames, height, width).to(parts.dtype)


@torch.no_grad()
def trainer_latents(
    parts: Parts, request: RenderRequest, transformer: Any, generator: torch.Generator
) -> torch.Tensor:  # fmt: skip
    """Latents of the loop of the trainer's pipeline: (1, C, F, H, W), float32."""
    pipeline = parts.pipeline(diffusers.LTXConditionPipeline)
    height, width = request.first_size
    conditions = [tensor_of(pipeline, parts, one, height, width) for one in request.conditions]
    latents, mask, coords, num_extra = pipeline.prepare_latents(
        conditions, [one.strength for one in request.conditions], [one.frame_index for one in request.conditions],
        batch_size=1, num_channels_latents=16, height=height, width=width, num_frames=request.num_frames,
        generator=generator, device=CPU, dtype=torch.float32,
    )  # fmt: skip
    assert request.reference is not None
    pixels = tensor_of(pipeline, parts, request.reference, height, width)
    reference = retrieve_latents(parts.vae.encode(pixels), generator=generator)
    reference = pipeline._normalize_latents(reference, parts.vae.latents_mean, parts.vae.latents_std).float()
    places = pipeline._scale_video_ids(pipeline._prepare_video_ids(1, *reference.shape[2:]), 32, 8, 0)
    reference = pipeline._pack_latents(reference)
    num_reference = reference.shape[1]
    latents = torch.cat([reference, latents], dim=1)
    coords = torch.cat([places.float(), coords], dim=2)
    coords[:, 0] = coords[:, 0] * (1.0 / request.frame_rate)
    free = torch.zeros(1, latents.shape[1] - num_reference) if mask is None else mask
    mask = torch.cat([torch.ones(1, num_reference), free], dim=1)
    begun = latents.clone()
    text = parts.text
    guided = request.guidance_scale > 1
    embeds = torch.cat([text.negative_prompt_embeds, text.prompt_embeds]) if guided else text.prompt_embeds
    masks = torch.cat([text.negative_prompt_attention_mask, text.prompt_attention_mask]) if guided else None
    scheduler = load_noise_scheduler(parts.checkpoint)
    scheduler.set_timesteps(timesteps=(linear_quadratic_schedule(request.num_inference_steps) * 1000).tolist())
    for t in scheduler.timesteps:
        if request.image_cond_noise_scale > 0:
            noise = torch.randn(latents.shape, generator=generator)
            noised = begun + request.image_cond_noise_scale * noise * (t / 1000.0) ** 2
            latents = torch.where((mask > 1.0 - 1e-6).unsqueeze(-1), noised, latents)
        both = 2 if guided else 1
        timestep = torch.min(t.expand(both).unsqueeze(-1).float(), (1 - torch.cat([mask] * both)) * 1000.0)
        predicted = transformer(
            hidden_states=torch.cat([latents] * both).to(embeds.dtype), encoder_hidden_states=embeds, timestep=timestep,
            encoder_attention_mask=text.prompt_attention_mask if masks is None else masks,
            video_coords=torch.cat([coords] * both), return_dict=False,
        )[0]  # fmt: skip
        if guided:
            without, with_text = predicted.chunk(2)
            predicted = without + request.guidance_scale * (with_text - without)
            timestep, _ = timestep.chunk(2)
            if request.guidance_rescale > 0:
                predicted = rescale_noise_cfg(predicted, with_text, request.guidance_rescale)
        stepped = scheduler.step(-predicted, t, latents, per_token_timesteps=timestep, return_dict=False)[0]
        latents = torch.where((t / 1000 - 1e-6 < (1.0 - mask)).unsqueeze(-1), stepped, latents)
    return pipeline._unpack_latents(
        latents[:, num_reference + num_extra :], (request.num_frames - 1) // 8 + 1, height // 32, width // 32
    )


CASES = {
    "alone": lambda media: {},
    "without guidance": lambda media: {"guidance_scale": 1.0},
    "rescaled, without noise": lambda media: {"guidance_rescale": 0.7, "image_cond_noise_scale": 0.0},
    "with a first frame": lambda media: {"conditions": (media.image(0),)},
    "with keyframes": lambda media: {
        "conditions": (media.image(0), media.image(1, frame_index=16, strength=0.7), media.image(2, frame_index=32))
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def control(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Lora:
    path = tmp_path_factory.mktemp("loras") / "ic-lora-depth-control.safetensors"
    loras.save(path, loras.renamed(loras.make_lora(linear_layers(parts.checkpoint)), "diffusion_model."))
    return Lora(str(path), open_media(str(path)).sha256, 0.8)


def following(media: Media, control: Lora, **changes: Any) -> RenderRequest:
    return clip(
        **({"reference": media.video(num_frames=FRAMES), "loras": (control,), "num_inference_steps": 2} | changes)
    )


def with_lora(parts: Parts, control: Lora) -> Parts:
    return replace(parts, checkpoint=replace(parts.checkpoint, loras=(control,)))


@pytest.mark.parametrize("case", CASES)
def test_a_reference_is_followed_as_in_the_trainers_pipeline(parts: Parts, media: Media, control: Lora, case: str):
    request = following(media, control, **CASES[case](media))
    generator = torch.Generator("cpu").manual_seed(request.seed)
    adapted = with_lora(parts, control)
    transformer = load_component("transformer", adapted.checkpoint, parts.dtype, PLAIN, CPU)
    use_loras(transformer, request.loras)
    expected = trainer_latents(parts, request, transformer, generator)
    latents: Latents = adapted.stages(request)["denoise"]
    assert torch.equal(latents.latents, expected)
    assert torch.equal(latents.generator_state, generator.get_state())


def test_what_a_reference_shows_matters_in_both_passes(parts: Parts, media: Media, control: Lora):
    request = following(media, control, second_pass=TWO, height=96, width=128)
    made = with_lora(parts, control).stages(request)
    assert [tuple(one.shape[-3:]) for one in (*made["encode_image"].seen, *made["encode_image"].refined)] == [
        (5, 2, 3), (5, 4, 6),
    ]  # fmt: skip
    other = replace(request, reference=None, conditions=(media.image(0),))
    assert not torch.equal(made["refine"].latents, with_lora(parts, control).stages(other)["refine"].latents)


def test_a_reference_doubles_the_tokens_that_are_planned(parts: Parts, media: Media, control: Lora):
    request = following(media, control)
    plain = replace(request, reference=None, loras=())
    assert working_sets.denoised_tokens(request, (64, 96), (32, 8)) == 2 * 5 * 2 * 3
    configs: Any = component_configs(family_of(parts.checkpoint), parts.checkpoint)
    with_it, without = (stage_work(configs, (32, 8), one) for one in (request, plain))
    # At this size, attention takes next to no time, and the part for the text is not doubled.
    assert with_it[1] > without[1] == 0 and 1.8 < with_it[2] / without[2] < 2
