"""The size of a clip in LTX-2.x: the shape of its latents, and its video and audio tokens in the transformer. Pure."""

from __future__ import annotations

from ltx_dist.models.ltx2.passes import PassSettings
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.request import RenderRequest

Ratios = tuple[int, int]
"""The VAE's pixels and frames per latent."""


def latent_shape(request: RenderRequest, size: tuple[int, int], ratios: Ratios) -> tuple[int, int, int]:
    """Latent frames, rows and columns of the clip. size: height and width in pixels."""
    spatial, temporal = ratios
    return (request.num_frames - 1) // temporal + 1, size[0] // spatial, size[1] // spatial


def video_tokens(request: RenderRequest, settings: PassSettings, ratios: Ratios) -> int:
    """Number of video tokens in the transformer: the clip's latents, and those of keyframes after the first frame."""
    frames, height, width = latent_shape(request, (settings.height, settings.width), ratios)
    added = sum(_latent_frames(one, ratios) for one in request.conditions if one.frame_index != 0)
    return (frames + added) * height * width


def sound_tokens(request: RenderRequest) -> int:
    """Number of audio tokens in the transformer: 25 per second, rounded as diffusers rounds them."""
    return round(request.num_frames / request.frame_rate * 25)


def _latent_frames(condition: Condition, ratios: Ratios) -> int:
    return (condition.num_frames - 1) // ratios[1] + 1
