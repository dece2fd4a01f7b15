"""Settings files of Wan2GP become rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_prompts import CHECKPOINT, DEFAULTS, PRESET

from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.inputs.rows import Doubt, Item
from ltx_dist.inputs.wan2gp import from_wan2gp

SETTINGS: dict[str, Any] = {
    "model_type": "ltxv_13B", "settings_version": 2.23, "prompt": "a storm", "negative_prompt": "blurry",
    "batch_size": 1, "remove_background": True,
    "resolution": "1280x704", "video_length": 97, "seed": 42, "force_fps": "24", "num_inference_steps": 20,
    "guidance_scale": 3.5, "repeat_generation": 2, "flow_shift": 5, "activated_loras": ["toon.safetensors"],
    "image_start": None, "image_end": None, "sample_solver": "", "tea_cache": 0,
}  # fmt: skip


def write(folder: Path, content: Any) -> str:
    path = folder / "w.json"
    path.write_text(json.dumps(content, indent=1))
    return str(path)


def test_its_settings_become_those_of_a_row(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = write(tmp_path, SETTINGS)
    first, second = read_prompts(path, DEFAULTS, PRESET, CHECKPOINT, warnings)
    assert (first.width, first.height, first.num_frames, first.frame_rate) == (1280, 704, 97, 24.0)
    assert (first.num_inference_steps, first.guidance_scale, first.negative_prompt) == (20, 3.5, "blurry")
    assert (first.seed, second.seed) == (42, 43)
    assert warnings == [
        f"{path}:1: settings of Wan2GP without an equivalent are left out: "
        "remove_background, flow_shift, activated_loras"
    ]


def test_a_list_may_mix_them_with_rows(tmp_path: Path) -> None:
    settings = SETTINGS | {"seed": -1, "repeat_generation": 1, "force_fps": ""}
    first, second = read_prompts(write(tmp_path, [{"prompt": "a"}, settings]), DEFAULTS, PRESET, CHECKPOINT)
    assert (first.prompt, second.request_id, second.seed, second.frame_rate) == (
        "a",
        "002-a-storm",
        1,
        PRESET.settings["frame_rate"],
    )


def test_first_and_last_images_are_kept() -> None:
    settings = SETTINGS | {"image_start": ["a.png"], "image_end": "b.png"}
    entries = list(from_wan2gp(iter([Item(1, settings)])))
    assert isinstance(entries[0], Doubt)
    assert isinstance(entries[1], Item)
    assert entries[1].content["image"] == "a.png"
    assert entries[1].content["conditions"] == [{"image": "b.png", "frame_index": -1}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": "auto"}, "resolution: 'auto' is not WIDTHxHEIGHT; write width and height"),
        ({"force_fps": "control"}, "force_fps: 'control' takes the rate of another video; write frame_rate"),
        ({"prompt": "a\nb"}, "prompt: has several lines, which Wan2GP may render one by one"),
        ({"video_length": 96}, "num_frames: 96 is not a multiple of 8 plus 1; use 89 or 97"),
    ],
)
def test_what_cannot_be_taken_over_is_an_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"w.json:1: {message}"):
        read_prompts(write(tmp_path, SETTINGS | changes), DEFAULTS, PRESET, CHECKPOINT)
