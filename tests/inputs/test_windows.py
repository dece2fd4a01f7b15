"""A row's segments and windows become the windows of a long clip, each with its prompt; or an error with the remedy."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from test_media import checkpoint, folder, read, refused

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.kept_request import kept_request
from ltx_dist.pipeline.conditions import Windows
from ltx_dist.report.copied_command import copied_command

__all__ = ["checkpoint", "folder"]

STEPS = {"timesteps": [1000, 909.4, 421.9], "num_frames": 361}


def segments(*parts: tuple[str, int]) -> dict[str, Any]:
    timesteps = {"timesteps": [1000, 909.4], "prompt": None}
    return timesteps | {"segments": [{"prompt": prompt, "num_frames": frames} for prompt, frames in parts]}


def test_a_prompt_is_split_among_windows(folder: Path, checkpoint: Checkpoint):
    (request,) = read(folder, checkpoint, STEPS | {"prompt": "a | b|c", "windows": {}})
    assert request.windows == Windows(("a", "b", "c", "c", "c", "c", "c"), 80, 24, 0.5, 0.25)
    assert request.num_frames == 361 and request.num_steps == 21 and request.prompt == "a | b|c"


def test_a_bar_is_text_in_a_clip_of_one_window(folder: Path, checkpoint: Checkpoint):
    (request,) = read(folder, checkpoint, {"prompt": "a | b"})
    assert request.windows is None and request.prompt == "a | b"


def test_segments_last_as_long_as_they_say(folder: Path, checkpoint: Checkpoint):
    """Windows end at frames 80, 136, 192 and so on; each shows the segment that is in the middle of its new frames."""
    (request,) = read(folder, checkpoint, segments(("day", 120), ("dusk", 80), ("night", 161)))
    assert request.windows and request.windows.prompts == ("day", "day", "dusk", "night", "night", "night", "night")
    assert (request.num_frames, request.prompt) == (361, "day | dusk | night")


def test_segments_without_lengths_take_windows_in_turn(folder: Path, checkpoint: Checkpoint):
    row = {"prompt": None, "segments": [{"prompt": "day"}, {"prompt": "night"}], "windows": {"temporal_tile_size": 120}}
    (request,) = read(folder, checkpoint, STEPS | row | {"image": "a.png"})
    assert (
        request.windows and set(request.windows.prompts[1:]) == {"night"} and request.windows.temporal_tile_size == 120
    )
    assert len(request.conditions) == 1


LONG = STEPS | {"windows": {}}
WRONG = [
    (STEPS | {"windows": {"temporal_overlap": 16}}, "windows: temporal_overlap: 16 is too small; with less than 24"),
    (STEPS | {"windows": {"temporal_overlap": 30}}, "windows: temporal_overlap: 30 is not a multiple of 8; use 24"),
    (STEPS | {"windows": {"temporal_tile_size": 5}}, "windows: temporal_tile_size: 5 is not a multiple of 8; use 8"),
    (STEPS | {"windows": {"temporal_tile_size": 24}}, "windows: temporal_overlap: 24 must be smaller than tem"),
    (STEPS | {"windows": {"tile": 24}}, "windows: tile: unknown key"),
    ({"windows": {}}, "windows: set timesteps, such as those of 0.9.8 distilled"),
    (LONG | {"prompt": "a || b"}, "prompt: a part between two | is empty"),
    (LONG | {"prompt": "a|b|c|d|e|f|g|h"}, "prompt: 8 prompts for 7 windows; make the clip longer"),
    (LONG | {"num_frames": 360}, "num_frames: 360 is not a multiple of 8 plus 1; use 353 or 361"),
    (LONG | {"video": "long.mp4", "denoise_strength": 0.5, "num_frames": 33}, "video: a long clip cannot have it"),
    (LONG | {"conditions": [{"image": "a.png", "frame_index": 8}]}, "conditions: a long clip takes one image"),
    (LONG | {"image": "a.png", "conditions": [{"image": "b.png"}]}, "conditions: a long clip takes one image"),
    (segments(("day", 120), ("night", 120)), "num_frames: 240 is not a multiple of 8 plus 1; use 233 or 241"),
    (segments(("day", 136), ("dawn", 24), ("night", 201)), "segments: [1]: 24 frames are too few: no window"),
    (segments(("day|dusk", 120), ("night", 121)), "segments: [0].prompt: has |, which separates segments"),
    (segments(("day", 120)) | {"prompt": "p"}, "segments: have the prompts; leave prompt out"),
    (segments(("day", 120)) | {"num_frames": 121}, "segments: have num_frames; leave the row's out"),
    (segments() | {"prompt": "p"}, "segments: have the prompts; leave prompt out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"), WRONG, ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else ""
)
def test_what_cannot_be_a_long_clip_is_refused(folder: Path, checkpoint: Checkpoint, row: Any, message: str):
    assert message in refused(folder, checkpoint, row)


def test_older_versions_have_no_windows(folder: Path, checkpoint: Checkpoint):
    older = replace(checkpoint, pipeline_class="LTXPipeline")
    assert "long clips need LTX-Video 0.9.5 or newer" in refused(folder, older, {"windows": {}, "num_frames": 361})


def test_an_upscaler_does_not_make_two_passes_of_a_long_clip(folder: Path, checkpoint: Checkpoint):
    with_upscaler = replace(checkpoint, sources={"latent_upsampler": Path("upscaler")})
    row = {"windows": {}, "num_frames": 361, "height": 704, "width": 1216}
    (request,) = read(folder, with_upscaler, row, version="0.9.8-13b-distilled")
    assert request.windows and request.second_pass is None and len(request.timesteps or ()) == 8
    both = row | {"second_pass": {"timesteps": [800]}}
    assert "second_pass: a long clip cannot have it" in refused(
        folder, with_upscaler, both, version="0.9.8-13b-distilled"
    )


def test_a_long_clip_is_asked_for_again_by_its_sidecar(folder: Path, checkpoint: Checkpoint, tmp_path: Path):
    row = segments(("day", 120), ("dusk", 80), ("night", 161)) | {"name": "clip"}
    (request,) = read(folder, checkpoint, row)
    text = json.dumps(asdict(request))
    assert kept_request(tmp_path / "clip.json", text, checkpoint) == request
    command = copied_command(json.loads(text), {})
    again = json.loads(command[command.index("{") : command.rindex("}") + 1])
    (same,) = read(folder, checkpoint, {"prompt": None} | again)
    assert same.windows == request.windows
