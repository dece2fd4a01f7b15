"""Names of settings in other programs, for settings that we have under diffusers' name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.settings import declared

_OF_SEVERAL: Mapping[str, tuple[str, ...]] = {
    "height and width": ("resolution", "size", "dimensions", "image_size", "video_size", "aspect_ratio", "target_size"),
    "name": ("id", "filename", "file_name", "file", "output", "output_name", "output_path", "title", "video_name"),
    "num_videos_per_prompt": (
        "repeat", "repeats", "repeat_generation", "num_samples", "num_videos", "n_videos", "num_images_per_prompt",
        "samples_per_prompt", "videos_per_prompt", "batch_count", "n_iter",
    ),
    "vary": ("variations", "sweep", "grid"),
    "image": (
        "image_start", "start_image", "start_frame_image", "first_frame", "init_image", "input_image", "image_path",
        "conditioning_image",
    ),
    "conditions": ("keyframes", "image_end", "end_image", "last_frame", "conditioning_media_paths"),
    "video": ("video_source", "init_video", "input_video", "video_path", "source_video"),
    "loras": ("lora", "lora_path", "activated_loras", "lora_paths", "adapters"),
    "meta": ("metadata",),
}  # fmt: skip
"""Other programs' names that stand for several of our settings, or for fields that only rows have."""

_OURS = {name: it.other_names for name, it in declared(RenderRequest).items()} | _OF_SEVERAL
_OF_OTHERS = {name: ours for ours, names in _OURS.items() for name in names}

_HOW: Mapping[str, str] = {
    "duration": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "seconds": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "duration_seconds": ": seconds times frame_rate, to a multiple of 8 plus 1",
    "resolution": " in pixels",
    "aspect_ratio": " in pixels",
    "image_end": ": [{image: ..., frame_index: -1}]",
    "end_image": ": [{image: ..., frame_index: -1}]",
    "last_frame": ": [{image: ..., frame_index: -1}]",
}
"""Conversions to mention besides the name."""


def is_other_name(key: str) -> bool:
    """Whether this is another program's name of a setting that we have, too."""
    return _normalised(key) in _OF_OTHERS


def meant(key: str, known: Iterable[str]) -> str | None:
    """The known keys that another program's key stands for, with how to convert its value, as text; None if none are.

    known: may be dotted (`defaults.width`), in which case the result is dotted, too.
    """
    other = _normalised(key.rpartition(".")[2])
    ours = _OF_OTHERS.get(other)
    full = {name.rpartition(".")[2]: name for name in known}
    if ours is None or not all(name in full for name in ours.split(" and ")):
        return None
    return " and ".join(full[name] for name in ours.split(" and ")) + _HOW.get(other, "")


def _normalised(key: str) -> str:
    return key.strip().lower().replace("-", "_").replace(" ", "_")
