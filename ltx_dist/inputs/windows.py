"""Long clips: a row's `segments` and `windows` -> the windows that the clip is denoised in, and the prompt of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.media_rows import SegmentRow, WindowsRow
from ltx_dist.inputs.preset import TAKES_TIMESTEPS
from ltx_dist.messages import count
from ltx_dist.pipeline.conditions import Windows, window_places

SEPARATOR = "|"
FIELDS = ("segments", "windows")

SMALLEST_OVERLAP = 3
"""In latent frames. With 1 or 2, diffusers' LTXI2VLongMultiPromptPipeline does not remove the overlap, and the clip is
longer than requested."""


def asks_for_windows(given: Mapping[str, Any]) -> bool:
    return any(given.get(field) is not None for field in FIELDS)


def with_segments_joined(given: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the prompt and number of frames that its segments add up to. Raises ValueError for what is given
    twice. Invalid segments are left for a later check, and the row is returned unchanged."""
    segments = given.get("segments")
    if not isinstance(segments, list) or not all(isinstance(one, dict) for one in segments):
        return dict(given)
    if given.get("prompt") is not None:
        raise ValueError("segments: have the prompts; leave prompt out")
    prompts, frames = [one.get("prompt") for one in segments], [one.get("num_frames") for one in segments]
    joined = dict(given)
    if prompts and all(isinstance(prompt, str) for prompt in prompts):
        joined["prompt"] = f" {SEPARATOR} ".join(prompts)
    if any(number is not None for number in frames):
        if given.get("num_frames") is not None:
            raise ValueError("segments: have num_frames; leave the row's out")
        if any(number is None for number in frames):
            raise ValueError("segments: give num_frames for each of them, or for none")
        if all(type(number) is int for number in frames):
            joined["num_frames"] = sum(frames)
    return joined


def windows_of(row: Mapping[str, Any], asked: Mapping[str, Any], checkpoint: Checkpoint) -> Windows | None:
    """The windows of a long clip; None for a row with one window.

    row: its fields, valid by themselves; asked: those about media and passes. Raises ValueError, beginning with the
    field, for settings that a long clip cannot have, and for impossible windows.
    """
    segments: Sequence[SegmentRow] | None = asked["segments"]
    settings: WindowsRow | None = asked["windows"]
    if segments is None and settings is None:
        return None
    _check_row(row, asked, checkpoint)
    settings, ratio = settings or WindowsRow(), checkpoint.temporal_compression_ratio
    tile, overlap = settings.temporal_tile_size, settings.temporal_overlap
    for name, frames in (("temporal_tile_size", tile), ("temporal_overlap", overlap)):
        if frames % ratio:
            nearest = max(ratio, frames - frames % ratio)
            raise ValueError(f"windows: {name}: {frames} is not a multiple of {ratio}; use {nearest}")
    if overlap < SMALLEST_OVERLAP * ratio:
        raise ValueError(
            f"windows: temporal_overlap: {overlap} is too small; with less than {SMALLEST_OVERLAP * ratio} diffusers' "
            "pipeline makes clips longer than requested"
        )
    if overlap >= tile:
        raise ValueError(f"windows: temporal_overlap: {overlap} must be smaller than temporal_tile_size, {tile}")
    places = window_places(row["num_frames"], tile, overlap, ratio)
    return Windows(
        _prompts(row["prompt"], segments, places, ratio),
        tile,
        overlap,
        float(settings.temporal_overlap_cond_strength),
        float(settings.adain_factor),
    )


def _check_row(row: Mapping[str, Any], asked: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    field = next(field for field in FIELDS if asked[field] is not None)
    if checkpoint.pipeline_class != TAKES_TIMESTEPS:
        raise ValueError(f"{field}: long clips need LTX-Video 0.9.5 or newer; they were made for 0.9.8 distilled")
    if row.get("timesteps") is None:
        raise ValueError(f"{field}: set timesteps, such as those of 0.9.8 distilled; each window runs all of them")
    for other in ("video", "reference", "second_pass"):
        if asked[other]:
            raise ValueError(f"{other}: a long clip cannot have it; leave it out, or leave {field} out")
    images = [one for one in asked["conditions"] or () if one.image is not None and one.frame_index == 0]
    if len(images) != len(asked["conditions"] or ()) or len(images) + bool(asked["image"]) > 1:
        raise ValueError("conditions: a long clip takes one image, as its first frame; leave the others out")


def _prompts(
    prompt: str, segments: Sequence[SegmentRow] | None, places: Sequence[tuple[int, int]], ratio: int
) -> tuple[str, ...]:
    """One prompt per window: that of the segment which contains the middle of the frames that the window adds. If
    segments have no lengths, windows take the prompts in order, and the last prompt is used for all windows left."""
    prompts = parts_of(prompt)
    if segments is not None:
        for index, segment in enumerate(segments):
            if SEPARATOR in segment.prompt:
                raise ValueError(f"segments: [{index}].prompt: has {SEPARATOR}, which separates segments; remove it")
        prompts = [segment.prompt for segment in segments]
    if not all(prompts):
        raise ValueError(f"prompt: a part between two {SEPARATOR} is empty; write a prompt for that window")
    if segments is None or segments[0].num_frames is None:
        if len(prompts) > len(places):
            raise ValueError(
                f"{'segments' if segments else 'prompt'}: {count(len(prompts), 'prompt')} for "
                f"{count(len(places), 'window')}; make the clip longer, or the windows shorter"
            )
        return tuple(in_order(prompts, len(places)))
    ends = list(accumulate(segment.num_frames or 0 for segment in segments))
    firsts = [0, *(end for _, end in places[:-1])]
    middles = [(first + end) * ratio / 2 for first, (_, end) in zip(firsts, places, strict=True)]
    shown = [next((index for index, end in enumerate(ends) if middle < end), len(ends) - 1) for middle in middles]
    if missing := sorted(set(range(len(segments))) - set(shown)):
        raise ValueError(
            f"segments: [{missing[0]}]: {segments[missing[0]].num_frames} frames are too few: no window would show it; "
            "make it longer, or the windows shorter"
        )
    return tuple(prompts[index] for index in shown)


def parts_of(prompt: str) -> list[str]:
    """The prompts that one prompt separates for windows."""
    return [part.strip() for part in prompt.split(SEPARATOR)]


def in_order(prompts: Sequence[str], num_windows: int) -> list[str]:
    """The prompt of each window: windows take the prompts in order, and the last is used for all windows left."""
    return [prompts[min(index, len(prompts) - 1)] for index in range(num_windows)]
