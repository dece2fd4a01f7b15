"""Settings files of Wan2GP -> rows. Settings that rows do not have are left out, with a warning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ltx_dist.inputs.rows import Doubt, Found, Item, Problem
from ltx_dist.messages import show

_MARKS = ("model_type", "resolution", "video_length")
"""Keys that all settings of Wan2GP have, and no row has."""

_SAME = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale")
_RENAMED = {"video_length": "num_frames", "repeat_generation": "num_videos_per_prompt", "image_start": "image"}
_OF_THE_PROGRAM = ("model_type", "model_filename", "settings_version", "type", "base_model_type", "mode")
"""Keys that only name the model."""


def from_wan2gp(found: Iterator[Found]) -> Iterator[Found]:
    """The entries of a JSON file, with Wan2GP's settings converted to rows."""
    for entry in found:
        if isinstance(entry, Item) and isinstance(entry.content, dict) and all(key in entry.content for key in _MARKS):
            yield from _row(entry.line, entry.content)
        else:
            yield entry


def _row(line: int, settings: Mapping[str, Any]) -> Iterator[Found]:
    row: dict[str, Any] = {name: settings[name] for name in _SAME if name in settings}
    row |= {ours: settings[theirs] for theirs, ours in _RENAMED.items() if theirs in settings}
    if row.get("num_videos_per_prompt") == 1:
        del row["num_videos_per_prompt"]
    if settings.get("seed") != -1:  # -1 means a random seed
        row["seed"] = settings.get("seed")
    if isinstance(row.get("image"), list) and len(row["image"]) == 1:
        row["image"] = row["image"][0]
    if settings.get("image_end"):
        row["conditions"] = [{"image": settings["image_end"], "frame_index": -1}]
    size = re.fullmatch(r"\s*(\d{1,5})x(\d{1,5})\s*", str(settings["resolution"]))
    if size is None:
        yield Problem(line, f"resolution: {show(settings['resolution'])} is not WIDTHxHEIGHT; write width and height")
    else:
        row |= {"width": int(size[1]), "height": int(size[2])}
    rate = str(settings.get("force_fps") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", rate):
        row["frame_rate"] = float(rate)
    elif rate not in ("", "auto"):
        yield Problem(line, f"force_fps: {show(rate)} takes the rate of another video; write frame_rate")
    if "\n" in str(settings.get("prompt", "")).strip():
        yield Problem(line, "prompt: has several lines, which Wan2GP may render one by one; write one row per line")
    if left := _left_out(settings):
        yield Doubt(line, f"settings of Wan2GP without an equivalent are left out: {', '.join(left)}")
    yield Item(line, row)


def _left_out(settings: Mapping[str, Any]) -> list[str]:
    """Settings that seem to be on and that rows do not have. Wan2GP also saves settings that are off."""
    used = {*_SAME, *_RENAMED, *_MARKS, *_OF_THE_PROGRAM, "seed", "image_end", "force_fps"}
    return [
        key
        for key, value in settings.items()
        if key not in used and (value is True or value not in (None, "", 0, 1, -1, []))
    ]
