"""The arguments of a denoising pass, from a request: pure data under diffusers' names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ltx_dist.pipeline.conditions import Lora
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings


@dataclass(frozen=True, slots=True)
class Guidance:
    """All eight guidance numbers of `LTX2Pipeline.__call__`, and the blocks that STG skips.

    All are always given: by default `stg_scale` and `modality_scale` are on in diffusers 0.42.1, each for one more
    transformer run per step. A 0 for the sound means "as for the video" there (`audio_stg_scale or stg_scale`).
    """

    guidance_scale: float
    guidance_rescale: float
    stg_scale: float
    modality_scale: float
    audio_guidance_scale: float
    audio_guidance_rescale: float
    audio_stg_scale: float
    audio_modality_scale: float
    spatio_temporal_guidance_blocks: tuple[int, ...]

    @property
    def is_classifier_free(self) -> bool:
        """Whether a negative prompt is used at all: diffusers' own rule, which looks at both modalities."""
        return self.guidance_scale > 1 or self.audio_guidance_scale > 1

    @property
    def transformer_passes(self) -> int:
        """Number of transformer runs per clip and step: 4 with all guidance, 1 with none."""
        stg = self.stg_scale > 0 or self.audio_stg_scale > 0
        modality = self.modality_scale > 1 or self.audio_modality_scale > 1
        return 1 + self.is_classifier_free + stg + modality

    def arguments(self) -> dict[str, Any]:
        """Arguments of `__call__`."""
        numbers = {name: getattr(self, name) for name in self.__slots__}
        return numbers | {"spatio_temporal_guidance_blocks": list(self.spatio_temporal_guidance_blocks)}


NO_GUIDANCE = Guidance(1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, ())
"""The settings for distilled weights: one transformer run per step. Rescaling is off, too: for an unguided prediction
it changes nothing in exact arithmetic, but it changes the low bits."""


@dataclass(frozen=True, slots=True)
class PassSettings:
    """One denoising pass. Sizes are pixels.

    sigmas: the schedule, used as it is; None leaves it to the checkpoint's noise scheduler and num_inference_steps.
    noise_scale: how much of the start is noise: sigmas[0] for a second pass; 1 for a pass without latents, which
    diffusers starts from pure noise whatever the argument. loras: in the order they are applied.
    """

    height: int
    width: int
    num_inference_steps: int
    sigmas: tuple[float, ...] | None
    noise_scale: float
    guidance: Guidance
    loras: tuple[Lora, ...] = ()


def passes(request: RenderRequest) -> tuple[PassSettings, ...]:
    """The one or two passes of a clip, in order."""
    assert request.sound is not None, "of another model family"
    height, width = request.first_size
    first = PassSettings(
        height=height,
        width=width,
        num_inference_steps=request.num_inference_steps,
        sigmas=request.sound.sigmas,
        noise_scale=1.0,
        guidance=_guidance(request.guidance_scale, request.guidance_rescale, request.sound),
        loras=request.loras,
    )
    second = request.second_pass
    if second is None:
        return (first,)
    assert isinstance(second, SoundSecondPass), "of another model family"
    return first, PassSettings(
        height=second.height,
        width=second.width,
        num_inference_steps=len(second.sigmas),
        sigmas=second.sigmas,
        noise_scale=second.sigmas[0],
        guidance=NO_GUIDANCE,
        loras=request.all_loras,
    )


def _guidance(guidance_scale: float, guidance_rescale: float, sound: SoundSettings) -> Guidance:
    return Guidance(
        guidance_scale=guidance_scale,
        guidance_rescale=guidance_rescale,
        stg_scale=sound.stg_scale,
        modality_scale=sound.modality_scale,
        audio_guidance_scale=sound.audio_guidance_scale,
        audio_guidance_rescale=sound.audio_guidance_rescale,
        audio_stg_scale=sound.audio_stg_scale,
        audio_modality_scale=sound.audio_modality_scale,
        spatio_temporal_guidance_blocks=sound.spatio_temporal_guidance_blocks,
    )
