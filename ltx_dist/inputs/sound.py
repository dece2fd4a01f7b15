"""What a row of LTX-2 may set beyond LTX-Video: its sound and its second pass, with their checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.pipeline.settings import declared
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings, latent_index

MAX_SECONDS = 20
"""Longer clips end blurred or faded; diffusers' pipelines use the same limit when they choose the length themselves."""

FRAMES_OVER = 4
"""Tolerance: a clip of MAX_SECONDS at 24 frames per second has 481 frames (8k + 1), which last slightly longer."""

_PAIRS = (
    ("audio_guidance_scale", "guidance_scale"), ("audio_guidance_rescale", "guidance_rescale"),
    ("audio_stg_scale", "stg_scale"), ("audio_modality_scale", "modality_scale"),
)  # fmt: skip
"""Settings of the sound, each with its counterpart for the video."""


def sound_settings(asked: Mapping[str, Any], row: Mapping[str, Any]) -> SoundSettings:
    """Sound settings of the first pass. Those that are not set are taken from the video's, as in diffusers."""
    of_video = dict(row) | {key: asked.get(key) for key in ("stg_scale", "modality_scale")}
    of_sound = {ours: of_video[its] if asked.get(ours) is None else asked[ours] for ours, its in _PAIRS}
    chosen = {key: value for key, value in (dict(asked) | of_sound).items() if value is not None}
    return SoundSettings(**{key: chosen[key] for key in declared(SoundSettings) if key in chosen})


def sound_problems(asked: Mapping[str, Any], row: Mapping[str, Any], checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Errors in settings that cannot be rendered, each with its field."""
    return list(_problems(asked, row, checkpoint))


def _problems(asked: Mapping[str, Any], row: Mapping[str, Any], checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    of_video = dict(row) | dict(asked)
    for ours, its in _PAIRS:
        if asked.get(ours) == 0 and of_video[its] > 0:
            yield (
                ours,
                f"diffusers reads 0 as {its}, which is {of_video[its]:g}; set {its} to 0, too, or {ours} above 0",
            )
    if max(asked["stg_scale"], asked.get("audio_stg_scale") or 0) > 0:
        blocks = asked.get("spatio_temporal_guidance_blocks")
        if not blocks or max(blocks) >= checkpoint.num_layers:
            yield (
                "spatio_temporal_guidance_blocks",
                f"stg_scale is on and needs blocks of this transformer, which has 0 to {checkpoint.num_layers - 1}",
            )
    longest = math.floor(MAX_SECONDS * row["frame_rate"]) + FRAMES_OVER
    if row["num_frames"] > longest:
        ratio = checkpoint.temporal_compression_ratio
        yield (
            "num_frames",
            f"{row['num_frames']} at {row['frame_rate']:g} per second are more than {MAX_SECONDS} seconds, which LTX-2 "
            f"was trained for; use at most {(longest - 1) // ratio * ratio + 1}",
        )


def sound_warnings(asked: Mapping[str, Any], row: Mapping[str, Any], checkpoint: Checkpoint) -> Iterator[str]:
    """Warnings about settings that are probably not meant."""
    stg = max(asked["stg_scale"] or 0, asked.get("audio_stg_scale") or 0) > 0
    modality = max(asked["modality_scale"] or 0, asked.get("audio_modality_scale") or 0) > 1
    guided = max(row["guidance_scale"], asked.get("audio_guidance_scale") or 0) > 1
    if checkpoint.distilled and (stg or modality or guided):
        yield (
            "these weights are distilled and need no guidance, but a step of this clip takes "
            f"{1 + stg + modality + guided} passes: set guidance_scale, modality_scale and audio_guidance_scale to 1, "
            "and stg_scale to 0"
        )
    if stg and checkpoint.generation == "2.0":
        yield "stg_scale: LTX-2.0 has no perturbed attention: a pass of each step changes nothing; set it to 0"


def sound_second_pass(settings: Mapping[str, Any], row: Mapping[str, Any], checkpoint: Checkpoint) -> SoundSecondPass:
    """The second pass. Raises ValueError for settings that LTX-2's does not have, or a size whose half is invalid."""
    known = (*declared(SoundSecondPass), "loras")
    others = [key for key, value in settings.items() if value is not None and key not in known]
    if others:
        raise ValueError(f"{others[0]}: is only for LTX-Video; for LTX-2 there are {', '.join(known)}")
    if not settings.get("sigmas"):
        raise ValueError("give sigmas: such as 0.909375, 0.725, 0.421875")
    side = 2 * math.lcm(32, checkpoint.spatial_compression_ratio)
    for name in ("height", "width"):
        if row[name] % side:
            below = row[name] - row[name] % side
            either = f"{below} or {below + side}" if below else f"{side}"
            raise ValueError(f"{name} {row[name]} is not a multiple of {side}, as two passes need; use {either}")
    own = declared(SoundSecondPass)  # LoRAs are resolved later, and added
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None and key in own}
    return SoundSecondPass(row["height"] // 2, row["width"] // 2, **{**given, "sigmas": tuple(given["sigmas"])})


def latent_start(frame_index: int, num_frames: int, temporal_ratio: int) -> tuple[int, str | None]:
    """The frame where a condition at `frame_index` begins, or the error in `frame_index`."""
    try:
        index = latent_index(frame_index, num_frames, temporal_ratio)
    except ValueError as error:
        return 0, str(error)
    return (index - 1) * temporal_ratio + 1 if index else 0, None
