"""Decides whether a clip is made in two passes, and with which settings: the row's, the config's, the preset's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.component_config import noise_scheduler_config
from ltx_dist.inputs.preset import TAKES_TIMESTEPS, Preset
from ltx_dist.pipeline.conditions import SecondPass, steps_of
from ltx_dist.pipeline.settings import declared

_SCHEDULES = ({"timesteps"}, {"num_inference_steps", "denoise_strength"})


def overlaid_schedule(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a second pass, `above` merged over `below`: timesteps replace steps and strength, and the reverse."""
    hidden = {
        key
        for of, instead in (_SCHEDULES, _SCHEDULES[::-1])
        if any(above.get(key) is not None for key in of)
        for key in instead
    }
    below = {key: value for key, value in below.items() if key not in hidden}
    return below | {key: value for key, value in above.items() if value is not None}


def has_two_passes(
    recipe: str | None,
    settings: Mapping[str, Any] | None,
    preset: Preset,
    checkpoint: Checkpoint,
    is_refinable: bool,
) -> bool:
    """Whether a clip is made in two passes.

    recipe, settings: `recipe` and `second_pass` of the row or the config. If neither is given and there is an upscaler,
    the clip is made as its version was published. is_refinable: what `can_refine` says of the checkpoint. Raises
    ValueError if two passes are asked for and not possible.
    """
    has_upscaler = "latent_upsampler" in checkpoint.sources
    wanted = recipe == "two_passes" or (recipe is None and bool(settings))
    if wanted and not has_upscaler:
        where = "complete latent_upsampler/ of the checkpoint" if checkpoint.generation else "set model.upscaler"
        raise ValueError(f"two passes need a latent upscaler between them; {where}")
    if wanted and not is_refinable:
        raise ValueError(
            f"{checkpoint.pipeline_class}, which this checkpoint is rendered with, cannot start from latents; use a "
            "checkpoint of 0.9.5 or newer"
        )
    if wanted and preset.two_passes is None and not settings:
        raise ValueError(
            f"{preset.version} was not published with two passes; set second_pass: timesteps, or num_inference_steps "
            "and denoise_strength (for LTX-2: sigmas)"
        )
    as_published = recipe is None and preset.two_passes is not None
    return wanted or (as_published and is_refinable)


def can_refine(checkpoint: Checkpoint) -> bool:
    """Whether there is a latent upscaler, and diffusers can start from its latents. For LTX-Video only
    LTXConditionPipeline can; it fails if the noise scheduler shifts by the size, and renders noise if the scheduler
    draws noise in every step. Reads the noise scheduler's config."""
    if "latent_upsampler" not in checkpoint.sources:
        return False
    if checkpoint.pipeline_class == TAKES_TIMESTEPS or checkpoint.generation:
        return True
    config = noise_scheduler_config(checkpoint)
    return not config.get("use_dynamic_shifting", False) and not config.get("stochastic_sampling", False)


def second_pass(settings: Mapping[str, Any], row: Mapping[str, Any], checkpoint: Checkpoint) -> SecondPass:
    """The second pass with every setting resolved.

    settings: of the second pass, from row, config and preset. row: settings of the first pass, whose guidance and noise
    are used where `settings` have none. Raises ValueError for an impossible schedule or size.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    if of_sound := [key for key in settings if key != "downscale_factor" and key not in declared(SecondPass)]:
        raise ValueError(f"{of_sound[0]}: is only for LTX-2; leave it out")
    side = math.lcm(32, checkpoint.spatial_compression_ratio)
    factor = settings.get("downscale_factor", 0.5)
    height, width = (int(row[name] * factor) // side * side for name in ("height", "width"))
    if not height or not width:
        raise ValueError(
            f"downscale_factor: {factor:g} of {row['width']}x{row['height']} is less than {side} pixels; make the clip "
            "larger"
        )
    timesteps, steps, strength = (settings.get(key) for key in ("timesteps", "num_inference_steps", "denoise_strength"))
    if timesteps is None and (steps is None or strength is None):
        raise ValueError("give timesteps, or num_inference_steps and denoise_strength")
    if timesteps is None and steps_of(steps or 0, strength or 0.0) < 1:
        raise ValueError(
            f"denoise_strength: {strength:g} of {steps} steps is less than one step; use at least "
            f"{1 / (steps or 1):.3g}"
        )
    if timesteps is not None:
        schedule = {"num_inference_steps": len(timesteps), "timesteps": tuple(timesteps), "denoise_strength": 1.0}
    else:
        schedule = {"num_inference_steps": steps, "timesteps": None, "denoise_strength": strength}
    own = {key: value for key, value in settings.items() if key != "downscale_factor"}
    as_in_the_first = {key: row[key] for key in ("guidance_scale", "guidance_rescale", "image_cond_noise_scale")}
    return SecondPass(height, width, **(as_in_the_first | own | schedule))
