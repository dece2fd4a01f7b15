"""Errors in the images and videos that condition a clip, and warnings about them."""

from __future__ import annotations

MAX_ASPECT_CHANGE = 0.01
"""Stretching by less than this share gives no warning: nobody sees it."""

MAX_REFINED_CHANGE = 0.02
"""The same after a second pass, whose sizes are rounded; with the published settings, 1216x704 is stretched by 3 %."""

MAX_FRAME_RATE = 30
"""Frames per second; the default of Lightricks' inference.py."""


def frame_index_problem(index: int, num_frames: int, is_video: bool, temporal_ratio: int) -> str | None:
    """Why a condition cannot begin at this frame of a clip of `num_frames`; None if it can. -1 is the last frame.

    A video must begin where a latent frame begins: diffusers silently rounds any other index down.
    """
    if not -1 <= index < num_frames:
        return f"{index} is not a frame of the clip; use 0 to {num_frames - 1}, or -1 for the last"
    if is_video and index == -1:
        return "-1 is for images; a video begins at the frame that you give"
    if is_video and index % temporal_ratio:
        below = index - index % temporal_ratio
        either = f"{below} or {below + temporal_ratio}"
        return f"{index} is not a multiple of {temporal_ratio}, which a video needs; use {either}"
    return None


def video_length_problem(
    found: int, start: int, wanted: int | None, index: int, num_frames: int, temporal_ratio: int
) -> str | None:
    """Why a video of `found` frames cannot condition a clip from frame `index` on, or None.

    start: the first of its frames that is used; wanted: how many, None for all that follow. diffusers silently cuts a
    video that is too long, or whose length is not a multiple of the VAE's ratio plus 1.
    """
    left, room = found - start, num_frames - index
    if left < 1:
        return f"has {found} frames, so none from start_frame {start} on"
    if wanted is not None and wanted > left:
        return f"has {left} frames from start_frame {start} on, not num_frames {wanted}"
    used = left if wanted is None else wanted
    longest = _whole(min(left, room), temporal_ratio)
    smallest = 1 if index == 0 else temporal_ratio + 1
    # diffusers uses two latent frames of a video that begins after the clip's first frame.
    if used == 1 and index:
        return f"one frame is too few at frame_index {index}; use at least {smallest}, or give an image"
    if used > room:
        return f"{used} frames from frame_index {index} on do not fit a clip of {num_frames}; set num_frames: {longest}"
    if (used - 1) % temporal_ratio:
        below = _whole(used, temporal_ratio)
        above = below + temporal_ratio
        either = f"{below} or {above}" if above <= min(left, room) else str(below)
        if below < smallest:
            return (
                f"{used} frames are not a multiple of {temporal_ratio} plus 1, and at least {smallest} are needed here"
            )
        return f"{used} frames are not a multiple of {temporal_ratio} plus 1; set num_frames: {either}"
    return None


def aspect_warning(width: int, height: int, clip_width: int, clip_height: int, fit: str) -> str | None:
    """A warning if the image is stretched, padded or cropped to the clip's shape; None below 1 %."""
    change = (clip_width / clip_height) / (width / height)
    if abs(change - 1) <= MAX_ASPECT_CHANGE:
        return None
    shapes = f"{width}x{height} to {clip_width}x{clip_height}"
    if fit == "stretch":
        return f"stretched by {abs(change - 1):.0%} from {shapes}; fit: crop keeps its shape"
    if fit == "pad":
        return f"padded with black from {shapes}"
    lost = 1 - min(change, 1 / change)
    return f"cropped by {lost:.0%} from {shapes}"


def frame_rate_warning(found: float | None, frame_rate: float) -> str | None:
    """A warning if a video would play faster or slower in the clip; None if not, or if its rate is unknown."""
    if found is None or abs(found / frame_rate - 1) < 0.01:
        return None
    speed = f"it will play {frame_rate / found:.2g} times as fast"
    return f"has {found:g} frames per second and the clip {frame_rate:g}: {speed}"


def refined_aspect_warning(width: int, height: int, clip_width: int, clip_height: int) -> str | None:
    """A warning if the frames of a second pass are visibly stretched to the clip's size; None up to 2 %."""
    change = abs((clip_width / clip_height) / (width / height) - 1)
    if change <= MAX_REFINED_CHANGE:
        return None
    return f"frames of {width}x{height} are stretched by {change:.0%} to {clip_width}x{clip_height}"


def high_frame_rate_warning(frame_rate: float) -> str | None:
    """A warning if LTX-Video was not trained for this frame rate, or None."""
    if frame_rate <= MAX_FRAME_RATE:
        return None
    return (
        f"{frame_rate:g} is above {MAX_FRAME_RATE}, the highest that LTX-Video was trained for; motion may look wrong"
    )


def _whole(frames: int, temporal_ratio: int) -> int:
    return (frames - 1) // temporal_ratio * temporal_ratio + 1
